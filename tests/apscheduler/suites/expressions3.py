"""Punctual behind the names of APScheduler 3.11.3's cron fields and expressions, one field at a time.

The next value of a field is read off the next occurrence of a pattern in which only that field is not free.
"""

from calendar import monthrange
from datetime import timedelta

from common import Stand, json_form


class BaseField(Stand):
    """A field of a cron trigger, asked for its next value at a reading of the clock."""

    def __init__(self, name, expression):
        self.name, self.expression, self.bounds = name, expression, {}
        self.accept()

    def spec(self):
        return json_form("cron", "UTC", **{self.name: self.expression}, **self.bounds)

    def get_next_value(self, at):
        # The value has to lie in the same day, week or month as the reading.
        days = {"day": monthrange(at.year, at.month)[1] - at.day, "day_of_week": 6 - at.weekday()}.get(self.name, 0)
        self.bounds = {"start_date": at, "end_date": (at + timedelta(days)).replace(hour=23, minute=59, second=59)}
        found = self.times()
        return found and (found.weekday() if self.name == "day_of_week" else getattr(found, self.name))


class DayOfMonthField(BaseField):
    pass


class DayOfWeekField(BaseField):
    pass


class Expression(BaseField):
    """One expression, without the field that it stands in."""

    def get_next_value(self, at, name):
        return super().get_next_value(at)


class AllExpression(Expression):
    def __init__(self, step=None):
        super().__init__("minute", "*" if step is None else f"*/{step}")


class RangeExpression(Expression):
    def __init__(self, first, last=None, step=None):
        last = "" if last is None else f"-{last}"
        super().__init__("minute", f"{first}{last}" + ("" if step is None else f"/{step}"))


class WeekdayRangeExpression(Expression):
    def __init__(self, first, last=None):
        super().__init__("day_of_week", first if last is None else f"{first}-{last}")


class WeekdayPositionExpression(Expression):
    def __init__(self, place, weekday):
        super().__init__("day", f"{place} {weekday}")


class LastDayOfMonthExpression(Expression):
    def __init__(self):
        super().__init__("day", "last")


def modules():
    """The modules that tests import from, with what they hold."""
    fields = (BaseField, DayOfMonthField, DayOfWeekField)
    expressions = (AllExpression, RangeExpression, WeekdayRangeExpression, WeekdayPositionExpression,
                   LastDayOfMonthExpression)
    return {
        "apscheduler.triggers.cron.fields": {kind.__name__: kind for kind in fields},
        "apscheduler.triggers.cron.expressions": {kind.__name__: kind for kind in expressions},
    }
