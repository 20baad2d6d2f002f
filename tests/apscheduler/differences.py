"""THE TABLE: where Punctual is known not to do what APScheduler 3.11.3 does, and why.

An entry says in its predicate precisely when it applies; whatever no entry explains fails the test. That our answer
is right is not taken from here: oracle.py has to confirm it as well.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Callable

from apscheduler.triggers.cron.expressions import (
    LastDayOfMonthExpression,
    MonthRangeExpression,
    WeekdayPositionExpression,
    WeekdayRangeExpression,
)

import expressions
import oracle
import reference
import zones
from engine import Refused

MICROSECOND = timedelta(microseconds=1)


def instant(at):
    """In UTC: Python compares times of the same zone by their readings, and repeated ones as never equal."""
    return at and at.astimezone(zones.UTC)


@dataclass
class Observation:
    """One answer of each side to the same question."""

    spec: dict
    # The instant from which both were asked, and whether it was a run (else: the first question).
    since: datetime | None
    is_run: bool
    ours: datetime | Refused | None
    theirs: datetime | Refused | None

    @property
    def zone(self):
        return zones.zone_of(self.spec["timezone"])

    @property
    def begin(self):
        """From when on both sides have to search."""
        start = self.spec.get("start_date")
        if self.is_run or not start:
            return self.since
        start = oracle.time_of(reference.whole_fractions(start), self.zone) - timedelta(days=2)
        return start if self.since is None else min(self.since, start) if self.is_type("calendarinterval") else max(
            self.since, start)

    @property
    def their_instant(self):
        return instant(self.theirs)

    def is_type(self, *types):
        return self.spec["type"] in types

    def only_we_refuse(self):
        return isinstance(self.ours, Refused) and not isinstance(self.theirs, Refused)

    def both_answer(self):
        return not isinstance(self.ours, Refused) and not isinstance(self.theirs, Refused)


@dataclass
class Difference:
    """An entry of the table."""

    name: str
    reason: str
    applies: Callable[[Observation], bool]


def empty_cron(seen):
    return seen.only_we_refuse() and seen.is_type("cron") and not set(seen.spec) & set(expressions.FIELDS)


def interval_not_positive(seen):
    parts = [seen.spec.get(name, 0) for name in ("weeks", "days", "hours", "minutes", "seconds")]
    return seen.only_we_refuse() and seen.is_type("interval") and (min(parts) < 0 or sum(parts) == 0)


def end_before_start(seen):
    has_both = {"start_date", "end_date"} <= set(seen.spec)
    if not (has_both and seen.only_we_refuse() and seen.is_type("cron", "interval")):
        return False
    spec = reference.with_whole_fractions(seen.spec)
    return oracle.end_of(spec["end_date"], seen.zone) < oracle.time_of(spec["start_date"], seen.zone)


def never_fires(seen):
    return seen.only_we_refuse() and seen.theirs is None and oracle.first_from(seen.spec, None, True) is None


def _items(spec, names):
    return [item for name in names if name in spec for item in re.split(" *, *", str(spec[name]).strip())]


def rest_is_ignored(seen):
    patterns = {
        "day": (WeekdayPositionExpression, LastDayOfMonthExpression),
        "month": (MonthRangeExpression,),
        "day_of_week": (WeekdayRangeExpression,),
    }

    def is_cut(item, classes):
        first = next((kind.value_re for kind in classes if kind.value_re.match(item)), None)
        return first is not None and not first.fullmatch(item)

    return seen.only_we_refuse() and seen.is_type("cron") and any(
        is_cut(item, classes) for name, classes in patterns.items() for item in _items(seen.spec, [name]))


def zero_range_with_step(seen):
    return seen.only_we_refuse() and seen.is_type("cron") and any(
        re.fullmatch(r"0+-0+/\d+", item) for item in _items(seen.spec, expressions.FIELDS))


def short_fraction(seen):
    padded = reference.with_whole_fractions(seen.spec)
    if padded == seen.spec or not seen.both_answer():
        return False
    theirs = reference.Reference(padded)
    return seen.ours == instant(theirs.next(seen.since) if seen.is_run else theirs.first(seen.since))


def interval_in_floats(seen):
    """A step off the grid by a microsecond, or a run that is one whole interval away because of it."""
    if not (seen.both_answer() and seen.is_type("interval")):
        return False
    start = oracle.time_of(reference.with_whole_fractions(seen.spec)["start_date"], seen.zone)
    whole = reference.microseconds(seen.spec) % 1_000_000 == 0 and start.microsecond == 0
    step = reference.step(seen.spec)
    near = seen.ours and seen.theirs and min(
        abs(seen.ours + shift - seen.their_instant) for shift in (-step, 0 * step, step))
    return not whole and near is not None and near <= MICROSECOND


def _matches_there(seen):
    """Whether their answer matches their own fields, as the clock then is."""
    local = seen.their_instant.astimezone(seen.zone)
    fields = reference.Reference(seen.spec).trigger.fields
    return all(field.get_next_value(local) == field.get_value(local) for field in fields)


def skipped_reading_fires(seen):
    """Their answer is no time on the clock or does not match, and the clock was set forward since."""
    return (seen.both_answer() and seen.is_type("cron") and seen.theirs is not None
            and (zones.is_skipped(seen.theirs) or not _matches_there(seen))
            and bool(zones.gaps(seen.spec["timezone"], seen.begin, seen.their_instant)))


def slips_back_over_midnight(seen):
    """Their answer does not match, and lies in the last hours of a day to which the clock was set back since."""
    if not (seen.both_answer() and seen.is_type("cron") and seen.theirs):
        return False
    since = seen.begin - timedelta(days=1)
    return (not _matches_there(seen) and seen.their_instant.astimezone(seen.zone).hour >= 22
            and zones.is_set_back(seen.spec["timezone"], since, seen.their_instant))


def lost_after_change(seen):
    """The clock was set forward since, and ours is at the beginning of a day, as far into it as the clock was set; or
    of the hour after that, where less than an hour was skipped. They go on later."""
    if not (seen.both_answer() and seen.is_type("cron") and seen.ours):
        return False
    local, hour = seen.ours.astimezone(seen.zone), timedelta(hours=1)
    into_hour = timedelta(minutes=local.minute, seconds=local.second)
    into_day = into_hour + local.hour * hour
    gaps = zones.gaps(seen.spec["timezone"], seen.begin, seen.ours)
    is_lost = any(into_day < width for _, width in gaps) or any(
        into_hour < width < hour for _, width in zones.gaps(seen.spec["timezone"], seen.ours - hour, seen.ours))
    return is_lost and (seen.theirs is None or seen.their_instant > seen.ours)


def second_pass_lost(seen):
    """Ours is in the second pass over readings that are not just a whole hour of the clock."""
    if not (seen.both_answer() and seen.is_type("cron") and seen.ours and seen.ours.astimezone(seen.zone).fold == 1):
        return False
    change = zones.last_change(seen.spec["timezone"], seen.ours)
    before = zones.offset(seen.zone, change - timedelta(seconds=1))
    back, minute = before - zones.offset(seen.zone, change), change.astimezone(seen.zone).minute
    return (back, minute) != (timedelta(hours=1), 0) and (seen.theirs is None or seen.their_instant > seen.ours)


def end_in_repeated_hour(seen):
    """They compare readings with the end, not instants: in the second pass the end is reached once more."""
    if not (seen.both_answer() and seen.is_type("cron") and seen.ours is None and seen.theirs
            and "end_date" in seen.spec):
        return False
    end = oracle.end_of(reference.with_whole_fractions(seen.spec)["end_date"], seen.zone)
    return seen.theirs.fold == 1 and seen.their_instant > end and seen.theirs.replace(tzinfo=None) <= end.astimezone(
        seen.zone).replace(tzinfo=None)


def loose_time(seen):
    """A time without seconds, or with an offset in another form, which they refuse."""
    texts = [seen.spec.get(key, "") for key in ("run_date", "start_date", "end_date")]
    loose = r"\d+-\d+-\d+[ T](\d+:\d+|\d+:\d+:\d+(\.\d+)?) ?(Z|[+-]\d\d(:?\d\d)?)?"
    strict = r"\d+-\d+-\d+([ T]\d+:\d+:\d+(\.\d+)?(Z|[+-]\d\d:\d\d)?)?"
    return (isinstance(seen.theirs, Refused) and not isinstance(seen.ours, Refused) and any(
        re.fullmatch(loose, text) and not re.fullmatch(strict, text) for text in texts))


def end_of_day(seen):
    """Ours is on the day that is given as the end, where they have ended at its beginning."""
    text = seen.spec.get("end_date", "")
    if not (seen.both_answer() and seen.is_type("cron", "interval") and oracle.is_bare_date(text)):
        return False
    return (seen.ours is not None and seen.theirs is None
            and oracle.time_of(text, seen.zone) < seen.ours <= oracle.end_of(text, seen.zone))


def past_start(seen):
    return (seen.both_answer() and seen.is_type("calendarinterval") and not seen.is_run
            and seen.since is not None and seen.theirs is not None and seen.their_instant < seen.since
            and seen.theirs == reference.Reference(seen.spec).first(None))


def gap_over_midnight(seen):
    """The clock was set forward over the trigger's time of day, and to another date."""
    if not (seen.both_answer() and seen.is_type("calendarinterval")):
        return False
    time = timedelta(hours=seen.spec["hour"], minutes=seen.spec.get("minute", 0), seconds=seen.spec.get("second", 0))
    last = max(filter(None, [seen.ours, seen.their_instant]), default=zones.EPOCH)
    for reading, width in zones.gaps(seen.spec["timezone"], seen.begin, last + timedelta(days=1)):
        midnight = reading.replace(hour=0, minute=0, second=0)
        if any(reading <= midnight + day + time < reading + width and time + width >= timedelta(days=1)
               for day in (timedelta(0), timedelta(days=1))):
            return True
    return False


TABLE = [
    Difference(
        "empty cron",
        "a cron trigger without a field is every second there; here it is refused",
        empty_cron,
    ),
    Difference(
        "interval not positive",
        "no length is one second there, and a negative one runs away; here both are refused",
        interval_not_positive,
    ),
    Difference(
        "end before start",
        "it is accepted there and never fires; here it is refused",
        end_before_start,
    ),
    Difference(
        "never fires",
        "a trigger without any occurrence can be added there, and stays for ever; here it is refused",
        never_fires,
    ),
    Difference(
        "rest ignored",
        "what follows a name is cut off there (mon-fri/2, last-2); here it is refused",
        rest_is_ignored,
    ),
    Difference(
        "0-0/n",
        "a range from 0 to 0 passes the check of its step there; here the step is too wide as in any other range",
        zero_range_with_step,
    ),
    Difference(
        "short fraction",
        "the digits of .5 are microseconds there; here it is half a second",
        short_fraction,
    ),
    Difference(
        "interval in floats",
        "the grid is computed in floats there, in whole microseconds here",
        interval_in_floats,
    ),
    Difference(
        "skipped reading fires",
        "a reading in a gap may fire there, shifted by it, even to a day that does not match; here it does not exist",
        skipped_reading_fires,
    ),
    Difference(
        "lost after change",
        "the search there steps over readings at the beginning of a day (or an hour) when the clock was set forward "
        "since; here they fire",
        lost_after_change,
    ),
    Difference(
        "second pass lost",
        "where the clock is set back by other than a whole hour of the clock the search there may step over repeated "
        "readings; here they fire",
        second_pass_lost,
    ),
    Difference(
        "slips back over midnight",
        "where the clock is set back over midnight the search there ends on a time that does not match; here it does "
        "not fire",
        slips_back_over_midnight,
    ),
    Difference(
        "end in repeated hour",
        "the end is compared as a reading there, so that it counts in both passes; here as the instant that it is",
        end_in_repeated_hour,
    ),
    Difference(
        "loose time",
        "a time without seconds, or with an offset such as +0200, is refused there; here it is read",
        loose_time,
    ),
    Difference(
        "end of day",
        "a bare date as the end is its midnight there; here it is the whole day, as in a calendar interval",
        end_of_day,
    ),
    Difference(
        "past start",
        "a calendar interval first fires at its start there, however long ago; here at its first time that is not past",
        past_start,
    ),
    Difference(
        "gap over midnight",
        "a time of day in a gap that ends on the next date shifts the dates that follow there; here that date is left "
        "out",
        gap_over_midnight,
    ),
]


def explanation(seen):
    """The entry that applies, or none."""
    return next((entry for entry in TABLE if entry.applies(seen)), None)
