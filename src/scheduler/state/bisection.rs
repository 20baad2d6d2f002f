//! Finds the one value that the database refuses, so that everything else goes on.
//!
//! A step that fails because of a value (a text that cannot be encoded, a constraint) would fail each time it is tried. Its
//! inputs are tried again in halves, without firing, until the value is found: a request is refused to its sender, and the
//! end of a run is recorded with other texts. Between two groups, jobs that are due fire. A job whose firing is refused is
//! found in the same way, and is broken.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde_json::json;

use crate::executor::Completion;
use crate::job::JobId;
use crate::output::{Output, Stream};
use crate::run::{Execution, Outcome};
use crate::scheduler::request::{PendingRequest, RequestError};
use crate::store::StoreError;

/// Replaces a text that the database refuses. The reason is only in the log, because it may quote the text.
const REFUSED: &str = "the database refused what this run said; the daemon's log tells why";

/// What a step is to process: requests, and attempts whose end is to be recorded.
#[derive(Debug, Default)]
pub(crate) struct StepInputs {
    pub(crate) requests: Vec<PendingRequest>,
    pub(crate) executions: Vec<Execution>,
}

impl StepInputs {
    fn len(&self) -> usize {
        self.requests.len() + self.executions.len()
    }

    fn halves(mut self) -> [Self; 2] {
        let half = self.len() / 2;
        let requests = self.requests.split_off(half.min(self.requests.len()));
        let left = half - self.requests.len();
        let executions = self.executions.split_off(left);
        [self, Self { requests, executions }]
    }
}

/// The inputs that are tried in parts, and what was found.
#[derive(Debug, Default)]
pub(crate) struct Bisection {
    /// Groups of inputs, in order. One of them holds a value that the database refuses.
    pub(crate) groups: VecDeque<StepInputs>,
    /// Attempts whose texts have been replaced.
    replaced: BTreeSet<Execution>,
    /// Attempts whose output is not saved while they run, because it is refused.
    unsaved: BTreeSet<Execution>,
    /// How many jobs may fire in one step, while the firing of one of them is refused.
    fire_most: Option<usize>,
    /// Jobs whose firing is refused, with the reason.
    jobs: BTreeMap<JobId, String>,
}

impl Bisection {
    /// Whether inputs wait to be tried.
    pub(crate) fn has_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    /// How many jobs may fire in one step.
    pub(crate) fn fire_most(&self) -> usize {
        self.fire_most.unwrap_or(usize::MAX)
    }

    /// Why a job cannot fire, if the database refuses what its firing writes.
    pub(crate) fn refused_job(&self, id: &JobId) -> Option<String> {
        self.jobs.get(id).cloned()
    }

    /// Whether the output of an attempt may be saved while it runs.
    pub(crate) fn may_save(&self, execution: &Execution) -> bool {
        !self.unsaved.contains(execution)
    }

    /// Forgets attempts whose end is recorded.
    pub(crate) fn recorded(&mut self, executions: &[Execution]) {
        for execution in executions {
            self.replaced.remove(execution);
            self.unsaved.remove(execution);
        }
    }

    /// These jobs have fired. If that were fewer than allowed, none is refused any more.
    pub(crate) fn fired(&mut self, ids: &[JobId]) {
        if ids.len() < self.fire_most() {
            self.fire_most = None;
        }
        self.jobs.retain(|id, _| !ids.contains(id));
    }

    /// Adds inputs that have arrived meanwhile, after all that wait.
    pub(crate) fn add<'a>(
        &mut self,
        requests: Vec<PendingRequest>,
        unrecorded: impl Iterator<Item = &'a Execution>,
    ) {
        let known: BTreeSet<&Execution> =
            self.groups.iter().flat_map(|group| &group.executions).collect();
        let executions = unrecorded.filter(|execution| !known.contains(execution)).cloned();
        let inputs = StepInputs { requests, executions: executions.collect() };
        if inputs.len() > 0 {
            self.groups.push_back(inputs);
        }
    }

    /// Does not save the outputs of these attempts while they run: one of the outputs is refused. They are saved with the
    /// ends of the attempts, where the refused one is found.
    pub(crate) fn stop_saving(&mut self, saved: Vec<Execution>, why: &str) {
        tracing::warn!(error = %why, "an output is refused; it is not saved before its run ends");
        self.unsaved.extend(saved);
    }

    /// Halves a group in which a value is refused. A group of a single input is the refused one: a request is answered, and
    /// a completion gets other texts.
    pub(crate) fn divide(
        &mut self,
        group: StepInputs,
        why: &str,
        completions: &mut BTreeMap<Execution, Completion>,
    ) {
        if group.len() > 1 {
            let [first, second] = group.halves();
            self.groups.push_front(second);
            self.groups.push_front(first);
            return;
        }
        for pending in group.requests {
            tracing::warn!(error = %why, "a request is refused: the database refuses a value of it");
            drop(pending.reply.send(Err(RequestError::Rejected(why.to_owned()))));
        }
        for execution in group.executions {
            let Some(mut completion) = completions.remove(&execution) else { continue };
            let (run, attempt) = (&execution.0, execution.1);
            if self.replaced.remove(&execution) {
                // The next start of the daemon finds the run as one that was running.
                tracing::error!(%run, attempt, error = %why, "the end of a run cannot be recorded");
                continue;
            }
            tracing::warn!(%run, attempt, error = %why, "the end of a run is recorded without its texts");
            replace_texts(&mut completion);
            self.replaced.insert(execution.clone());
            let group = StepInputs { executions: vec![execution.clone()], ..StepInputs::default() };
            self.groups.push_front(group);
            completions.insert(execution, completion);
        }
    }

    /// The firing of one of these jobs is refused: fewer jobs fire in a step until it is found. An error if the refused
    /// value is not one of their firing.
    pub(crate) fn suspect_firing(
        &mut self,
        fired: &[JobId],
        why: String,
    ) -> Result<(), StoreError> {
        match fired {
            [id] if !self.jobs.contains_key(id) => {
                self.fire_most = None;
                self.jobs.insert(id.clone(), StoreError::Rejected(why).to_string());
            }
            [] | [_] => return Err(StoreError::Unavailable(why)),
            several => self.fire_most = Some(several.len() / 2),
        }
        Ok(())
    }

    /// Answers the requests of all groups with an error, because nothing can be written now. Completions are kept.
    pub(crate) fn refuse_requests(&mut self, error: &StoreError) {
        let groups = std::mem::take(&mut self.groups);
        for pending in groups.into_iter().flat_map(|group| group.requests) {
            drop(pending.reply.send(Err(RequestError::Unavailable(error.to_string()))));
        }
    }
}

/// Replaces everything that a run said with a note.
fn replace_texts(completion: &mut Completion) {
    let note = REFUSED.to_owned();
    match &mut completion.outcome {
        Outcome::Succeeded { result, .. } => {
            if result.is_some() {
                *result = Some(json!({ "rejected": note }));
            }
        }
        Outcome::Failed { error: text, .. }
        | Outcome::Cancelled { reason: text }
        | Outcome::TimedOut { error: text }
        | Outcome::Lost { error: text } => text.clone_from(&note),
    }
    let output = &completion.output;
    if !output.is_empty() {
        let kept = u64::try_from(output.head.len() + output.tail.len()).unwrap_or(0);
        let (cut, bytes) = (output.cut + kept, output.bytes);
        let mut output = Output { cut, bytes, ..Output::default() };
        output.head.push(completion.finished_at, Stream::Stderr, &note);
        completion.output = Arc::new(output);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::RunId;
    use crate::scheduler::request::Request;

    #[test]
    fn halves_keep_the_order_and_are_as_large_as_each_other() {
        let inputs = |requests: u32, executions: u32| StepInputs {
            requests: (0..requests)
                .map(|_| PendingRequest::new(Request::ResumeAll, tokio::sync::oneshot::channel().0))
                .collect(),
            executions: (0..executions).map(|number| (RunId("r".into()), number)).collect(),
        };
        for (requests, executions) in [(2, 0), (0, 2), (1, 1), (5, 2), (2, 5), (1, 9)] {
            let whole = inputs(requests, executions);
            let (count, all) = (whole.len(), whole.executions.clone());
            let [first, second] = whole.halves();
            assert_eq!(first.len(), count / 2, "{requests} {executions}");
            assert_eq!(second.len(), count - count / 2);
            assert_eq!([first.executions, second.executions].concat(), all);
        }
    }
}
