//! What a start says of a file of which some jobs cannot be declared: in the log and in the status.

use crate::control::DeclaredFault;
use crate::daemon::files;
use crate::scheduler::declare::DeclareReport;
use crate::scheduler::request::{Conflict, InvalidDeclaration};

/// Faulty jobs that are named one by one in the log.
const LOGGED_MAX: usize = 50;

/// Refuses the jobs of a file if one of them is faulty.
pub(super) fn refuse_faults(jobs: &files::Declared) -> Result<(), String> {
    let Some(first) = jobs.faulty.first() else { return Ok(()) };
    Err(match jobs.faulty.len() - 1 {
        0 => first.error.to_string(),
        1 => format!("{} (and 1 more job is faulty)", first.error),
        others => format!("{} (and {others} more jobs are faulty)", first.error),
    })
}

/// What the status shows of faulty jobs and of those that another file declares.
pub(super) fn shown(
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

/// Has the log say what has become of the jobs of a file.
pub(super) fn log(done: &DeclareReport, faults: &[InvalidDeclaration]) {
    let DeclareReport { difference, kept, refused } = done;
    let faults = faults.iter().chain(refused);
    let left_out = "the job is broken and does not fire until the file is mended and reloaded";
    for InvalidDeclaration { id, reason } in faults.clone().take(LOGGED_MAX) {
        tracing::error!(job = %id, %reason, "{left_out}");
    }
    for conflict in difference.conflicts.iter().take(LOGGED_MAX) {
        let Conflict { id, other, own } = conflict;
        tracing::error!(job = %id, %other, %own, "another file declares the job; it stays as that one declares it");
    }
    let more = [faults.count(), difference.conflicts.len()].map(|n| n.saturating_sub(LOGGED_MAX));
    if more != [0, 0] {
        let [broken, conflicts] = more;
        tracing::error!(
            broken,
            conflicts,
            "there are more such jobs; `punctual check` names them all"
        );
    }
    if *kept > 0 {
        tracing::warn!(
            kept,
            "the file declares no jobs any more, or one without an id of its own; jobs that it declared before are kept. \
             A reload removes them (of an empty file with punctual reload --force)"
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
