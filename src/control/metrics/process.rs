//! What this process uses of the machine, under the names that Prometheus' own clients give it.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use rustix::process::{Resource, getrlimit};

use super::exposition::{Exposition, MetricType};
use crate::clock::Timestamp;

/// What the system says about this process. What it does not say is none.
#[derive(Debug, Default)]
pub(super) struct ProcessUsage {
    processor_time: Option<Duration>,
    resident_bytes: Option<u64>,
    virtual_bytes: Option<u64>,
    threads: Option<u64>,
    open_files: Option<usize>,
    open_files_max: Option<u64>,
}

impl ProcessUsage {
    pub(super) fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        // The folder that is being read is open itself.
        let open_files = std::fs::read_dir("/proc/self/fd").map(|files| files.count() - 1);
        Self {
            processor_time: processor_time(),
            resident_bytes: kibibytes(&status, "VmRSS:"),
            virtual_bytes: kibibytes(&status, "VmSize:"),
            threads: number(&status, "Threads:"),
            open_files: open_files.ok(),
            open_files_max: getrlimit(Resource::Nofile).current,
        }
    }

    pub(super) fn write(&self, page: &mut Exposition, started_at: Timestamp) {
        use MetricType::{Counter, Gauge};
        let cpu = self.processor_time.map(|time| time.as_secs_f64());
        page.metric(Counter, "process_cpu_seconds_total", "User and system CPU time in seconds.")
            .one(cpu);
        page.metric(Gauge, "process_resident_memory_bytes", "Resident memory in bytes.")
            .one(self.resident_bytes);
        page.metric(Gauge, "process_virtual_memory_bytes", "Virtual memory in bytes.")
            .one(self.virtual_bytes);
        page.metric(Gauge, "process_threads", "Threads of the process.").one(self.threads);
        page.metric(Gauge, "process_open_fds", "Open file descriptors.").one(self.open_files);
        page.metric(Gauge, "process_max_fds", "Maximum number of open file descriptors.")
            .one(self.open_files_max);
        let help = "When the process started, in seconds since the Unix epoch.";
        page.metric(Gauge, "process_start_time_seconds", help).one(Some(epoch_seconds(started_at)));
    }
}

/// An instant in seconds since the Unix epoch, with microseconds.
pub(super) fn epoch_seconds(at: Timestamp) -> String {
    format!("{}.{:06}", at.timestamp(), at.timestamp_subsec_micros())
}

fn processor_time() -> Option<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let duration = |time: TimeVal| {
        let micros = u64::try_from(time.tv_usec()).ok()?;
        Some(
            Duration::from_secs(u64::try_from(time.tv_sec()).ok()?) + Duration::from_micros(micros),
        )
    };
    Some(duration(usage.user_time())? + duration(usage.system_time())?)
}

/// A number from `/proc/self/status`.
fn number(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A size from `/proc/self/status` in bytes.
fn kibibytes(status: &str, key: &str) -> Option<u64> {
    number(status, key)?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usage_of_this_process_is_known() {
        let usage = ProcessUsage::read();
        let ProcessUsage { resident_bytes, virtual_bytes, threads, open_files, .. } = usage;
        assert!(usage.processor_time.is_some_and(|time| time < Duration::from_hours(1)));
        assert!(resident_bytes.unwrap() > 100_000 && resident_bytes < virtual_bytes);
        assert!(threads.unwrap() >= 1 && open_files.unwrap() >= 3);
        assert!(usage.open_files_max.is_none_or(|max| max > 10));
    }

    #[test]
    fn an_instant_is_shown_in_seconds_with_microseconds() {
        let at = Timestamp::from_timestamp_micros(1_800_000_000_000_005).unwrap();
        assert_eq!(epoch_seconds(at), "1800000000.000005");
    }
}
