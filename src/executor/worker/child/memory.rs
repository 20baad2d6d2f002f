//! The peak memory of a worker process, as the kernel counts it. `getrusage` cannot tell it: a child process starts with
//! the peak of its parent, the daemon.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// A shorter call is not measured, since measuring would take longer than the call.
const MEASURED: Duration = Duration::from_millis(1);
/// Bytes that are enough for `/proc/self/status`.
const STATUS_BYTES: usize = 4096;

/// Measures the peak memory of this process.
#[derive(Debug)]
pub(super) struct PeakMemory {
    status: Option<File>,
    /// The file that resets the kernel's peak; `None` if the kernel does not support that.
    reset: Option<File>,
    last: Option<u64>,
}

impl PeakMemory {
    pub(super) fn new() -> Self {
        let reset = File::options().write(true).open("/proc/self/clear_refs").ok();
        let mut memory = Self { status: File::open("/proc/self/status").ok(), reset, last: None };
        memory.measure();
        memory
    }

    /// The peak during a call of this duration, in bytes. For a very short call it is the last one that was measured.
    pub(super) fn peak_of(&mut self, call: Duration) -> Option<u64> {
        if call >= MEASURED {
            self.measure();
        }
        self.last
    }

    fn measure(&mut self) {
        let mut buffer = [0; STATUS_BYTES];
        let read = self.status.as_ref().and_then(|status| status.read_at(&mut buffer, 0).ok());
        let text = str::from_utf8(buffer.get(..read.unwrap_or(0)).unwrap_or_default());
        self.last = peak(text.unwrap_or_default());
        if let Some(reset) = &self.reset
            && reset.write_at(b"5", 0).is_err()
        {
            // From now on it is the peak since the start of the process.
            self.reset = None;
        }
    }
}

fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_of_a_call_excludes_earlier_calls() {
        let mut memory = PeakMemory::new();
        let before = memory.peak_of(MEASURED).unwrap();
        let large = vec![1_u8; 64 * 1024 * 1024];
        assert_eq!(memory.peak_of(Duration::ZERO), Some(before), "too short to be measured");
        let with = memory.peak_of(MEASURED).unwrap();
        assert!(with >= before + u64::try_from(large.len()).unwrap() / 2, "{before} {with}");
        drop(large);
        memory.measure();
        assert!(memory.peak_of(MEASURED).unwrap() < with);
    }
}
