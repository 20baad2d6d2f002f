//! Decides whether a difference between a counter and its rows is an error, or only an increment that is still on its
//! way.
//!
//! The application commits a row first and increments the counter a moment later, so a difference alone proves nothing.
//! Correcting one whose increment is on its way would count it twice. Hence a difference is an error only if
//!
//! - neither the score nor the rows have changed between two observations that are a settle time apart: an increment would
//!   have arrived by then; or
//! - it was the same in many observations in a row although both changed: increments come and go, so the difference of a
//!   busy but correct counter soon changes or vanishes.
//!
//! The reverse holds too: an increment that is on its way can hide a counter that is too high. So a counter that changes
//! must look right more than once before it counts as right.
//!
//! Every other member is observed again. This is pure: observations come in, verdicts go out.

use crate::toutiao::counters::Score;

/// The number of observations in a row that must show the same difference if the member changes all the time. It is very
/// unlikely that equally many increments are on their way at each of these moments. The number is larger than
/// [`RIGHT_OBSERVATIONS`], because a counter that is left wrong is found by the next repair, while one that is made wrong
/// misleads readers at once.
const WRONG_OBSERVATIONS: u32 = 8;

/// The number of observations in a row that must show no difference if the member changes all the time.
const RIGHT_OBSERVATIONS: u32 = 3;

/// An observation of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Observation {
    /// The score; `None` if the member is absent.
    pub score: Option<Score>,
    /// The number of its rows.
    pub count: i64,
    /// Whether the score was the same before and after the rows were counted.
    pub steady: bool,
}

impl Observation {
    /// Whether the score is the number of rows, or the member is absent because it has none.
    pub(super) fn is_right(&self) -> bool {
        match &self.score {
            None => self.count == 0,
            Some(Score::Whole(score)) => *score == self.count && self.count != 0,
            Some(Score::Odd(_)) => false,
        }
    }

    /// The difference, if the score is a whole number.
    fn drift(&self) -> Option<i64> {
        match &self.score {
            None => Some(self.count),
            Some(Score::Whole(score)) => Some(self.count.saturating_sub(*score)),
            Some(Score::Odd(_)) => None,
        }
    }
}

/// What to do about a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: it is right.
    Right,
    /// Correct it.
    Wrong,
    /// Observe it again later.
    Unsettled,
}

/// What is known about a member that looked wrong.
#[derive(Debug, Clone)]
pub(super) struct Suspicion {
    last: Observation,
    /// The number of latest observations with the same difference.
    agreeing: u32,
}

impl Suspicion {
    /// Begins with the observation in which it looked wrong.
    pub(super) fn new(first: Observation) -> Self {
        Self { agreeing: u32::from(first.steady), last: first }
    }

    /// Adds an observation, a settle time after the one before.
    pub(super) fn judge(&mut self, observation: Observation) -> Verdict {
        let steady = observation.steady;
        let unmoved =
            steady && observation.score == self.last.score && observation.count == self.last.count;
        let same = observation.drift().is_some_and(|drift| Some(drift) == self.last.drift());
        self.agreeing = match (steady, same) {
            (true, true) => self.agreeing + 1,
            (true, false) => 1,
            (false, _) => 0,
        };
        let (verdict, required) = if observation.is_right() {
            (Verdict::Right, RIGHT_OBSERVATIONS)
        } else {
            (Verdict::Wrong, WRONG_OBSERVATIONS)
        };
        let decided = unmoved || self.agreeing >= required;
        self.last = observation;
        if decided { verdict } else { Verdict::Unsettled }
    }

    /// The latest observation.
    pub(super) fn last(&self) -> &Observation {
        &self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(score: i64, count: i64) -> Observation {
        Observation { score: Some(Score::Whole(score)), count, steady: true }
    }

    fn verdicts(observations: &[Observation]) -> Vec<Verdict> {
        let mut suspicion = Suspicion::new(observations[0].clone());
        observations[1..].iter().map(|observation| suspicion.judge(observation.clone())).collect()
    }

    #[test]
    fn a_difference_that_does_not_change_is_an_error() {
        let odd = Observation { score: Some(Score::Odd("2.5".to_owned())), count: 2, steady: true };
        let absent = Observation { score: None, count: 4, steady: true };
        for observation in [seen(5, 3), seen(0, 0), seen(-1, 0), odd, absent] {
            assert_eq!(
                verdicts(&[observation.clone(), observation.clone()]),
                [Verdict::Wrong],
                "{observation:?}"
            );
        }
    }

    #[test]
    fn an_increment_on_its_way_is_not_an_error() {
        let expect = [Verdict::Unsettled, Verdict::Right];
        assert_eq!(verdicts(&[seen(5, 6), seen(6, 6), seen(6, 6)]), expect);
        let gone = Observation { score: None, count: 0, steady: true };
        assert_eq!(verdicts(&[seen(0, 0), gone.clone(), gone]), expect);
    }

    #[test]
    fn a_busy_member_is_wrong_only_if_its_difference_stays() {
        let steadily_wrong: Vec<_> = (0..8).map(|step| seen(step, step + 2)).collect();
        let verdicts_of_wrong = verdicts(&steadily_wrong);
        assert_eq!(verdicts_of_wrong[..6], [Verdict::Unsettled; 6]);
        assert_eq!(verdicts_of_wrong[6..], [Verdict::Wrong]);
        let busy = [seen(1, 2), seen(3, 4), seen(5, 6), seen(7, 9), seen(9, 10), seen(12, 13)];
        assert_eq!(verdicts(&busy), [Verdict::Unsettled; 5]);
    }

    #[test]
    fn a_busy_member_that_is_too_high_is_not_right_because_an_increment_hides_it() {
        let hidden_once =
            [seen(5, 3), seen(7, 7), seen(9, 7), seen(11, 11), seen(13, 13), seen(15, 15)];
        let expect = [
            Verdict::Unsettled,
            Verdict::Unsettled,
            Verdict::Unsettled,
            Verdict::Unsettled,
            Verdict::Right,
        ];
        assert_eq!(verdicts(&hidden_once), expect);
    }

    #[test]
    fn an_observation_during_which_the_score_changed_proves_nothing() {
        let moving = Observation { steady: false, ..seen(5, 3) };
        assert_eq!(verdicts(&[seen(5, 3), moving.clone(), moving]), [Verdict::Unsettled; 2]);
    }
}
