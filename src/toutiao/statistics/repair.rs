//! The repair of one metric: finds members that look wrong, and corrects those that are.

use std::collections::BTreeMap;

use super::drift::{Observation, Suspicion, Verdict};
use super::report::{EXAMPLES, Example, MetricReport};
use crate::toutiao::ToutiaoError;
use crate::toutiao::counters::{CHUNK_MEMBERS, Correction, Counters, Member, Score};
use crate::toutiao::metric::Metric;
use crate::toutiao::sql::ToutiaoDatabase;

/// Members of one metric that are under suspicion at a time. It bounds the memory of a repair
/// of counters that are lost altogether: what is beyond it is found by the next survey.
const MAX_SUSPECTS: usize = 100_000;

/// The rows and the counters that they are compared with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backends<'a> {
    pub database: &'a ToutiaoDatabase,
    pub counters: &'a Counters,
}

/// The repair of one metric, as far as it has come.
#[derive(Debug)]
pub(super) struct MetricRepair {
    metric: Metric,
    key: String,
    suspects: BTreeMap<Member, Suspicion>,
    members: u64,
    corrected: u64,
    examples: Vec<Example>,
    /// Whether the latest survey ended early because there were too many suspects.
    cut: bool,
    failure: Option<ToutiaoError>,
}

impl MetricRepair {
    pub(super) fn new(metric: Metric, key: &str) -> Self {
        Self {
            metric,
            key: key.to_owned(),
            suspects: BTreeMap::new(),
            members: 0,
            corrected: 0,
            examples: Vec::new(),
            cut: false,
            failure: None,
        }
    }

    /// Whether there is something to look at again.
    pub(super) fn has_suspects(&self) -> bool {
        self.failure.is_none() && !self.suspects.is_empty()
    }

    /// Whether another survey is needed.
    pub(super) fn is_cut(&self) -> bool {
        self.failure.is_none() && self.cut
    }

    /// Looks at every member once, and keeps those that look wrong.
    pub(super) async fn survey(&mut self, backends: Backends<'_>) {
        if self.failure.is_none() {
            self.suspects.clear();
            let surveyed = self.survey_both(backends).await;
            self.failure = surveyed.err();
        }
    }

    /// Looks at the suspects again, and corrects those that are wrong.
    pub(super) async fn look_again(&mut self, backends: Backends<'_>) {
        let members: Vec<Member> = self.suspects.keys().cloned().collect();
        for chunk in members.chunks(CHUNK_MEMBERS) {
            if self.failure.is_none() {
                let settled = self.settle(backends, chunk).await;
                self.failure = settled.err();
            }
        }
    }

    /// Counts the members at the end.
    pub(super) async fn finish(&mut self, backends: Backends<'_>) {
        if self.failure.is_none() {
            match backends.counters.size(&self.key).await {
                Ok(size) => self.members = size,
                Err(error) => self.failure = Some(error.into()),
            }
        }
    }

    pub(super) fn into_report(self) -> Result<MetricReport, String> {
        if let Some(error) = self.failure {
            return Err(format!("{} ({}): {error}", self.metric.name(), self.key));
        }
        if self.cut {
            return Err(format!(
                "{} ({}): too much to correct in one run",
                self.metric.name(),
                self.key
            ));
        }
        Ok(MetricReport {
            metric: self.metric.name(),
            key: self.key,
            members: self.members,
            corrected: self.corrected,
            unsettled: self.suspects.len(),
            examples: self.examples,
        })
    }

    // From both backends, because either may lack what the other has. Each page is compared at once,
    // so that no side is ever in memory as a whole.
    async fn survey_both(&mut self, backends: Backends<'_>) -> Result<(), ToutiaoError> {
        self.cut = true;
        let mut cursor = None;
        loop {
            let page = backends.counters.page(&self.key, cursor.as_ref()).await?;
            let (members, scores): (Vec<_>, Vec<_>) =
                page.entries.into_iter().map(|(member, score)| (member, Some(score))).unzip();
            let counts = self.counts(backends, &members).await?;
            self.suspect(members, scores, &counts);
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
            self.suspect(members, scores, &counts);
            if self.suspects.len() >= MAX_SUSPECTS {
                return Ok(());
            }
        }
        self.cut = false;
        Ok(())
    }

    fn suspect(&mut self, members: Vec<Member>, scores: Vec<Option<Score>>, counts: &[i64]) {
        for ((member, score), count) in members.into_iter().zip(scores).zip(counts) {
            let look = Observation { score, count: *count, steady: true };
            if !look.is_right() {
                self.suspects.insert(member, Suspicion::new(look));
            }
        }
    }

    // What SQL counts for each member; a member that is no id has no rows.
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

    async fn settle(
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
            let look = Observation { steady: before == after, score: after, count };
            let Some(trail) = self.suspects.get_mut(member) else { continue };
            match trail.judge(look) {
                Verdict::Unsettled => {}
                Verdict::Right => drop(self.suspects.remove(member)),
                Verdict::Wrong => {
                    let Observation { score, count, .. } = trail.last().clone();
                    corrections.push(Correction { member: member.clone(), from: score, to: count });
                }
            }
        }
        self.correct(backends, &corrections).await
    }

    // A correction that did not take place was overtaken by an increment: it stays a suspect.
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
                self.examples.push(Example::new(
                    &correction.member,
                    correction.from.as_ref(),
                    correction.to,
                ));
            }
        }
        Ok(())
    }
}
