//! The version of a job: which write of which job of an id it is. Clients get it as an `ETag`, and name it to change only
//! what they have seen.

use std::fmt;

use super::Job;

/// A version of a job. A job that is removed and added again begins with revision 1, so the revision alone is not unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobVersion {
    revision: i64,
    /// When the job was added, in microseconds. None: the client has named a revision only.
    created_at: Option<i64>,
}

impl JobVersion {
    /// Reads `REVISION` or `REVISION.CREATED`. What follows after another point says what else was shown with the job.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let revision = parts.next()?.parse().ok()?;
        let created_at = parts.next().map(str::parse).transpose().ok()?;
        Some(Self { revision, created_at })
    }

    /// Whether it is the present version of this job.
    pub fn is_of(&self, job: &Job) -> bool {
        let present = job.version();
        self.revision == present.revision
            && (self.created_at.is_none() || self.created_at == present.created_at)
    }
}

impl fmt::Display for JobVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.revision)?;
        self.created_at.map_or(Ok(()), |created_at| write!(formatter, ".{created_at}"))
    }
}

impl Job {
    /// The version of this job.
    pub fn version(&self) -> JobVersion {
        JobVersion { revision: self.revision, created_at: Some(self.created_at.timestamp_micros()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_it_is_written() {
        for text in ["3", "3.1764460800000000", "3.-5"] {
            assert_eq!(JobVersion::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(JobVersion::parse("3.7.p1").unwrap().to_string(), "3.7");
        for bad in ["", "x", "3.", "3.x", "3 ", "99999999999999999999"] {
            assert_eq!(JobVersion::parse(bad), None, "{bad}");
        }
    }
}
