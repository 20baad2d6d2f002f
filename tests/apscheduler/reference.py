"""Their side: a trigger of APScheduler 3.11.3, made from our JSON form."""

import re
from datetime import timedelta

from apscheduler.triggers.calendarinterval import CalendarIntervalTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

import zones
from engine import Refused

CLASSES = {"cron": CronTrigger, "interval": IntervalTrigger, "date": DateTrigger,
           "calendarinterval": CalendarIntervalTrigger}


class Reference:
    """APScheduler's trigger."""

    def __init__(self, spec):
        arguments = dict(spec)
        kind = arguments.pop("type")
        if "timezone" in arguments and arguments["timezone"][:1] in ("+", "-", "U"):
            # It knows fixed offsets only as objects.
            arguments["timezone"] = zones.zone_of(arguments["timezone"])
        try:
            self.trigger = CLASSES[kind](**arguments)
        except Exception as error:  # Whatever it raises, it refuses.
            raise Refused(f"{type(error).__name__}: {error}") from error

    def first(self, after):
        """What it answers when a job is added at `after`, or long before where that is none."""
        return self.trigger.get_next_fire_time(None, after or zones.EPOCH)

    def next(self, previous):
        """What it answers after a run at `previous`."""
        # It reads the day off this, so it has to be in the trigger's zone.
        zone = getattr(self.trigger, "timezone", None)
        previous = previous.astimezone(zone)
        return self.trigger.get_next_fire_time(previous, previous)


def whole_fractions(text):
    """A time whose fraction of a second has all six digits, so that APScheduler reads it as one."""
    return re.sub(r"\.(\d{1,6})(?!\d)", lambda found: "." + found[1].ljust(6, "0"), text)


def with_whole_fractions(spec):
    """The same for all times of a trigger."""
    keys = {"start_date", "end_date", "run_date"}
    return {key: whole_fractions(value) if key in keys and isinstance(value, str) else value
            for key, value in spec.items()}


def microseconds(spec):
    """The length of an interval."""
    units = {"weeks": 604_800, "days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}
    return sum(round(spec.get(name, 0) * seconds * 1_000_000) for name, seconds in units.items())


def step(spec):
    return timedelta(microseconds=microseconds(spec))
