//! The promises, each with its name, which the report of a broken one shows.

/// What always holds, whatever happens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Property {
    /// What was answered with success is in the store, and stays there until something else is asked.
    Acknowledged,
    /// Every command is answered while its node lives.
    Answered,
    /// An occurrence has at most one row of the ledger.
    OneRow,
    /// An attempt of a run is started at most once, over all nodes and crashes.
    OneStart,
    /// Every occurrence from a job's definition to its next one has a row, in order, and `next` never goes back.
    Accounted,
    /// No occurrence is made a run, or skipped, before it is due by the clock of the node that does it.
    NotEarly,
    /// No occurrence is started later than its grace time allows.
    NotTooLate,
    /// A death of the daemon counts for what it ran, and a run that may be its cause runs apart from others like it.
    Crashes,
    /// A node that was asked to stop starts nothing more.
    Drains,
    /// What is started is running in the ledger before, as this attempt and on this node.
    RowBeforeStart,
    /// A job has no more runs in flight than it may, over all nodes.
    MaxInstances,
    /// A pool has no more busy workers than it has, also while it still executes what it has lost.
    Workers,
    /// A run of a job with `on_crash = "lose"` is not begun again after a crash.
    AtMostOnce,
    /// A run is tried again only after a failure that may pass, as often as its job says, and not before its time.
    Retries,
    /// Each end that a job has a hook for is reported once, by a run that is written together with it.
    ToldOnce,
    /// Between two successes of a job with `on_failure_once` one failure is reported, and with `on_recovery` each success that
    /// follows a failure is reported as its end.
    Outages,
    /// A job, or a scheduler, that is paused makes no run of its schedule.
    Paused,
    /// A removed job starts nothing more, as soon as its node can know.
    Removed,
    /// A step writes no more rows than its limits say, however the clock jumps.
    Bounded,
    /// A queue in memory is no longer than its limit.
    Queues,
    /// A run goes from state to state as the ledger's head says, by the hand of the node that holds it.
    LegalSteps,
    /// A node takes only what no live node holds: what it had itself, or what a node held that was given up.
    TakesFromTheDead,
    /// A step that only moves a job in its schedule leaves its definition alone.
    Definition,
    /// A job makes no more runs than `max_runs`.
    MaxRuns,
    /// A node that has nothing in flight has no busy workers and nothing that waits.
    NothingLeaks,
    /// A node that is asked to go on at once does not do so for ever.
    Rests,
    /// When nothing fails any more, no run stays in flight for ever, what is due is fired, and no node holds a job back.
    Settles,
    /// After a clock was hours ahead and is right again, every recurring job fires again within its period.
    Continues,
    /// When nothing fails any more, no step fails.
    Recovers,
    /// What was learnt from the writes is what the store says.
    Mirrored,
}

impl Property {
    /// Ends the world if the property does not hold.
    #[track_caller]
    pub(crate) fn holds(self, it_does: bool, found: impl FnOnce() -> String) {
        assert!(it_does, "{self:?} does not hold: {}", found());
    }
}
