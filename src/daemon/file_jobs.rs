//! The jobs that the configuration file declares: they are judged one by one, and the log and the status report those
//! that cannot be declared.

use std::collections::BTreeSet;

use crate::clock::Timestamp;
use crate::config::{Config, ConfigError, FaultyJob};
use crate::control::DeclaredFault;
use crate::invalid::Invalid;
use crate::job::admission::Rules;
use crate::job::{Job, JobId, JobState, Origin};
use crate::scheduler::declare::{Declaration, DeclareReport};
use crate::scheduler::request::{Conflict, InvalidDeclaration};

/// Maximum number of faulty jobs that the log names one by one.
const LOGGED_MAX: usize = 50;

/// The jobs of a file.
#[derive(Debug, Clone)]
pub(super) struct FileJobs {
    pub(super) valid: Vec<Job>,
    /// In the order of the file.
    pub(super) faulty: Vec<FaultyJob>,
}

impl FileJobs {
    /// Judges the jobs of a configuration one by one.
    pub(super) fn judge(
        config: &Config,
        rules: &Rules,
        now: Timestamp,
    ) -> Result<Self, ConfigError> {
        let of_defaults = |invalid: Invalid| config.error(invalid.within("scheduler.job_defaults"));
        rules.check_defaults().map_err(of_defaults)?;
        let (mut valid, mut faulty) = (Vec::new(), config.faulty.clone());
        for (number, definition) in &config.jobs {
            let id = definition.id.as_deref().map(JobId::parse).and_then(Result::ok);
            match rules.admit(definition.clone(), Origin::File, now) {
                Ok(job) => valid.push(job),
                Err(invalid) => {
                    let error = config.job_error(*number, invalid);
                    faulty.push(FaultyJob { number: *number, id, error });
                }
            }
        }
        faulty.sort_by_key(|job| job.number);
        Ok(Self { valid, faulty })
    }

    pub(super) fn count(&self) -> usize {
        self.valid.len() + self.faulty.len()
    }

    /// What the scheduler receives. A faulty job without an id of its own is called by its number.
    pub(super) fn declaration(self) -> Declaration {
        let has_nameless = self.faulty.iter().any(|job| job.id.is_none());
        let taken: BTreeSet<JobId> = self.valid.iter().map(|job| job.id.clone()).collect();
        let fault = |FaultyJob { number, id, error }: FaultyJob| {
            let id = id.unwrap_or_else(|| JobId::stored(format!("jobs[{number}]")));
            InvalidDeclaration { id, reason: error.to_string() }
        };
        let faults = self.faulty.into_iter().map(fault).filter(|fault| !taken.contains(&fault.id));
        Declaration { faults: faults.collect(), jobs: self.valid, has_nameless }
    }

    /// Refuses the jobs if one of them is faulty.
    pub(super) fn refuse_faults(&self) -> Result<(), String> {
        let Some(first) = self.faulty.first() else { return Ok(()) };
        Err(match self.faulty.len() - 1 {
            0 => first.error.to_string(),
            1 => format!("{} (and 1 more job is faulty)", first.error),
            others => format!("{} (and {others} more jobs are faulty)", first.error),
        })
    }

    /// The jobs that have no occurrence left, and why. They are no fault: a file that was valid yesterday does not become
    /// invalid because the last day of a job has passed.
    pub(super) fn finished(&self, now: Timestamp) -> Vec<(JobId, String)> {
        let why = |job: &Job| Some((job.id.clone(), job.trigger.ended_reason(now)?));
        let finished = self.valid.iter().filter(|job| job.state == JobState::Finished);
        finished.filter_map(why).collect()
    }
}

/// What the status shows of faulty jobs and of jobs that another file declares.
pub(super) fn status_faults(
    faults: impl Iterator<Item = InvalidDeclaration>,
    conflicts: &[Conflict],
) -> Vec<DeclaredFault> {
    let faults = faults.map(|InvalidDeclaration { id, reason }| DeclaredFault {
        job: id.to_string(),
        error: reason,
    });
    let conflicts = conflicts
        .iter()
        .map(|conflict| DeclaredFault { job: conflict.id.clone(), error: conflict.to_string() });
    faults.chain(conflicts).collect()
}

/// Logs how the jobs of a file were declared.
pub(super) fn log_declared(done: &DeclareReport, faults: &[InvalidDeclaration]) {
    let DeclareReport { difference, kept, refused } = done;
    let faults = faults.iter().chain(refused);
    for InvalidDeclaration { id, reason } in faults.clone().take(LOGGED_MAX) {
        tracing::error!(job = %id, %reason, "the job is broken and does not fire until the file is corrected and reloaded");
    }
    for Conflict { id, other, own } in difference.conflicts.iter().take(LOGGED_MAX) {
        tracing::error!(job = %id, %other, %own, "another file declares the job, and its declaration stays in force");
    }
    let more = [faults.count(), difference.conflicts.len()].map(|n| n.saturating_sub(LOGGED_MAX));
    if more != [0, 0] {
        let [broken, conflicts] = more;
        tracing::error!(
            broken,
            conflicts,
            "there are more such jobs; `punctual check` lists all of them"
        );
    }
    if *kept > 0 {
        tracing::warn!(
            kept,
            "the file declares no jobs any more, or one without an id of its own; the jobs that it declared before are \
             kept. A reload removes them (if the file declares no jobs: punctual reload --force)"
        );
    }
    let listed = |ids: &[String]| ids.join(",");
    tracing::info!(
        added = listed(&difference.added),
        changed = listed(&difference.changed),
        removed = listed(&difference.removed),
        unchanged = difference.unchanged,
        "declared jobs"
    );
}
