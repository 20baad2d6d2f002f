"""The tests of APScheduler that are left out, each by its name and with its reason. All others have to pass."""

WRITTEN = "only how it is written out in Python"
PICKLE = "only Python's pickle"
RANDOM = "jitter is the scheduler's, not the trigger's"
CLOCK = "replaces Python's own clock"

# What is about Python and not about when a trigger fires.
PYTHON = {
    "3.11.3": {
        "test_calendarinterval.py::test_repr": WRITTEN,
        "test_combining.py::TestAndTrigger::test_repr": WRITTEN,
        "test_combining.py::TestAndTrigger::test_str": WRITTEN,
        "test_combining.py::TestAndTrigger::test_pickle": PICKLE,
        "test_combining.py::TestOrTrigger::test_repr": WRITTEN,
        "test_combining.py::TestOrTrigger::test_str": WRITTEN,
        "test_combining.py::TestOrTrigger::test_pickle": PICKLE,
        "test_cron.py::test_cron_zero_value": WRITTEN,
        "test_cron.py::test_pickle": PICKLE,
        "test_cron.py::test_jitter_produces_differrent_valid_results": RANDOM,
        "test_date.py::test_get_next_fire_time[pytz-current_time]": CLOCK,
        "test_date.py::test_get_next_fire_time[zoneinfo-current_time]": CLOCK,
        "test_date.py::test_repr": WRITTEN,
        "test_date.py::test_str": WRITTEN,
        "test_date.py::test_pickle": PICKLE,
        "test_interval.py::test_space_in_expr": WRITTEN,
        "test_interval.py::test_repr": WRITTEN,
        "test_interval.py::test_str": WRITTEN,
        "test_interval.py::test_pickle": PICKLE,
        "test_interval.py::test_jitter_produces_different_valid_results": RANDOM,
        "test_expressions.py::test_all_expression_repr": WRITTEN,
        "test_expressions.py::test_all_expression_step_repr": WRITTEN,
        "test_expressions.py::test_range_expression_repr": WRITTEN,
        "test_expressions.py::test_range_expression_single_repr": WRITTEN,
        "test_expressions.py::test_range_expression_step_repr": WRITTEN,
        "test_expressions.py::test_weekday_position_expression_repr": WRITTEN,
        "test_expressions.py::test_weekday_range_expression_repr": WRITTEN,
        "test_expressions.py::test_weekday_range_expression_single_repr": WRITTEN,
        "test_expressions.py::test_last_day_of_month_expression_invalid": WRITTEN,
    },
    "4.0.0a6": {
        "test_calendarinterval.py::test_repr": WRITTEN,
        "test_combining.py::TestAndTrigger::test_repr": WRITTEN,
        "test_combining.py::TestOrTrigger::test_repr": WRITTEN,
        "test_cron.py::test_zero_value": WRITTEN,
        "test_interval.py::test_repr": WRITTEN,
    },
}

EMPTY_CRON = "a cron trigger without a field is refused"
NO_LENGTH = "an interval without a length is refused"
MONDAY = "0 is Monday in cron as in 3.x, and Sunday only in crontab"

# Where Punctual differs on purpose.
ON_PURPOSE = {
    "3.11.3": {
        "test_cron.py::test_start_end_times_string": EMPTY_CRON,
        "test_interval.py::test_start_end_times_string": NO_LENGTH,
    },
    "4.0.0a6": {
        "test_cron.py::test_weekday_overlap[zoneinfo-None-numeric]": MONDAY,
        "test_cron.py::test_weekday_nomatch[zoneinfo-None-numeric]": MONDAY,
        "test_cron.py::test_week_2[zoneinfo-None-numeric]": MONDAY,
    },
}
