"""Random expressions of cron fields, in every form there is, and damaged ones."""

from calendar import monthrange

FIELDS = ["year", "month", "day", "week", "day_of_week", "hour", "minute", "second"]
RANGES = {"year": (1970, 9999), "month": (1, 12), "day": (1, 31), "week": (1, 53), "day_of_week": (0, 6),
          "hour": (0, 23), "minute": (0, 59), "second": (0, 59)}
WEEKDAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
NAMES = {"month": (MONTHS, 1), "day_of_week": (WEEKDAYS, 0)}
ORDINALS = ["1st", "2nd", "3rd", "4th", "5th"]
DAMAGE = "0123456789*/-, abdefijlmnorstuwyLW#?.+"


def values_at(local):
    """What each field holds at a reading of the clock."""
    return {"year": local.year, "month": local.month, "day": local.day, "week": local.isocalendar()[1],
            "day_of_week": local.weekday(), "hour": local.hour, "minute": local.minute, "second": local.second}


def random_field(rng, name, local):
    """A list of one to three items, the first of which mostly holds at that reading, so that few patterns are empty."""
    items = [_item(rng, name, local)]
    while len(items) < 3 and rng.random() < 0.2:
        items.append(_item(rng, name, local if rng.random() < 0.3 else None))
    rng.shuffle(items)
    text = rng.choice([",", ", ", " , ", "  ,"]).join(items)
    if rng.random() < 0.1:
        text = f" {text} "
    text = text.upper() if rng.random() < 0.15 else text
    # As numbers they come from code, as text from configuration files.
    return int(text) if text.isdigit() and rng.random() < 0.5 else text


def damaged(rng, text):
    """The text with one to three characters changed, added or left out."""
    letters = list(str(text))
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        at = rng.randrange(len(letters) + 1)
        kind = rng.random()
        if kind < 0.4:
            letters.insert(at, rng.choice(DAMAGE))
        elif letters and kind < 0.7:
            letters[min(at, len(letters) - 1)] = rng.choice(DAMAGE)
        elif letters:
            del letters[min(at, len(letters) - 1)]
    return "".join(letters)


def _item(rng, name, local):
    low, high = RANGES[name]
    if name == "year":
        low, high = (local.year, local.year + 3) if local else (1970, 2100)
    value = values_at(local)[name] if local and rng.random() < 0.97 else rng.randint(low, high)
    kind = rng.random()
    if name == "day" and kind < 0.35:
        return _place_of_weekday(rng, local)
    if name in NAMES and kind < 0.5:
        return _names(rng, name, value)
    if kind < 0.6:
        return str(value)
    if kind < 0.8:
        return _range(rng, name, value)
    if kind < 0.95:
        first, (_, last) = RANGES[name][0], RANGES[name]
        divisors = [a for a in range(1, last - first + 1) if (value - first) % a == 0] or [1]
        return f"*/{rng.choice(divisors[:40])}"
    return "*"


def _range(rng, name, value):
    low, high = RANGES[name]
    if name == "year":
        low, high = max(low, value - 5), value + 5
    first, last = rng.randint(low, value), rng.randint(value, high)
    if rng.random() < 0.5 or first == last:
        return f"{first}-{last}"
    steps = [a for a in range(1, last - first + 1) if (value - first) % a == 0]
    if not steps:
        return f"{first}-{last}"
    step = rng.choice(steps)
    return f"{first}-{last}/{step}" if rng.random() < 0.6 else f"{first}/{step}"


def _names(rng, name, value):
    names, base = NAMES[name]
    if rng.random() < 0.5:
        return names[value - base]
    first, last = rng.randint(0, value - base), rng.randint(value - base, len(names) - 1)
    return f"{names[first]}-{names[last]}"


def _place_of_weekday(rng, local):
    """`3rd fri`, `last fri` or `last`."""
    if local is None or rng.random() < 0.2:
        place = rng.choice([*ORDINALS, "last"])
        return "last" if rng.random() < 0.3 else f"{place} {rng.choice(WEEKDAYS)}"
    days = monthrange(local.year, local.month)[1]
    weekday, gap = WEEKDAYS[local.weekday()], " " * rng.choice([1, 1, 1, 2])
    if local.day == days and rng.random() < 0.6:
        return "last"
    if local.day + 7 > days and rng.random() < 0.5:
        return f"last{gap}{weekday}"
    return f"{ORDINALS[(local.day - 1) // 7]}{gap}{weekday}"
