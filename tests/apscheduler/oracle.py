"""What is right, found the slow and simple way: neither our search nor APScheduler's.

A cron trigger: walk the real instants, read the clock at each, and test field by field. Only days and hours that
cannot match are passed over. The meaning of the fields' texts is APScheduler's own.
"""

import re
from datetime import date, datetime, timedelta

import reference
import zones
from zones import UTC

SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
DATE_FIELDS = ("year", "month", "day", "week", "day_of_week")
END = datetime(9999, 12, 30, tzinfo=UTC)


def first_from(spec, after, inclusive):
    """The first occurrence at or after an instant (or after it), or none."""
    spec = reference.with_whole_fractions(spec)
    after = zones.BEGINNING if after is None else after
    after = (after if inclusive else after + timedelta(microseconds=1)).astimezone(UTC)
    return {"cron": _cron, "interval": _interval, "date": _date, "calendarinterval": _calendar_interval}[
        spec["type"]](spec, zones.zone_of(spec["timezone"]), after)


def time_of(text, zone):
    """A time as it is written, read without APScheduler."""
    numbers = [int(number) for number in re.findall(r"\d+", re.sub(r"(Z|[+-]\d\d:\d\d)$", "", text))]
    suffix = re.search(r":\d+(?:\.\d+)?(Z|[+-]\d\d:\d\d)$", text)
    if suffix:
        zone = UTC if suffix[1] == "Z" else zones.zone_of(suffix[1])
    return zones.instant(datetime(*numbers), zone)


def is_bare_date(text):
    """Whether a time is a date without a time of day."""
    return re.fullmatch(r"\d+-\d+-\d+", text) is not None


def end_of(text, zone):
    """The last instant that an end includes: of a bare date, that of the whole day."""
    if not is_bare_date(text):
        return time_of(text, zone)
    day = time_of(text, UTC).date()
    # Of a midnight that the clock skips, the day ends where the clock goes on.
    at = datetime(day.year, day.month, day.day, tzinfo=UTC) + DAY - 14 * HOUR
    while at.astimezone(zone).date() <= day:
        at += 900 * SECOND
    at -= 900 * SECOND
    while at.astimezone(zone).date() <= day:
        at += SECOND
    return at - timedelta(microseconds=1)


def _bounds(spec, zone, after):
    start, end = spec.get("start_date"), spec.get("end_date")
    return (max(after, time_of(start, zone)) if start else after), (end_of(end, zone) if end else END)


def _cron(spec, zone, after):
    trigger = reference.Reference(spec).trigger
    fields = {field.name: field for field in trigger.fields}
    begin, end = _bounds(spec, zone, after)
    if begin.microsecond:
        begin += SECOND - timedelta(microseconds=begin.microsecond)

    def holds(name, local):
        return fields[name].get_next_value(local) == fields[name].get_value(local)

    # What the clock's fields take does not depend on the day.
    noon = datetime(2000, 1, 1)
    hours, minutes, seconds = (
        {value for value in range(size) if holds(name, noon.replace(**{name: value}))}
        for name, size in (("hour", 24), ("minute", 60), ("second", 60)))
    known = {}

    def date_holds(day):
        if day not in known:
            known[day] = all(holds(name, datetime(day.year, day.month, day.day)) for name in DATE_FIELDS)
        return known[day]

    def in_hour(hour):
        """The matching instants of an hour of universal time."""
        first, last = hour.astimezone(zone), (hour + HOUR - SECOND).astimezone(zone)
        steady = first.utcoffset() == last.utcoffset()
        ends = (first, last)
        if steady and not any(local.hour in hours and date_holds(local.date()) for local in ends):
            return
        whole_minutes = steady and first.utcoffset().total_seconds() % 60 == 0
        for minute in range(60):
            local = (hour + minute * 60 * SECOND).astimezone(zone)
            if whole_minutes and not (local.minute in minutes and local.hour in hours):
                continue
            for second in range(60):
                at = hour + (minute * 60 + second) * SECOND
                local = at.astimezone(zone)
                time_holds = local.hour in hours and local.minute in minutes and local.second in seconds
                if time_holds and date_holds(local.date()):
                    yield at

    # The calendar repeats itself after 400 years.
    cycle = END if "year" in spec else min(END, begin + 401 * 366 * DAY)
    day = datetime(begin.year, begin.month, begin.day, tzinfo=UTC)
    while day <= end and day < cycle:
        # Inside of a year, or of a month, that does not match, there is nothing, in whatever zone.
        if 2 <= day.timetuple().tm_yday <= 364 and not holds("year", day):
            year = fields["year"].get_next_value(day)
            if year is None:
                return None
            day = max(day + DAY, datetime(year, 1, 1, tzinfo=UTC) - 2 * DAY)
            continue
        if 2 <= day.day <= 26 and not holds("month", day):
            day = day.replace(day=27)
            continue
        if any(date_holds((day + shift * DAY).date()) for shift in (-1, 0, 1)):
            for hour in range(24):
                for at in in_hour(day + hour * HOUR):
                    if at > end:
                        return None
                    if at >= begin:
                        return at
        day += DAY
    return None


def _interval(spec, zone, after):
    begin, end = _bounds(spec, zone, after)
    start, step = time_of(spec["start_date"], zone), reference.step(spec)
    steps = -((start - begin) // step)
    at = start + steps * step
    return at if at <= end else None


def _date(spec, zone, after):
    at = time_of(spec["run_date"], zone)
    return at if at >= after else None


def _calendar_interval(spec, zone, after):
    """Dates one after the other from the start, each at the given reading of the clock, where there is one."""
    day = date.fromisoformat(spec["start_date"])
    last = date.fromisoformat(spec.get("end_date", "9999-12-31"))
    while day and day <= last:
        local = datetime(day.year, day.month, day.day, spec.get("hour", 0), spec.get("minute", 0),
                         spec.get("second", 0), tzinfo=zone)
        if not zones.is_skipped(local) and local.astimezone(UTC) >= after:
            return local.astimezone(UTC)
        day = _later(day, spec)
    return None


def _later(day, spec):
    months = 12 * spec.get("years", 0) + spec.get("months", 0)
    count = day.year * 12 + day.month - 1
    while count < 9999 * 12:
        count += months
        try:
            moved = date(count // 12, count % 12 + 1, day.day)
        except ValueError:
            continue
        return moved + timedelta(days=7 * spec.get("weeks", 0) + spec.get("days", 0))
    return None
