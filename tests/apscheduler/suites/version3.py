"""Punctual behind the names of APScheduler 3.11.3's triggers: stateless, asked with the last run and with now."""

from datetime import datetime, timezone
from zoneinfo import ZoneInfo

from apscheduler.util import convert_to_datetime

from common import MICROSECOND, Stand, given_zone, json_form


def get_localzone():
    """The machine's zone, which tests replace."""
    return ZoneInfo("UTC")


class Trigger(Stand):
    """What all have in common. A test may change attributes, so the JSON form is made when it is needed."""

    def __init__(self, kind, zone, values):
        self.kind, self.timezone, self.values = kind, zone, values
        self.jitter = values.pop("jitter", None)
        self.accept()

    def spec(self):
        return json_form(self.kind, self.timezone, jitter=self.jitter, **self.values)

    def zone(self):
        return self.timezone

    def date_of(self, name):
        return convert_to_datetime(self.values.get(name), self.timezone, name)


class CronTrigger(Trigger):
    NAMES = ["year", "month", "day", "week", "day_of_week", "hour", "minute", "second", "start_date", "end_date",
             "timezone", "jitter"]

    def __init__(self, *positional, **values):
        values = {**dict(zip(self.NAMES, positional)), **values}
        zone = given_zone(values.pop("timezone", None), values.get("start_date"), values.get("end_date"))
        super().__init__("cron", zone, values)

    @classmethod
    def from_crontab(cls, expression, timezone=None):
        minute, hour, day, month, day_of_week = expression.split()
        return cls(minute=minute, hour=hour, day=day, month=month, day_of_week=day_of_week, timezone=timezone)

    def get_next_fire_time(self, previous, now):
        if previous is None:
            return self.times(now, True)
        # Either may be a repeated reading: only in universal time they compare as instants.
        previous, now = previous.astimezone(timezone.utc), now.astimezone(timezone.utc)
        return self.times(previous + MICROSECOND if now == previous else min(now, previous + MICROSECOND), True)


class IntervalTrigger(Trigger):
    NAMES = ["weeks", "days", "hours", "minutes", "seconds", "start_date", "end_date", "timezone", "jitter"]

    def __init__(self, *positional, **values):
        values = {**dict(zip(self.NAMES, positional)), **values}
        zone = given_zone(values.pop("timezone", None) or get_localzone(), values.get("start_date"),
                          values.get("end_date"))
        super().__init__("interval", zone, values)
        # Each question is a definition of its own, and without a start the first run follows from when it was defined.
        self.values.setdefault("start_date", self.times())

    @property
    def start_date(self):
        return self.times()

    @property
    def interval(self):
        return self.times(self.start_date) - self.start_date

    def get_next_fire_time(self, previous, now):
        return self.times(now, True) if previous is None else self.times(previous)


class DateTrigger(Trigger):
    def __init__(self, run_date=None, timezone=None):
        super().__init__("date", given_zone(timezone, run_date), {"run_date": run_date})

    def get_next_fire_time(self, previous, now):
        return self.times() if previous is None else None


class CalendarIntervalTrigger(Trigger):
    def __init__(self, *, timezone=None, **values):
        super().__init__("calendarinterval", given_zone(timezone), values)

    def get_next_fire_time(self, previous, now):
        return self.times(previous)


class BaseCombiningTrigger(Trigger):
    __slots__ = ("jitter", "triggers")

    def __init__(self, triggers, jitter=None):
        self.triggers = triggers
        super().__init__(self.KIND, triggers[0].timezone, {"jitter": jitter})

    def spec(self):
        return {**super().spec(), "triggers": [trigger.spec() for trigger in self.triggers]}

    def get_next_fire_time(self, previous, now):
        return self.times(now, True) if previous is None else self.times(previous)


class AndTrigger(BaseCombiningTrigger):
    KIND = "and"


class OrTrigger(BaseCombiningTrigger):
    KIND = "or"


def modules():
    """The modules that tests import from, with what they hold."""
    shared = {"get_localzone": get_localzone, "datetime": datetime}
    return {
        "apscheduler.triggers.cron": {"CronTrigger": CronTrigger, **shared},
        "apscheduler.triggers.interval": {"IntervalTrigger": IntervalTrigger, **shared},
        "apscheduler.triggers.date": {"DateTrigger": DateTrigger, **shared},
        "apscheduler.triggers.calendarinterval": {"CalendarIntervalTrigger": CalendarIntervalTrigger},
        "apscheduler.triggers.combining": {
            "AndTrigger": AndTrigger, "OrTrigger": OrTrigger, "BaseCombiningTrigger": BaseCombiningTrigger},
    }
