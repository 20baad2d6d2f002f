"""Punctual behind the names of APScheduler 4's triggers, which go on from one call of `next` to the following."""

from datetime import datetime

from common import Refusal, Stand, given_zone, json_form


class MaxIterationsReached(Exception):
    """What its `and` raises when its members do not meet."""


class Trigger(Stand):
    """What all have in common. A test may change attributes, so the JSON form is made when it is needed."""

    def __init__(self, kind, zone, values):
        self.kind, self.timezone, self.values = kind, zone, values
        self.last, self.is_finished = None, False
        self.accept()

    def spec(self):
        return json_form(self.kind, self.timezone, **self.values)

    def zone(self):
        return self.timezone

    def next(self):
        found = None if self.is_finished else self.times(self.last)
        self.last, self.is_finished = found, found is None
        return found


class Ranged(Trigger):
    """With a start and an end under their names in that version."""

    def __init__(self, kind, *, start_time=None, end_time=None, timezone=None, **values):
        self.start_time, self.end_time = start_time, end_time
        super().__init__(kind, given_zone(timezone, start_time, end_time), values)

    def spec(self):
        return {**super().spec(), **json_form(self.kind, start_date=self.start_time, end_date=self.end_time)}


class CronTrigger(Ranged):
    def __init__(self, **values):
        super().__init__("cron", **values)

    @classmethod
    def from_crontab(cls, expression, *, timezone=None, start_time=None, end_time=None):
        # Their numbers of weekdays are those of crontab, so that it is ours of this name.
        return Ranged("crontab", expression=expression, timezone=timezone, start_time=start_time, end_time=end_time)


class IntervalTrigger(Ranged):
    def __init__(self, *, microseconds=0, seconds=0, start_time=None, **values):
        start_time = start_time or datetime.now().astimezone()
        super().__init__("interval", seconds=seconds + microseconds / 1_000_000, start_time=start_time, **values)


class DateTrigger(Trigger):
    def __init__(self, run_time):
        super().__init__("date", given_zone(None, run_time), {"run_date": run_time})


class CalendarIntervalTrigger(Trigger):
    def __init__(self, *, timezone=None, **values):
        super().__init__("calendarinterval", given_zone(timezone), values)


class Combining(Trigger):
    def __init__(self, kind, triggers, **values):
        self.triggers = triggers
        super().__init__(kind, triggers[0].timezone, values)

    def spec(self):
        return {**super().spec(), "triggers": [trigger.spec() for trigger in self.triggers]}


class AndTrigger(Combining):
    def __init__(self, triggers, threshold=1, max_iterations=None):
        super().__init__("and", triggers, threshold=threshold)

    def accept(self):
        """Its members were accepted; that they never meet is told there only when it is asked for a time."""

    def next(self):
        try:
            return super().next()
        except Refusal as refused:
            raise MaxIterationsReached if "never agree" in str(refused) else refused from None


class OrTrigger(Combining):
    def __init__(self, triggers):
        super().__init__("or", triggers)


def modules():
    """The modules that tests import from, with what they hold."""
    return {
        "apscheduler": {"MaxIterationsReached": MaxIterationsReached},
        "apscheduler.triggers.cron": {"CronTrigger": CronTrigger},
        "apscheduler.triggers.interval": {"IntervalTrigger": IntervalTrigger},
        "apscheduler.triggers.date": {"DateTrigger": DateTrigger},
        "apscheduler.triggers.calendarinterval": {"CalendarIntervalTrigger": CalendarIntervalTrigger},
        "apscheduler.triggers.combining": {"AndTrigger": AndTrigger, "OrTrigger": OrTrigger},
    }
