//! Answers as people read them: local times with their zone, distances from now, no nulls. Everything foreign in them is
//! escaped, so that it cannot command a terminal. What an answer holds beyond the fields that are named here is shown as
//! it comes, in the order of the answer.

mod change;
mod executors;
mod job;
mod parts;
mod run;
mod status;

pub(super) use change::{dry_run, is_defined, modified, rescheduled};
pub(super) use executors::executors;
pub(super) use job::{added, agenda, difference, explanation, job, jobs};
pub(super) use parts::pause_end;
pub(super) use run::{finished, run, runs};
pub(super) use status::status;
