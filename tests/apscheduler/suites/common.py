"""What the stand-ins for both versions' triggers share: our engine behind a class with their names."""

import os
from datetime import date, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from engine import Engine, Refused

ENGINE = Engine(os.environ["PUNCTUAL"])
MICROSECOND = timedelta(microseconds=1)


class Refusal(ValueError, TypeError):
    """A trigger that Punctual refuses. Which of the two APScheduler raises is Python's business, as its wording is."""


class AnyText(str):
    """How a trigger is written out in Python, which Punctual has no part in: equal to any text."""

    def __eq__(self, other):
        return isinstance(other, str)

    __hash__ = str.__hash__


class Stand:
    """A trigger that knows its JSON form."""

    def spec(self):
        raise NotImplementedError

    def times(self, after=None, inclusive=False):
        """The next occurrence, or none, in the trigger's zone."""
        try:
            times = ENGINE.times(self.spec(), after and after.astimezone(timezone.utc), inclusive, 1)
        except Refused as refused:
            raise Refusal(str(refused)) from None
        return times[0].astimezone(self.zone()) if times else None

    # A trigger is refused where it is made; that it never fires is no reason.
    accept = times

    def zone(self):
        return timezone.utc

    def __repr__(self):
        return AnyText("trigger")

    __str__ = __repr__


def zone_name(zone):
    """A zone's name as Punctual reads it."""
    if isinstance(zone, str):
        return zone
    if isinstance(zone, ZoneInfo):
        return zone.key
    if getattr(zone, "zone", None):
        return zone.zone
    offset = zone.utcoffset(datetime(2000, 1, 1))
    sign, minutes = ("-", -offset) if offset < timedelta(0) else ("+", offset)
    return f"{sign}{minutes // timedelta(hours=1):02}:{minutes // timedelta(minutes=1) % 60:02}"


def zone_object(zone):
    """A zone as the standard library has it, so that its repeated readings can be told apart."""
    name = zone if isinstance(zone, str) else zone_name(zone)
    return zone if isinstance(zone, tzinfo) and name[0] in "+-" else ZoneInfo(name)


def given_zone(zone, *times):
    """The zone: as it is given, else that of the first time that has one, else universal time."""
    zones = [at.tzinfo for at in times if isinstance(at, datetime) and at.tzinfo]
    return zone_object(zone or next(iter(zones), ZoneInfo("UTC")))


def json_form(kind, zone=None, **values):
    """The JSON form: what is not given is left out, and times are written as text."""
    form = {"type": kind, **({"timezone": zone_name(zone)} if zone else {})}
    for name, value in values.items():
        if isinstance(value, (date, datetime)):
            value = value.isoformat()
        if value is not None:
            form[name] = value
    return form
