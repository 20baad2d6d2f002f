//! Finding the one value that the database refuses, so that everything else goes on.
//!
//! A step that fails for a value (a text that cannot be encoded, a constraint) would fail each time it is tried.
//! Its inputs are tried again in halves, without firing, until the one is found: a request is
//! refused to its sender, and the end of a run is recorded with other texts. Between two parts
//! what is due fires. A job whose firing is refused is found in the same way, and is broken.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde_json::json;

use crate::clock::Timestamp;
use crate::executor::{Completion, Executor};
use crate::job::JobId;
use crate::output::{Output, Stream};
use crate::run::{Execution, Outcome};
use crate::scheduler::request::{PendingRequest, RequestError};
use crate::scheduler::{Scheduler, StepKind};
use crate::store::{Store, StoreError};

/// What stands in the place of a text that the database refuses. Its reason is not told there: it may quote the text.
const REFUSED: &str = "the database refused what this run said; the daemon's log tells why";

/// What a step is to work off: requests, and attempts whose end is to be recorded.
#[derive(Debug, Default)]
pub(crate) struct StepInputs {
    pub(crate) commands: Vec<PendingRequest>,
    pub(crate) executions: Vec<Execution>,
}

impl StepInputs {
    fn len(&self) -> usize {
        self.commands.len() + self.executions.len()
    }

    fn halves(mut self) -> [Self; 2] {
        let half = self.len() / 2;
        let commands = self.commands.split_off(half.min(self.commands.len()));
        let left = half - self.commands.len();
        let executions = self.executions.split_off(left);
        [self, Self { commands, executions }]
    }
}

/// What is tried in parts.
#[derive(Debug, Default)]
pub(crate) struct Bisection {
    /// Parts of what was to be worked off, in order. One of them holds a value that the database refuses.
    groups: VecDeque<StepInputs>,
    /// Attempts whose texts have been replaced.
    replaced: BTreeSet<Execution>,
    /// Attempts whose output is not saved while they run, because it is refused.
    unsaved: BTreeSet<Execution>,
    /// Jobs of one step that may fire, while one of them is refused.
    fire_most: Option<usize>,
    /// Jobs whose firing is refused, and why.
    jobs: BTreeMap<JobId, String>,
}

impl Bisection {
    /// Whether something waits to be tried.
    pub(crate) fn has_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Jobs that may fire in one step.
    pub(crate) fn fire_most(&self) -> usize {
        self.fire_most.unwrap_or(usize::MAX)
    }

    /// Why a job cannot fire, if the database refuses what that writes.
    pub(crate) fn reason_against(&self, id: &JobId) -> Option<String> {
        self.jobs.get(id).cloned()
    }

    /// Whether the output of an attempt may be saved while it runs.
    pub(crate) fn may_save(&self, execution: &Execution) -> bool {
        !self.unsaved.contains(execution)
    }

    /// These attempts are recorded.
    pub(crate) fn recorded(&mut self, executions: &[Execution]) {
        for execution in executions {
            self.replaced.remove(execution);
            self.unsaved.remove(execution);
        }
    }

    /// These jobs have fired; if that were fewer than might have, none is refused any more.
    pub(crate) fn fired(&mut self, ids: &[JobId]) {
        if ids.len() < self.fire_most() {
            self.fire_most = None;
        }
        self.jobs.retain(|id, _| !ids.contains(id));
    }

    /// Adds what has arrived meanwhile, after all that waits.
    pub(crate) fn add<'a>(
        &mut self,
        commands: Vec<PendingRequest>,
        unrecorded: impl Iterator<Item = &'a Execution>,
    ) {
        let known: BTreeSet<&Execution> =
            self.groups.iter().flat_map(|group| &group.executions).collect();
        let executions = unrecorded.filter(|execution| !known.contains(execution)).cloned();
        let inputs = StepInputs { commands, executions: executions.collect() };
        if inputs.len() > 0 {
            self.groups.push_back(inputs);
        }
    }
}

impl<S: Store, X: Executor> Scheduler<S, X> {
    /// A step of everything, which also fires. If a value is refused, its inputs are tried in parts from now on.
    pub(crate) async fn try_all(
        &mut self,
        now: Timestamp,
        inputs: StepInputs,
    ) -> Result<Option<Timestamp>, StoreError> {
        let (executions, count) = (inputs.executions.clone(), inputs.len());
        match self.step(now, inputs, StepKind::Full).await {
            Ok(next) => Ok(next),
            Err(StoreError::Rejected(why)) => {
                self.is_stale = true;
                let (fired, saved) = std::mem::take(&mut self.last_failed);
                if !saved.is_empty() {
                    // They are saved at their end, which is found if it is refused too.
                    tracing::warn!(error = %why, "an output is refused; it is not saved before its run ends");
                    self.bisection.unsaved.extend(saved);
                    return Ok(Some(now));
                }
                if count == 0 {
                    return self.suspect_firing(now, &fired, why);
                }
                let commands = std::mem::take(&mut self.deferred);
                self.bisection.groups.push_back(StepInputs { commands, executions });
                Ok(Some(now))
            }
            Err(error) => self.classify_failure(error).map(|()| Some(now)),
        }
    }

    /// Tries the next part of the inputs alone, and then fires the jobs that are due.
    pub(crate) async fn try_group(
        &mut self,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        let Some(group) = self.bisection.groups.pop_front() else { return Ok(Some(now)) };
        let executions = group.executions.clone();
        match self.step(now, group, StepKind::InputsOnly).await {
            Ok(_) => {}
            Err(StoreError::Rejected(why)) => {
                self.is_stale = true;
                let commands = std::mem::take(&mut self.deferred);
                self.divide(StepInputs { commands, executions }, &why);
            }
            Err(error) => {
                let again = StepInputs { commands: std::mem::take(&mut self.deferred), executions };
                if let Err(error) = self.classify_failure(error) {
                    self.refuse_groups(&error);
                    return Err(error);
                }
                self.bisection.groups.push_front(again);
                return Ok(Some(now));
            }
        }
        self.try_all(now, StepInputs::default()).await
    }

    /// Cuts inputs, one of which holds a value that is refused, in halves. A single input is the one that is refused.
    fn divide(&mut self, inputs: StepInputs, why: &str) {
        if inputs.len() > 1 {
            let [first, second] = inputs.halves();
            self.bisection.groups.push_front(second);
            self.bisection.groups.push_front(first);
            return;
        }
        for command in inputs.commands {
            tracing::warn!(error = %why, "a request is refused: the database refuses a value of it");
            drop(command.reply.send(Err(RequestError::Rejected(why.to_owned()))));
        }
        for execution in inputs.executions {
            let Some(mut completion) = self.unrecorded.remove(&execution) else { continue };
            let (run, attempt) = (&execution.0, execution.1);
            if self.bisection.replaced.remove(&execution) {
                // The next start finds it as one that was running.
                tracing::error!(%run, attempt, error = %why, "the end of a run cannot be recorded");
                continue;
            }
            tracing::warn!(%run, attempt, error = %why, "the end of a run is recorded without its texts");
            replace_texts(&mut completion);
            self.bisection.replaced.insert(execution.clone());
            self.bisection.groups.push_front(StepInputs {
                executions: vec![execution.clone()],
                ..StepInputs::default()
            });
            self.unrecorded.insert(execution, completion);
        }
    }

    /// The firing of a job is refused, and nothing else: fewer jobs fire in a step until it is found.
    fn suspect_firing(
        &mut self,
        now: Timestamp,
        fired: &[JobId],
        why: String,
    ) -> Result<Option<Timestamp>, StoreError> {
        match fired {
            [id] if !self.bisection.jobs.contains_key(id) => {
                self.bisection.fire_most = None;
                self.bisection.jobs.insert(id.clone(), StoreError::Rejected(why).to_string());
                Ok(Some(now))
            }
            [] | [_] => self.classify_failure(StoreError::Unavailable(why)).map(|()| Some(now)),
            several => {
                self.bisection.fire_most = Some(several.len() / 2);
                Ok(Some(now))
            }
        }
    }

    /// Nothing can be written now: nobody waits any longer. Ends of runs are kept.
    fn refuse_groups(&mut self, error: &StoreError) {
        for command in
            std::mem::take(&mut self.bisection.groups).into_iter().flat_map(|group| group.commands)
        {
            drop(command.reply.send(Err(RequestError::Unavailable(error.to_string()))));
        }
    }
}

/// Puts a note in the place of everything that a run said.
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
        let inputs = |commands: u32, executions: u32| StepInputs {
            commands: (0..commands)
                .map(|_| PendingRequest::new(Request::PauseAll, tokio::sync::oneshot::channel().0))
                .collect(),
            executions: (0..executions).map(|number| (RunId("r".into()), number)).collect(),
        };
        for (commands, executions) in [(2, 0), (0, 2), (1, 1), (5, 2), (2, 5), (1, 9)] {
            let whole = inputs(commands, executions);
            let (count, all) = (whole.len(), whole.executions.clone());
            let [first, second] = whole.halves();
            assert_eq!(first.len(), count / 2, "{commands} {executions}");
            assert_eq!(second.len(), count - count / 2);
            assert_eq!([first.executions, second.executions].concat(), all);
        }
    }
}
