//! The resources that the processes of a command may use.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Number;

use crate::invalid::Invalid;

/// The least memory with which a program can be loaded at all.
const MEMORY_MIN: u64 = 1024 * 1024;
/// The least number of open files: the three standard streams, and the library that is being loaded.
const FILES_MIN: u64 = 4;
/// The least memory of a whole run: enough to load one program.
const TOTAL_MEMORY_MIN: u64 = 4 * 1024 * 1024;
/// The fewest and most CPU cores of a run. The kernel accounts in periods, and refuses a smaller part of one.
const CORES_MIN: f64 = 0.01;
const CORES_MAX: f64 = 10_000.0;
/// The period in which the kernel accounts for the CPU time of a run.
pub const CORES_PERIOD: Duration = Duration::from_millis(100);

/// An amount of memory as it was given: `512000000` or `"512M"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of bytes, or a text such as \"512M\" or \"2G\"")]
pub enum MemorySize {
    /// Bytes.
    Number(u64),
    /// A number with a unit: K, M, G or T, in steps of 1024.
    Text(String),
}

impl MemorySize {
    /// The number of bytes. None: the text cannot be read, or is out of range.
    pub fn count(&self) -> Option<u64> {
        let text = match self {
            Self::Number(bytes) => return Some(*bytes),
            Self::Text(text) => text.as_str(),
        };
        let digits = text.trim_end_matches(['K', 'M', 'G', 'T']);
        let shift = match text.strip_prefix(digits)? {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => return None,
        };
        // `parse` would take a sign.
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = digits.parse().ok().filter(|_| is_number)?;
        number.checked_mul(1 << shift)
    }

    /// The amount in its largest whole unit, such as `64 MiB`.
    pub fn words(&self) -> String {
        let Some(bytes) = self.count() else { return "?".to_owned() };
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let whole = units.iter().find(|(shift, _)| bytes > 0 && bytes % (1 << shift) == 0);
        whole.map_or_else(
            || format!("{bytes} bytes"),
            |(shift, unit)| format!("{} {unit}", bytes >> shift),
        )
    }
}

/// The limits of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceLimits {
    /// Address space of each of its processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemorySize>,
    /// CPU time of each of its processes, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u64>,
    /// Open files of each of its processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Memory of all processes of the run together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_memory: Option<MemorySize>,
    /// Processes and threads of the run at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// CPU cores that the whole run may keep busy, such as 0.5 or 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<Number>,
}

impl ResourceLimits {
    /// Whether one of the limits applies to the whole run, and not to each of its processes.
    pub fn are_of_the_run(&self) -> bool {
        self.total_memory.is_some() || self.processes.is_some() || self.cores.is_some()
    }

    /// The CPU time that all processes of the run together may take in each [`CORES_PERIOD`]. None: no limit.
    pub fn cores_quota(&self) -> Option<Duration> {
        let cores = self.cores.as_ref()?.as_f64()?;
        Duration::try_from_secs_f64(CORES_PERIOD.as_secs_f64() * cores).ok()
    }

    /// Refuses limits with which nothing could run.
    pub(super) fn check(&self) -> Result<(), Invalid> {
        let refuse = |field: &str, why: String| Err(Invalid::new(field, why));
        let amounts = [
            ("memory", &self.memory, MEMORY_MIN),
            ("total_memory", &self.total_memory, TOTAL_MEMORY_MIN),
        ];
        for (field, amount, least) in amounts {
            let Some(amount) = amount else { continue };
            let Some(bytes) = amount.count() else {
                let why = "must be a number of bytes, or one with a unit such as \"512M\"";
                return refuse(field, why.to_owned());
            };
            if bytes < least {
                return refuse(field, format!("must be at least {least} bytes"));
            }
        }
        if self.processes == Some(0) {
            return refuse("processes", "must be at least 1".to_owned());
        }
        let is_possible = |cores: &Number| {
            cores.as_f64().is_some_and(|cores| (CORES_MIN..=CORES_MAX).contains(&cores))
        };
        if self.cores.as_ref().is_some_and(|cores| !is_possible(cores)) {
            return refuse("cores", format!("must be from {CORES_MIN} to {CORES_MAX}"));
        }
        if self.cpu == Some(0) {
            return refuse("cpu", "must be at least 1 second".to_owned());
        }
        if self.files.is_some_and(|files| files < FILES_MIN) {
            return refuse("files", format!("must be at least {FILES_MIN}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invalid;
    use serde_json::json;

    #[test]
    fn memory_is_read_with_and_without_a_unit() {
        let text = |text: &str| MemorySize::Text(text.to_owned()).count();
        assert_eq!(MemorySize::Number(5).count(), Some(5));
        assert_eq!([text("7"), text("1K"), text("512M")], [Some(7), Some(1024), Some(512 << 20)]);
        assert_eq!([text("2G"), text("1T")], [Some(2 << 30), Some(1 << 40)]);
        for bad in ["", "K", "1k", "1 K", "-1", "1KM", "1.5G", "18446744073709551616"] {
            assert_eq!(text(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_amount_is_told_in_its_largest_whole_unit() {
        let words = |bytes| MemorySize::Number(bytes).words();
        assert_eq!([words(64 << 20), words(3 << 40)], ["64 MiB", "3 TiB"]);
        assert_eq!([words(1536), words(1000)], ["1536 bytes", "1000 bytes"]);
        assert_eq!(MemorySize::Text("1025K".to_owned()).words(), "1025 KiB");
    }

    #[test]
    fn a_bad_limit_is_refused_by_its_field() {
        let cases = [
            (json!({"memory": "12Q"}), "memory"),
            (json!({"memory": "M"}), "memory"),
            (json!({"memory": "+1M"}), "memory"),
            (json!({"memory": "1MM"}), "memory"),
            (json!({"memory": "99999999999T"}), "memory"),
            (json!({"memory": 4096}), "memory"),
            (json!({"memory": -1}), "memory"),
            (json!({"cpu": 0}), "cpu"),
            (json!({"cpu": 0.5}), "cpu"),
            (json!({"files": 3}), "files"),
            (json!({"total_memory": "12Q"}), "total_memory"),
            (json!({"total_memory": "1M"}), "total_memory"),
            (json!({"processes": 0}), "processes"),
            (json!({"processes": -1}), "processes"),
            (json!({"cores": 0}), "cores"),
            (json!({"cores": -1.5}), "cores"),
            (json!({"cores": 1e9}), "cores"),
            (json!({"cores": "2"}), "cores"),
        ];
        for (case, field) in cases {
            let checked =
                invalid::read::<ResourceLimits>(case.clone()).and_then(|limits| limits.check());
            assert_eq!(checked.unwrap_err().field, field, "{case}");
        }
    }

    #[test]
    fn a_limit_of_cores_is_a_share_of_each_period_and_is_written_as_it_was_given() {
        for (given, quota) in [(json!(0.01), 1), (json!(1.5), 150), (json!(2), 200)] {
            let limits: ResourceLimits = invalid::read(json!({"cores": given})).unwrap();
            limits.check().unwrap();
            assert_eq!(limits.cores_quota(), Some(Duration::from_millis(quota)), "{given}");
            assert_eq!(serde_json::to_value(&limits).unwrap(), json!({"cores": given}));
        }
    }
}
