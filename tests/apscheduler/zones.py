"""The time zones of the differential test, and when their clocks change."""

from datetime import datetime, timedelta, timezone
from functools import cache
from zoneinfo import ZoneInfo

UTC = timezone.utc
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Before all that any trigger is about, and still a date in every zone.
BEGINNING = datetime(1, 1, 3, tzinfo=UTC)

FIXED = ["UTC", "+00:00", "+01:00", "-01:00", "+05:30", "-03:30", "+05:45", "+08:00", "+13:00", "+14:00",
         "-11:00", "-12:00", "+00:01", "-00:01", "+12:45"]

# Ordinary changes, changes of half an hour or of twenty minutes, at midnight or a minute after it, to the negative,
# for Ramadan, twice a year by two hours, of standard time, and days that were left out or lived twice.
CHANGING = """
Europe/Berlin Europe/Helsinki Europe/London Europe/Dublin Europe/Lisbon Europe/Moscow Europe/Istanbul Europe/Chisinau
Europe/Kyiv Europe/Samara Europe/Volgograd America/New_York America/Chicago America/Denver America/St_Johns
America/Havana America/Sao_Paulo America/Santiago America/Asuncion America/Nuuk America/Scoresbysund America/Caracas
America/Mexico_City America/Port-au-Prince America/Bogota America/Goose_Bay America/Santo_Domingo America/Guyana
America/Metlakatla Asia/Beirut Asia/Gaza Asia/Jerusalem Asia/Amman Asia/Damascus Asia/Tehran Asia/Kathmandu
Asia/Pyongyang Asia/Dhaka Asia/Karachi Asia/Colombo Asia/Singapore Asia/Ho_Chi_Minh Asia/Shanghai
Asia/Chita Asia/Yakutsk Africa/Casablanca Africa/El_Aaiun Africa/Cairo Africa/Monrovia Africa/Juba Africa/Windhoek
Africa/Sao_Tome Australia/Lord_Howe Australia/Adelaide Australia/Sydney Australia/Eucla Pacific/Apia Pacific/Kwajalein
Pacific/Kiritimati Pacific/Enderbury Pacific/Chatham Pacific/Fiji Pacific/Norfolk Pacific/Easter Pacific/Tongatapu
Pacific/Auckland Pacific/Rarotonga Antarctica/Troll Antarctica/Casey Antarctica/Macquarie Atlantic/Azores
""".split()


@cache
def zone_of(name):
    """A zone as Python has it."""
    if name == "UTC":
        return UTC
    if name[0] in "+-":
        hours, minutes = name[1:].split(":")
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        return timezone(-offset if name[0] == "-" else offset)
    return ZoneInfo(name)


def offset(zone, at):
    """How far the clock is ahead of UTC at an instant."""
    return at.astimezone(zone).utcoffset()


@cache
def changes(name):
    """The instants from 1970 to 2150 at which a zone's clock changes."""
    zone, found = zone_of(name), []
    low = datetime(1970, 1, 1, tzinfo=UTC)
    before = offset(zone, low)
    while low.year < 2150:
        high = low + timedelta(days=7)
        after = offset(zone, high)
        if before != after:
            found.append(_change_between(zone, low, high))
        low, before = high, after
    return found


@cache
def changes_to_ask_about(name):
    """Those so early that what follows is among all changes as well."""
    return [change for change in changes(name) if change.year < 2100]


def _change_between(zone, low, high):
    before = offset(zone, low)
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
        if offset(zone, middle) == before:
            low = middle
        else:
            high = middle
    return high


def is_skipped(at):
    """Whether a local time is one that its clock never shows."""
    return at.astimezone(UTC).astimezone(at.tzinfo).replace(tzinfo=None) != at.replace(tzinfo=None)


def instant(local, zone):
    """The instant of a reading: in a gap moved forward by it, in a fold the first."""
    return local.replace(tzinfo=zone, fold=0).astimezone(UTC)


def last_change(name, at):
    """The last change of a zone's clock up to an instant, or none."""
    return max((change for change in changes(name) if change <= at), default=None)


def is_set_back(name, begin, end):
    """Whether the clock was set back between two instants."""
    zone = zone_of(name)
    return isinstance(zone, ZoneInfo) and any(
        begin < change <= end and offset(zone, change) < offset(zone, change - timedelta(seconds=1))
        for change in changes(name))


def gaps(name, begin, end):
    """The first reading that is skipped, and how many are, for each time the clock was set forward in between."""
    zone, found = zone_of(name), []
    for change in [] if not isinstance(zone, ZoneInfo) else changes(name):
        before = offset(zone, change - timedelta(seconds=1))
        width = offset(zone, change) - before
        if begin < change <= end and width > timedelta(0):
            found.append(((change + before).replace(tzinfo=None), width))
    return found
