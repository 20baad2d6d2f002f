//! The repair of one metric: finds members that look wrong, and corrects those that are.

use std::collections::BTreeMap;

use super::drift::{Observation, Suspicion, Verdict};
use super::report::{EXAMPLES, Example, MetricReport};
use crate::toutiao::ToutiaoError;
use crate::toutiao::counters::{CHUNK_MEMBERS, Correction, Counters, Member, Score};
use crate::toutiao::metric::Metric;
use crate::toutiao::sql::ToutiaoDatabase;

/// The largest number of suspects of one metric at a time. It bounds the memory of a repair after the loss of all
/// counters; the next survey finds the rest.
const MAX_SUSPECTS: usize = 100_000;

/// The rows, and the counters that are compared with them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backends<'a> {
    pub database: &'a ToutiaoDatabase,
    pub counters: &'a Counters,
}

/// The progress of the repair of one metric. A failure ends it.
#[derive(Debug)]
pub(super) struct MetricRepair {
    metric: Metric,
    key: String,
    suspects: BTreeMap<Member, Suspicion>,
    corrected: u64,
    examples: Vec<Example>,
    /// Whether the latest survey ended early because it found too many suspects.
    incomplete: bool,
    failure: Option<ToutiaoError>,
}

impl MetricRepair {
    pub(super) fn new(metric: Metric, key: &str) -> Self {
        Self {
            metric,
            key: key.to_owned(),
            suspects: BTreeMap::new(),
            corrected: 0,
            examples: Vec::new(),
            incomplete: false,
            failure: None,
        }
    }

    pub(super) fn has_suspects(&self) -> bool {
        self.failure.is_none() && !self.suspects.is_empty()
    }

    /// Whether another survey is needed.
    pub(super) fn is_incomplete(&self) -> bool {
        self.failure.is_none() && self.incomplete
    }

    /// Observes every member once, and keeps those that look wrong as suspects.
    pub(super) async fn survey(&mut self, backends: Backends<'_>) {
        if self.failure.is_none() {
            self.suspects.clear();
            let surveyed = self.survey_all(backends).await;
            self.failure = surveyed.err();
        }
    }

    /// Observes the suspects again, and corrects those that are wrong.
    pub(super) async fn observe_suspects(&mut self, backends: Backends<'_>) {
        let members: Vec<Member> = self.suspects.keys().cloned().collect();
        for chunk in members.chunks(CHUNK_MEMBERS) {
            if self.failure.is_none() {
                let judged = self.judge(backends, chunk).await;
                self.failure = judged.err();
            }
        }
    }

    /// Ends the repair. The error names the metric.
    pub(super) async fn finish(self, backends: Backends<'_>) -> Result<MetricReport, String> {
        let metric = self.metric.word();
        let fail = |why: String| Err(format!("{metric} ({}): {why}", self.key));
        if let Some(error) = self.failure {
            return fail(error.to_string());
        }
        let members = match backends.counters.size(&self.key).await {
            Ok(members) => members,
            Err(error) => return fail(error.to_string()),
        };
        if self.incomplete {
            return fail("too much to correct in one run".to_owned());
        }
        Ok(MetricReport {
            metric,
            key: self.key,
            members,
            corrected: self.corrected,
            unsettled: self.suspects.len(),
            examples: self.examples,
        })
    }

    /// Goes through the counters and through the rows, because either may lack what the other has. Each page is compared
    /// at once, so that neither side is ever in memory as a whole.
    async fn survey_all(&mut self, backends: Backends<'_>) -> Result<(), ToutiaoError> {
        self.incomplete = true;
        let mut cursor = None;
        loop {
            let page = backends.counters.page(&self.key, cursor.as_ref()).await?;
            let (members, scores): (Vec<_>, Vec<_>) =
                page.entries.into_iter().map(|(member, score)| (member, Some(score))).unzip();
            let counts = self.counts(backends, &members).await?;
            self.add_suspects(members, scores, &counts);
            if self.suspects.len() >= MAX_SUSPECTS {
                return Ok(());
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let mut after = i64::MIN;
        loop {
            let counts = backends.database.counts_after(self.metric, after).await?;
            let Some((last, _)) = counts.last() else { break };
            after = *last;
            let members: Vec<Member> = counts.iter().map(|(id, _)| Member::from(*id)).collect();
            let scores = backends.counters.scores(&self.key, &members).await?;
            let counts: Vec<i64> = counts.into_iter().map(|(_, count)| count).collect();
            self.add_suspects(members, scores, &counts);
            if self.suspects.len() >= MAX_SUSPECTS {
                return Ok(());
            }
        }
        self.incomplete = false;
        Ok(())
    }

    fn add_suspects(&mut self, members: Vec<Member>, scores: Vec<Option<Score>>, counts: &[i64]) {
        for ((member, score), count) in members.into_iter().zip(scores).zip(counts) {
            let observation = Observation { score, count: *count, steady: true };
            if !observation.is_right() {
                self.suspects.insert(member, Suspicion::new(observation));
            }
        }
    }

    /// The number of rows of each member. A member that is not an id has no rows.
    async fn counts(
        &self,
        backends: Backends<'_>,
        members: &[Member],
    ) -> Result<Vec<i64>, ToutiaoError> {
        let ids: Vec<i64> = members.iter().filter_map(Member::id).collect();
        let counts = backends.database.counts_of(self.metric, &ids).await?;
        let count =
            |member: &Member| member.id().and_then(|id| counts.get(&id).copied()).unwrap_or(0);
        Ok(members.iter().map(count).collect())
    }

    /// Observes some suspects. The scores are read before and after the rows are counted: if a score moved meanwhile,
    /// the observation is not steady.
    async fn judge(
        &mut self,
        backends: Backends<'_>,
        members: &[Member],
    ) -> Result<(), ToutiaoError> {
        let before = backends.counters.scores(&self.key, members).await?;
        let counts = self.counts(backends, members).await?;
        let after = backends.counters.scores(&self.key, members).await?;
        let mut corrections = Vec::new();
        for (((member, before), count), after) in members.iter().zip(before).zip(counts).zip(after)
        {
            let observation = Observation { steady: before == after, score: after, count };
            let Some(suspicion) = self.suspects.get_mut(member) else { continue };
            match suspicion.judge(observation) {
                Verdict::Unsettled => {}
                Verdict::Right => drop(self.suspects.remove(member)),
                Verdict::Wrong => {
                    let Observation { score, count, .. } = suspicion.last().clone();
                    corrections.push(Correction { member: member.clone(), from: score, to: count });
                }
            }
        }
        self.correct(backends, &corrections).await
    }

    /// Makes the corrections. A member that an increment has changed in the meantime is not corrected and stays a
    /// suspect.
    async fn correct(
        &mut self,
        backends: Backends<'_>,
        corrections: &[Correction],
    ) -> Result<(), ToutiaoError> {
        let done = backends.counters.correct(&self.key, corrections).await?;
        for (correction, _) in corrections.iter().zip(done).filter(|(_, done)| *done) {
            self.suspects.remove(&correction.member);
            self.corrected += 1;
            if self.examples.len() < EXAMPLES {
                let Correction { member, from, to } = correction;
                self.examples.push(Example::new(member, from.as_ref(), *to));
            }
        }
        Ok(())
    }
}
