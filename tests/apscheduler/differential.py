"""Random triggers, asked of Punctual and of APScheduler 3.11.3 side by side.

For each occurrence that we name APScheduler is asked for its next one after the same instant, so that one difference
does not become many. A difference has to be in the table and our answer has to be confirmed by the oracle. A sample of
what both sides agree on is put to the oracle as well, which so is held against both.
"""

import argparse
import json
import sys
import time
from collections import Counter
from random import Random

import differences
import oracle
import specs
import zones
from differences import Observation
from engine import Engine, Refused
from reference import Reference

KINDS = ["cron", "interval", "date", "calendarinterval"]
# Of the steps that agree: how many the oracle looks at.
SAMPLE = 0.05


class Failure(Exception):
    """A difference that nothing explains."""

    def __init__(self, why, seen):
        super().__init__(why)
        self.seen = seen


class Run:
    """Counts over all cases."""

    def __init__(self, engine):
        self.engine = engine
        self.steps = self.refused = self.confirmed = 0
        self.applied = Counter()

    def case(self, case, rng):
        """One trigger: whether it is accepted, and then time after time."""
        spec = case.spec
        ours, theirs = self.our_times(case), self.their_trigger(spec)
        if isinstance(ours, Refused) and isinstance(theirs, Refused):
            self.refused += 1
            return
        if isinstance(ours, Refused) or isinstance(theirs, Refused):
            self.explain(Observation(spec, case.after, False, ours, theirs))
            return
        if not ours and not self.engine.times(spec, zones.BEGINNING, True):
            self.never_fires(case)
        since, is_run = case.after, False
        for at in [*ours, None][:case.count]:
            answer = theirs.next(since) if is_run else theirs.first(since)
            self.steps += 1
            if at != differences.instant(answer):
                self.explain(Observation(spec, since, is_run, at, answer))
                self.confirm(spec, since, is_run, at, answer)
            elif rng.random() < SAMPLE and (at or {"year", "end_date"} & set(spec)):
                # That there is never any more would take the oracle a walk to the year 9999.
                self.confirm(spec, since, is_run, at, answer)
            since, is_run = at, True

    def our_times(self, case):
        try:
            return self.engine.times(case.spec, case.after, True, case.count)
        except Refused as refused:
            return refused

    def never_fires(self, case):
        """A trigger without any occurrence is shown as such, and cannot be added."""
        try:
            self.engine.validate(case.spec)
            ours = None
        except Refused as refused:
            ours = refused
        self.explain(Observation(case.spec, case.after, False, ours, None))

    @staticmethod
    def their_trigger(spec):
        try:
            return Reference(spec)
        except Refused as refused:
            return refused

    def explain(self, seen):
        entry = differences.explanation(seen)
        if entry is None:
            raise Failure("no entry of the table explains this difference", seen)
        self.applied[entry.name] += 1

    def confirm(self, spec, since, is_run, ours, theirs):
        right = oracle.first_from(spec, since, not is_run)
        self.confirmed += 1
        if right != ours:
            raise Failure(f"the oracle says {right}", Observation(spec, since, is_run, ours, theirs))

    def report(self, cases, seconds):
        """What was compared, and how often each entry applied."""
        print(f"{cases} cases ({self.refused} refused by both), {self.steps} steps, "
              f"{self.confirmed} put to the oracle, {seconds:.1f} s")
        for entry in differences.TABLE:
            print(f"  {self.applied[entry.name]:6}  {entry.name}: {entry.reason}")


def repeat(seed, number, failure):
    """What it takes to see the failure again."""
    seen = failure.seen
    return "\n".join([
        f"FAILED: {failure}",
        f"  seed {seed}, case {number} (alone: --seed {seed} --case {number})",
        f"  trigger  {json.dumps(seen.spec)}",
        f"  {'run at ' if seen.is_run else 'from   '}  {seen.since}",
        f"  ours     {seen.ours}",
        f"  theirs   {seen.theirs}",
    ])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--case", type=int, help="only this one")
    parser.add_argument("--punctual", default="target/debug/punctual")
    parser.add_argument("--zones", choices=["fixed", "changing", "both"], default="both")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--failures", type=int, default=1, help="go on until there are this many")
    given = parser.parse_args()

    engine = Engine(given.punctual)
    run, failures, began = Run(engine), 0, time.monotonic()
    numbers = range(given.cases) if given.case is None else [given.case]
    for number in numbers:
        # Each case has its own chance, so that it can be repeated alone.
        rng = Random(f"{given.seed}/{number}")
        changing = given.zones == "changing" or given.zones == "both" and rng.random() < 0.5
        case = specs.random_case(rng, given.kinds.split(","), changing)
        try:
            run.case(case, rng)
        except Failure as failure:
            failures += 1
            print(repeat(given.seed, number, failure))
            if failures >= given.failures:
                break
    engine.close()
    run.report(len(numbers), time.monotonic() - began)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
