"""Random triggers, valid and not, and the instants from which they are asked."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import expressions
import zones
from zones import UTC


@dataclass
class Case:
    """A trigger, and how it is asked: from `after` on, or from its own start where that is none."""

    spec: dict
    after: datetime | None
    count: int


# Numbers that no trigger takes, and what only looks like a trigger.
WRONG = [
    {"type": "cron"},
    {"type": "cron", "hour": 24},
    {"type": "cron", "hour": "22-2"},
    {"type": "cron", "hour": "-1"},
    {"type": "cron", "hour": 1.5},
    {"type": "cron", "hour": True},
    {"type": "cron", "hour": ""},
    {"type": "cron", "hour": "1,,2"},
    {"type": "cron", "hour": "0-0/5"},
    {"type": "cron", "minute": "*/60"},
    {"type": "cron", "minute": "59/1"},
    {"type": "cron", "minute": "*/0"},
    {"type": "cron", "day": "*/31"},
    {"type": "cron", "day": "3rd 4"},
    {"type": "cron", "day": "6th fri"},
    {"type": "cron", "day": "last-2"},
    {"type": "cron", "day": "1st fri-x"},
    {"type": "cron", "day": "L"},
    {"type": "cron", "day": 0},
    {"type": "cron", "month": "january"},
    {"type": "cron", "month": "jan-mar/2"},
    {"type": "cron", "week": 54},
    {"type": "cron", "year": 1969},
    {"type": "cron", "year": 10000},
    {"type": "cron", "day_of_week": 7},
    {"type": "cron", "day_of_week": "sat-mon"},
    {"type": "cron", "day_of_week": "fri#2"},
    {"type": "cron", "day_of_week": "mon-fri/2"},
    {"type": "cron", "day_of_week": "monday"},
    {"type": "cron", "hour": 3, "hours": 3},
    {"type": "cron", "hour": 3, "start_date": "2026-02-01", "end_date": "2026-01-01"},
    {"type": "cron", "hour": 3, "end_date": "2026-02-30"},
    {"type": "cron", "hour": 3, "end_date": "2026-02-01 10:00"},
    {"type": "cron", "hour": 3, "timezone": "Mars/Olympus"},
    {"type": "cron", "month": 4, "day": 31, "year": "2026-2030"},
    {"type": "interval"},
    {"type": "interval", "seconds": 0},
    {"type": "interval", "seconds": -5},
    {"type": "interval", "days": 1, "hours": -1},
    {"type": "interval", "second": 5},
    {"type": "interval", "months": 1},
    {"type": "interval", "seconds": "5"},
    {"type": "interval", "minutes": 5, "start_date": "2026-02-01", "end_date": "2026-01-01"},
    {"type": "interval", "minutes": 5, "start_date": "tomorrow"},
    {"type": "date", "run_date": "2026-13-01"},
    {"type": "date", "run_date": "2026-01-01 10:00:00 +01:00"},
    {"type": "date", "run_date": "2026-01-01T10:00:00+0100"},
    {"type": "date", "run_date": "2026-01-01 24:00:00"},
    {"type": "date", "hour": 3},
    {"type": "calendarinterval"},
    {"type": "calendarinterval", "days": 0},
    {"type": "calendarinterval", "days": 1, "hour": 24},
    {"type": "calendarinterval", "days": 1, "second": -1},
    {"type": "calendarinterval", "days": 1, "start_date": "2026-02-30"},
    {"type": "calendarinterval", "days": 1, "start_date": "2026-02-01", "end_date": "2026-01-01"},
    {"type": "calendarinterval", "seconds": 1},
]


def random_case(rng, kinds, changing):
    """A trigger of one of the kinds, in a zone whose clock changes or in one whose clock does not."""
    zone = rng.choice(zones.CHANGING if changing else zones.FIXED)
    chance = rng.random()
    if chance < 0.03:
        spec = {"timezone": zone, **rng.choice([spec for spec in WRONG if spec["type"] in kinds])}
        return Case(spec, datetime(2026, 1, 1, tzinfo=UTC), 1)
    kind = rng.choices(kinds, [{"cron": 6}.get(kind, 1) for kind in kinds])[0]
    after = _instant(rng, zone, changing)
    # Whatever the trigger is about lies a little after the instant from which it is asked.
    near = after + timedelta(seconds=rng.choice([0, rng.randint(0, 7200), rng.randint(0, 40 * 86400)]))
    local = near.astimezone(zones.zone_of(zone)).replace(tzinfo=None)
    if changing and rng.random() < 0.25:
        # What the clock would show shortly after a change if it had not been changed.
        change = rng.choice(zones.changes_to_ask_about(zone))
        after = change - timedelta(seconds=rng.randint(0, 2 * 86400))
        unchanged = (change - timedelta(seconds=1)).astimezone(zones.zone_of(zone)).replace(tzinfo=None)
        local = unchanged + timedelta(seconds=rng.randint(1, 3600))
    case = _MAKERS[kind](rng, zone, after, local)
    if chance < 0.1 and kind == "cron":
        name = rng.choice([name for name in expressions.FIELDS if name in case.spec])
        case.spec[name] = expressions.damaged(rng, case.spec[name])
    return case


def _instant(rng, zone, changing):
    """Mostly near a change of the clock, the end of a year or a leap day."""
    chance = rng.random()
    if changing and chance < 0.8:
        base = rng.choice(zones.changes_to_ask_about(zone))
        after = base + timedelta(seconds=rng.choice(
            [rng.randint(-7200, 7200), rng.randint(-2 * 86400, 86400), rng.randint(-40 * 86400, 0)]))
    elif chance < 0.9:
        year = rng.randint(1970, 2100)
        day = rng.choice([datetime(year, 12, 31, tzinfo=UTC), datetime(year, 2, 28, tzinfo=UTC),
                          datetime(year - year % 4 if year > 1973 else 1972, 2, 28, tzinfo=UTC)])
        after = day + timedelta(seconds=rng.randint(0, 2 * 86400))
    else:
        after = datetime(1970, 1, 2, tzinfo=UTC) + timedelta(seconds=rng.randint(0, 4_000_000_000))
    fraction = rng.choice([0, 0, 0, 1, 500_000, 999_999])
    # A whole minute or hour lies on many grids.
    after -= timedelta(seconds=rng.choice([0, 0, after.second, after.second + 60 * after.minute]))
    return max(after, datetime(1970, 1, 2, tzinfo=UTC)) + timedelta(microseconds=fraction)


def _time_text(rng, local):
    """A time as APScheduler reads it, with or without a zone."""
    form = rng.random()
    if form < 0.2:
        return f"{local.year}-{local.month}-{local.day}" if form < 0.1 else f"{local:%Y-%m-%d}"
    text = f"{local:%Y-%m-%d}{rng.choice(' T')}{local:%H:%M:%S}"
    if form < 0.3:
        text = f"{local.year}-{local.month}-{local.day} {local.hour}:{local.minute}:{local.second}"
    if form > 0.85:
        text += rng.choice([".5", ".25", ".000001", ".500000", ".123456"])
    if form > 0.7:
        text += rng.choice(["Z", "+02:00", "-05:30"])
    return text


def _bounds(rng, spec, local, chance=0.25):
    """Adds a start or an end now and then."""
    if rng.random() < chance:
        start = local + timedelta(seconds=rng.randint(-3 * 86400, 86400))
        spec["start_date"] = _time_text(rng, start)
    if rng.random() < chance:
        end = local + timedelta(seconds=rng.choice([rng.randint(0, 7200), rng.randint(0, 3 * 366 * 86400)]))
        spec["end_date"] = _time_text(rng, end)


def _cron(rng, zone, after, local):
    chances = {"year": 0.08, "month": 0.25, "day": 0.35, "week": 0.12, "day_of_week": 0.25, "hour": 0.6,
               "minute": 0.6, "second": 0.3}
    names = [name for name in expressions.FIELDS if rng.random() < chances[name]] or ["hour"]
    if sum(name in names for name in ("month", "day", "week", "day_of_week")) > 1 and rng.random() < 0.97:
        # Such a pattern may have to be searched for until the year 9999, which takes APScheduler a second or two.
        names = ["year", *(name for name in names if name != "year")]
    spec = {"type": "cron", "timezone": zone}
    for name in names:
        spec[name] = expressions.random_field(rng, name, local)
    if names[0] == "year" and len(names) > 2:
        spec["year"] = f"{local.year}-{local.year + rng.randint(1, 9)}"
    if "hour" in spec and rng.random() < 0.15:
        # Midnight is where most clocks' changes are felt.
        spec["hour"] = rng.choice([0, "0-2", "*", "0,23"])
    _bounds(rng, spec, local)
    return Case(spec, after, rng.randint(1, 5))


def _interval(rng, zone, after, local):
    spec = {"type": "interval", "timezone": zone}
    most = {"weeks": 60, "days": 400, "hours": 100, "minutes": 200, "seconds": 100_000}
    for name in rng.sample(list(most), rng.choice([1, 1, 1, 2, 3])):
        is_whole = rng.random() < 0.8
        spec[name] = rng.randint(1, most[name]) if is_whole else rng.choice([0.5, 0.25, 0.1, 0.007, 1.1, 2.000001])
    start = local - timedelta(seconds=rng.choice([0, 0, rng.randint(0, 10**8)]))
    spec["start_date"] = _time_text(rng, start)
    if rng.random() < 0.3:
        spec["end_date"] = _time_text(rng, local + timedelta(seconds=rng.randint(0, 10**7)))
    return Case(spec, after, rng.randint(1, 5))


def _date(rng, zone, after, local):
    return Case({"type": "date", "timezone": zone, "run_date": _time_text(rng, local)}, None, 2)


def _calendar_interval(rng, zone, after, local):
    spec = {"type": "calendarinterval", "timezone": zone, "hour": local.hour, "minute": local.minute,
            "second": local.second, "start_date": f"{local:%Y-%m-%d}"}
    most = {"years": 4, "months": 14, "weeks": 8, "days": 40}
    for name in rng.sample(list(most), rng.choice([1, 1, 2, 3])):
        spec[name] = rng.randint(1, most[name])
    for name in ("minute", "second"):
        if rng.random() < 0.4:
            del spec[name]
    if rng.random() < 0.2:
        spec["hour"] = 0
    if rng.random() < 0.2:
        spec["end_date"] = f"{local + timedelta(days=rng.randint(0, 900)):%Y-%m-%d}"
    if rng.random() < 0.5:
        days = spec.get("days", 1) + 7 * spec.get("weeks", 0)
        spec["start_date"] = f"{local - timedelta(days=days * rng.choice([1, 2, 3, rng.randint(0, 80)])):%Y-%m-%d}"
    return Case(spec, rng.choice([None, after]), rng.randint(1, 5))


_MAKERS = {"cron": _cron, "interval": _interval, "date": _date, "calendarinterval": _calendar_interval}
