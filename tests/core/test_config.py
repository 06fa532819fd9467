"""Where settings come from, and what is said about wrong ones."""

from datetime import date
from pathlib import Path

import pytest

from tightship.config import (
    OPTIONS,
    AllowRule,
    Config,
    ConfigError,
    from_marker,
    load,
    parse_selector,
)

KINDS = ("task", "socket", "thread", "lamp")
TODAY = date(2027, 1, 31)


def read(root, text=None, *, own=None, env=None, cli=None):
    if text is not None:
        Path(root, "pyproject.toml").write_text(text)
    if own is not None:
        Path(root, "tightship.toml").write_text(own)
    return load(Path(root), env=env or {}, cli=cli or {}, kinds=KINDS, today=TODAY)


def marker(*args, **kwargs):
    return from_marker(args, kwargs, kinds=KINDS, where="t.py::test_a", today=TODAY)


# -- every option from every source ------------------------------------------------------

CASES = {
    "enabled": ("enabled = false", "TIGHTSHIP", "off", False, False),
    "threshold": ('threshold = "proven"', "TIGHTSHIP_THRESHOLD", "proven", ["proven"], "proven"),
    "grace": ("grace = 2", "TIGHTSHIP_GRACE", "2", 2.0, 2.0),
    "journal": ('journal = "j.jsonl"', "TIGHTSHIP_JOURNAL", "j.jsonl", "j.jsonl", "j.jsonl"),
    "known": ("known = false", "TIGHTSHIP_KNOWN", "no", False, False),
    "fail_on_fault": ("fail_on_fault = true", "TIGHTSHIP_FAIL_ON_FAULT", "1", True, True),
    "max_findings": ("max_findings = 3", "TIGHTSHIP_MAX_FINDINGS", "3", 3, 3),
    "blocked": ('blocked = "fail"', "TIGHTSHIP_BLOCKED", "fail", "fail", "fail"),
    "blocked_limit": ("blocked_limit = 1", "TIGHTSHIP_BLOCKED_LIMIT", "1", 1.0, 1.0),
    "forecast": ("forecast = false", "TIGHTSHIP_FORECAST", "off", False, False),
}
#: Options of time, which have tests of their own below.
TIMES = ("timeout", "timeouts", "budgets", "timeout_scale")
HEAD = "[tool.tightship]\n"


def test_nothing_given_is_the_default(tmp_path):
    """And nothing is claimed about where it came from."""
    config = read(tmp_path)
    # The limits of time are resolved here; they have tests of their own below.
    assert config._replace(timeouts={}, budgets=None) == Config(timeouts={}, budgets=None)
    assert config.source("grace") == "the default"


@pytest.mark.parametrize("key", CASES)
def test_pyproject_sets(tmp_path, key):
    """From ``[tool.tightship]``, with its place."""
    toml, *_, wanted = CASES[key]
    config = read(tmp_path, HEAD + toml)
    assert getattr(config, key) == wanted != getattr(Config(), key)
    assert config.source(key) == f"pyproject.toml [tool.tightship] {key}"


@pytest.mark.parametrize("key", CASES)
def test_a_file_of_its_own_sets(tmp_path, key):
    """From the top level of ``tightship.toml``."""
    toml, *_, wanted = CASES[key]
    config = read(tmp_path, own=toml)
    assert getattr(config, key) == wanted
    assert config.source(key) == f"tightship.toml {key}"


@pytest.mark.parametrize("key", CASES)
def test_the_environment_sets(tmp_path, key):
    """As text."""
    _, name, text, _, wanted = CASES[key]
    config = read(tmp_path, env={name: text, "PATH": "/bin"})
    assert getattr(config, key) == wanted
    assert config.source(key) == f"environment {name}"


@pytest.mark.parametrize("key", CASES)
def test_the_command_line_sets(tmp_path, key):
    """As a value, or as the text that a parser passes on."""
    _, _, text, value, wanted = CASES[key]
    assert getattr(read(tmp_path, cli={key: value}), key) == wanted
    config = read(tmp_path, cli={key: text})
    assert getattr(config, key) == wanted
    assert config.source(key).startswith("command line --tightship")


@pytest.mark.parametrize("key", CASES)
def test_what_was_not_given_on_the_command_line_shadows_nothing(tmp_path, key):
    """None is "not given", whatever the weaker sources say."""
    toml, name, text, _, wanted = CASES[key]
    assert getattr(read(tmp_path, HEAD + toml, cli={key: None}), key) == wanted
    Path(tmp_path, "pyproject.toml").unlink()
    assert getattr(read(tmp_path, env={name: text}, cli={key: None}), key) == wanted


def test_a_stronger_source_wins(tmp_path):
    """File, environment, command line, in that order."""
    given = {"text": HEAD + "grace = 1.5"}
    assert read(tmp_path, **given).grace == 1.5
    given["env"] = {"TIGHTSHIP_GRACE": "2.5"}
    assert read(tmp_path, **given).grace == 2.5
    given["cli"] = {"grace": 3.5}
    assert read(tmp_path, **given).grace == 3.5


@pytest.mark.parametrize("text", ["on", "TRUE", "yes", "1"])
def test_a_switch_has_many_spellings_for_on(tmp_path, text):
    """As environments do."""
    assert read(tmp_path, HEAD + "enabled = false", env={"TIGHTSHIP": text}).enabled


def test_an_empty_variable_is_not_given(tmp_path):
    """Many shells cannot unset."""
    assert read(tmp_path, HEAD + "grace = 2", env={"TIGHTSHIP_GRACE": ""}).grace == 2


def test_every_option_is_tested_here():
    """A new option needs a row above, or a test of its own below."""
    assert {o.key for o in OPTIONS} == {*CASES, "thresholds", "allow", *TIMES}
    assert all(o.meaning for o in OPTIONS)


# -- limits of time ----------------------------------------------------------------------


def limits(config):
    """Phase -> seconds, for those that are limited."""
    return {k: b.seconds for k, b in config.timeouts.items() if b is not None}


def test_a_test_and_the_end_are_limited_if_nobody_says_so(tmp_path):
    """Nothing hangs for ever; all else is up to people."""
    config = read(tmp_path)
    assert limits(config) == {"test": 600, "exit": 60}
    assert set(config.timeouts) == {
        *("test", "setup", "call", "teardown", "fixture", "session", "exit")
    }
    assert config.timeouts["test"].where == "the default"
    assert config.budgets.table["admin"] == 5


TIMEOUT_SOURCES = {
    "pyproject": {"text": HEAD + "timeout = 3"},
    "own": {"own": "timeout = 3"},
    "environment": {"env": {"TIGHTSHIP_TIMEOUT": "3"}},
    "command line": {"cli": {"timeout": ["3"]}},
}


@pytest.mark.parametrize(
    ("source", "where"),
    [
        ("pyproject", "pyproject.toml [tool.tightship] timeout"),
        ("own", "tightship.toml timeout"),
        ("environment", "environment TIGHTSHIP_TIMEOUT"),
        ("command line", "command line --tightship-timeout"),
    ],
)
def test_a_timeout_is_read_from_every_source(tmp_path, source, where):
    """It limits a test, and knows its place."""
    config = read(tmp_path, **TIMEOUT_SOURCES[source])
    assert config.timeouts["test"] == (3, "", where)


def test_a_stronger_source_of_timeouts_wins(tmp_path):
    """Phase by phase."""
    text = HEAD + "timeout = 1\n[tool.tightship.timeouts]\ncall = 2\nteardown = 3\n"
    config = read(tmp_path, text, env={"TIGHTSHIP_TIMEOUT": "call=4"}, cli={"timeout": ["9"]})
    assert limits(config) == {"test": 9, "call": 4, "teardown": 3, "exit": 60}


def test_a_table_limits_phases(tmp_path):
    """Each value knows its line."""
    text = HEAD + "[tool.tightship.timeouts]\nfixture = 2\nsession = 900\nexit = 'off'\n"
    config = read(tmp_path, text)
    assert limits(config) == {"test": 600, "fixture": 2, "session": 900}
    assert config.timeouts["fixture"].where == "pyproject.toml [tool.tightship.timeouts] fixture"


@pytest.mark.parametrize("given", ["30,teardown=5,fixture=admin", "fixture=admin, 30 ,teardown=5"])
def test_one_text_limits_several_phases(tmp_path, given):
    """For environments, which have no tables."""
    config = read(tmp_path, env={"TIGHTSHIP_TIMEOUT": given})
    assert limits(config) == {"test": 30, "teardown": 5, "fixture": 5, "exit": 60}


def test_the_command_line_may_say_it_several_times(tmp_path):
    """The last one counts for each phase."""
    config = read(tmp_path, cli={"timeout": ["1", "call=2", "3"]})
    assert limits(config) == {"test": 3, "call": 2, "exit": 60}


def test_timeouts_can_be_off(tmp_path):
    """From the weakest source to the strongest."""
    assert limits(read(tmp_path, HEAD + "timeout = 'off'")) == {"exit": 60}
    assert limits(read(tmp_path, cli={"timeout": ["off", "exit=off"]})) == {}


def test_budgets_are_named_in_a_table(tmp_path):
    """They change the box and add to it, and every source may name them."""
    text = HEAD + "timeout = 'search'\n[tool.tightship.budgets]\nsearch = 2.5\nhttp = 4\n"
    config = read(tmp_path, text, env={"TIGHTSHIP_TIMEOUT": "call=http"})
    place = "pyproject.toml [tool.tightship.budgets]"
    assert config.timeouts["test"] == (2.5, "search", f"{place} search")
    assert config.timeouts["call"] == (4, "http", f"{place} http")
    assert config.budgets.table["admin"] == 5


@pytest.mark.parametrize(
    "given",
    [
        {"text": HEAD + "timeout_scale = 2"},
        {"env": {"TIGHTSHIP_TIMEOUT_SCALE": "2"}},
        {"cli": {"timeout_scale": "2"}},
        {"cli": {"timeout_scale": 2.0}},
    ],
)
def test_one_factor_scales_them_all(tmp_path, given):
    """The defaults as well."""
    config = read(tmp_path, **given)
    assert limits(config) == {"test": 1200, "exit": 120}
    assert config.budgets.resolve("admin", "").seconds == 10


@pytest.mark.parametrize(
    "given", [{"env": {"TIGHTSHIP_TIMEOUT": "30!"}}, {"cli": {"timeout": ["30!"]}}]
)
def test_a_mark_of_exclamation_beats_the_markers(tmp_path, given):
    """The seconds are those of the run, as they stand."""
    config = read(tmp_path, HEAD + "timeout_scale = 3\ntimeout = 1", **given)
    assert config.budgets.override.seconds == 30
    assert config.timeouts["test"] == config.budgets.override


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "timeout = -1",
            "[tool.tightship] timeout: expected more than 0 seconds, or 'off', got -1",
        ),
        ("timeout = true", "timeout: expected seconds, or 'off', got True"),
        ("timeout = 'databse'", "unknown budget 'databse'; did you mean 'database'"),
        ("timeouts = 3", "timeouts: expected a table of phase to seconds"),
        ("timeouts = {cal = 3}", "timeouts: unknown phase 'cal'; did you mean 'call'"),
        ("timeouts = {call = 0}", "timeouts] call: expected more than 0 seconds"),
        ("budgets = 3", "budgets: expected a table of name to seconds, got 3"),
        ("budgets = {http = 'x'}", "budgets] http: expected seconds"),
        ("budgets = {http = 'off'}", "budgets] http: expected seconds, got 'off'"),
        ("budgets = {http = -2}", "budgets] http: expected more than 0 seconds"),
        ("budgets = {'a b' = 2}", "budgets] a b: a budget's name is a word, got 'a b'"),
        ("budgets = {off = 2}", "budgets] off: a budget's name is a word, got 'off'"),
        ("budgets = {http = 1}\ntimeout = 'htp'", "unknown budget 'htp'; did you mean 'http'"),
        ("timeout_scale = 0", "timeout_scale: "),
        ("timeout_scale = 'fast'", "timeout_scale: "),
        ("timout = 3", "unknown option 'timout'; did you mean 'timeout'"),
    ],
)
def test_a_wrong_limit_in_a_file_is_named_with_its_place(tmp_path, text, message):
    """And with the nearest match."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, HEAD + text)
    assert message in str(caught.value)
    assert str(caught.value).startswith("pyproject.toml [tool.tightship")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("abc", "unknown budget 'abc'"),
        ("databse", "unknown budget 'databse'; did you mean 'database'"),
        ("cal=3", "unknown phase 'cal'; did you mean 'call'"),
        ("3,4", "'3,4' gives 'test' two timeouts"),
        ("call=3!", "only a test's timeout can beat the markers"),
        ("http!", "expected seconds"),
        ("off!", "expected seconds and !, got 'off!'"),
        ("!", "expected seconds"),
        ("0", "expected more than 0 seconds"),
        ("nan", "expected more than 0 seconds"),
        ("inf!", "expected more than 0 seconds"),
        ("call=", "unknown budget ''"),
    ],
)
def test_a_wrong_limit_in_a_text_is_named_with_its_place(tmp_path, text, message):
    """In the environment and on the command line."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, env={"TIGHTSHIP_TIMEOUT": text})
    assert str(caught.value).startswith("environment TIGHTSHIP_TIMEOUT: ")
    assert message in str(caught.value)
    with pytest.raises(ConfigError, match=r"^command line --tightship-timeout: "):
        read(tmp_path, cli={"timeout": [text]})


# -- thresholds of single kinds ----------------------------------------------------------


def test_a_table_sets_thresholds_of_kinds(tmp_path):
    """With the place of each."""
    config = read(tmp_path, '[tool.tightship.thresholds]\nsocket = "off"')
    assert config.thresholds == {"socket": "off"}
    assert config.source("thresholds.socket") == (
        "pyproject.toml [tool.tightship.thresholds] socket"
    )


def test_a_table_in_a_file_of_its_own_sets_thresholds_of_kinds(tmp_path):
    """The same without the prefix."""
    config = read(tmp_path, own='[thresholds]\nlamp = "possible"')
    assert config.thresholds == {"lamp": "possible"}
    assert config.source("thresholds.lamp") == "tightship.toml [thresholds] lamp"


def test_the_environment_sets_both_in_one_text(tmp_path):
    """``strong,socket=off,task=proven``."""
    env = {"TIGHTSHIP_THRESHOLD": "possible, socket=off, task=proven"}
    config = read(tmp_path, env=env)
    assert config.threshold == "possible"
    assert config.thresholds == {"socket": "off", "task": "proven"}


def test_the_command_line_sets_both_one_by_one(tmp_path):
    """Later words win: those in ``addopts`` come first."""
    given = ["proven", "socket=off", "possible", "socket=strong"]
    config = read(tmp_path, cli={"threshold": given})
    assert (config.threshold, config.thresholds) == ("possible", {"socket": "strong"})


def test_thresholds_of_kinds_from_several_sources_are_laid_over_each_other(tmp_path):
    """A stronger source replaces only what it names."""
    text = '[tool.tightship.thresholds]\nsocket = "off"\ntask = "off"'
    config = read(tmp_path, text, env={"TIGHTSHIP_THRESHOLD": "task=proven"})
    assert config.thresholds == {"socket": "off", "task": "proven"}


# -- rules -------------------------------------------------------------------------------

RULE = """
[[tool.tightship.allow]]
what = "task:poll_*"
reason = "ends with the process"
until = {until}
tests = {tests}
count = 3
"""


@pytest.mark.parametrize("until", ["2027-02-01", '"2027-02-01"'], ids=["date", "text"])
@pytest.mark.parametrize("tests", ['"t.py::*"', '["t.py::*"]'], ids=["one", "list"])
def test_a_rule_is_read_with_all_its_parts(tmp_path, until, tests):
    """Dates and lists in both spellings."""
    [rule] = read(tmp_path, RULE.format(until=until, tests=tests)).allow
    assert rule == AllowRule(
        "task",
        "poll_*",
        "ends with the process",
        date(2027, 2, 1),
        ("t.py::*",),
        3,
        "pyproject.toml [[tool.tightship.allow]] #1",
    )


@pytest.mark.parametrize(("until", "expired"), [("2027-01-30", True), ("2027-01-31", False)])
def test_a_rule_holds_through_its_last_day(tmp_path, until, expired):
    """An expired one is kept, so that it can be named."""
    [rule] = read(tmp_path, RULE.format(until=until, tests='"*"')).allow
    assert rule.expired is expired


def test_a_rule_on_the_command_line_comes_before_those_of_the_file(tmp_path):
    """The closest is asked first; none is lost."""
    config = read(
        tmp_path,
        RULE.format(until="2028-01-01", tests='"*"'),
        cli={"allow": ["socket:tcp*=see a=b"]},
    )
    assert [(r.selector, r.reason) for r in config.allow] == [
        ("socket:tcp*", "see a=b"),
        ("task:poll_*", "ends with the process"),
    ]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("task:poll_*", ("task", "poll_*")),
        ("task", ("task", "*")),
        ("*:poll", ("*", "poll")),
        ("socket: a:b ", ("socket", "a:b")),
    ],
)
def test_a_selector_is_kind_and_label(text, parts):
    """A kind alone means all of its labels."""
    assert parse_selector(text, KINDS, "here") == parts


@pytest.mark.parametrize("text", ["soket:x", "task:", "", 3, None])
def test_a_selector_that_names_nothing_is_refused(text):
    """With the place it came from."""
    with pytest.raises(ConfigError, match=r"^here: "):
        parse_selector(text, KINDS, "here")


# -- wrong settings ----------------------------------------------------------------------

ALLOW = "[[tool.tightship.allow]]\n"
WRONG = {
    "key": (
        HEAD + "gracee = 1",
        "tool.tightship] gracee: unknown option 'gracee'; did you mean 'grace'",
    ),
    "level": (
        HEAD + 'threshold = "stong"',
        "] threshold: unknown threshold 'stong'; did you mean 'strong'",
    ),
    "level type": (
        HEAD + "threshold = 3",
        "expected one of off, proven, strong, possible, got 3 (int)",
    ),
    "kind": (
        '[tool.tightship.thresholds]\nsoket = "off"',
        "unknown kind 'soket'; did you mean 'socket'",
    ),
    "kind's level": (
        '[tool.tightship.thresholds]\nsocket = "of"',
        "thresholds] socket: unknown threshold 'of'",
    ),
    "kinds' type": (HEAD + 'thresholds = "off"', "expected a table of kind to threshold"),
    "bool for number": (
        HEAD + "grace = true",
        "grace: expected a number of seconds, 0 or more, got True (bool)",
    ),
    "negative": (HEAD + "grace = -1", "0 or more, got -1"),
    "endless": (HEAD + "grace = inf", "0 or more, got inf"),
    "bool for count": (
        HEAD + "max_findings = true",
        "expected a whole number, 1 or more, got True",
    ),
    "zero": (HEAD + "max_findings = 0", "1 or more, got 0"),
    "float for count": (HEAD + "max_findings = 1.5", "got 1.5 (float)"),
    "int for bool": (HEAD + "known = 1", "known: expected true or false, got 1 (int)"),
    "text for bool": (HEAD + 'enabled = "on"', "enabled: expected true or false, got 'on'"),
    "path": (HEAD + "journal = 3", "journal: expected the path of a file"),
    "empty path": (HEAD + 'journal = ""', "journal: expected the path of a file"),
    "section": ("tool.tightship = 3", "[tool.tightship]: expected a table, got 3"),
    "one table": ('[tool.tightship.allow]\nwhat = "task"', "each under [[tool.tightship.allow]]"),
    "list of text": (HEAD + 'allow = ["task"]', "#1: expected a table with what and reason"),
    "rule's key": (
        ALLOW + 'what="task"\nreson="x"',
        "#1: unknown key 'reson'; did you mean 'reason'",
    ),
    "no what": (ALLOW + 'reason = "x"', "#1: does not say what it allows"),
    "no reason": (ALLOW + 'what = "task:x"', "#1: 'task:x' is allowed without a reason"),
    "empty reason": (ALLOW + 'what = "task:x"\nreason = " "', "#1 reason: expected a sentence"),
    "rule's kind": (
        ALLOW + 'what = "tsk:x"\nreason = "x"',
        "unknown kind 'tsk'; did you mean 'task'",
    ),
    "date": (
        ALLOW + 'what="task"\nreason="x"\nuntil="soon"',
        "#1 until: expected a date as YYYY-MM-DD",
    ),
    "time": (
        ALLOW + 'what="task"\nreason="x"\nuntil=2027-01-01T00:00:00',
        "#1 until: expected a date",
    ),
    "tests": (ALLOW + 'what="task"\nreason="x"\ntests=[]', "#1 tests: expected a node id pattern"),
    "bool count": (
        ALLOW + 'what="task"\nreason="x"\ncount=true',
        "#1 count: expected a whole number",
    ),
    "second rule": (
        ALLOW + 'what="task"\nreason="x"\n' + ALLOW + 'what="x"',
        "#2: unknown kind 'x'",
    ),
    "syntax": (HEAD + "grace = ", "pyproject.toml: is not valid TOML: "),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_in_a_file_is_named_with_its_place(tmp_path, name):
    """Value, place, what would be valid."""
    text, message = WRONG[name]
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)
    assert str(caught.value).startswith("pyproject.toml")


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            {"TIGHTSHIP_GRAC": "1"},
            "unknown variable 'TIGHTSHIP_GRAC'; did you mean 'TIGHTSHIP_GRACE'",
        ),
        ({"TIGHTSHIP": "onn"}, "environment TIGHTSHIP: unknown switch 'onn'; did you mean 'on'"),
        ({"TIGHTSHIP_GRACE": "soon"}, "environment TIGHTSHIP_GRACE: expected a number"),
        ({"TIGHTSHIP_GRACE": "nan"}, "environment TIGHTSHIP_GRACE: expected a number"),
        ({"TIGHTSHIP_MAX_FINDINGS": "0"}, "expected a whole number, 1 or more, got '0'"),
        ({"TIGHTSHIP_THRESHOLD": "storng"}, "unknown threshold 'storng'; did you mean 'strong'"),
        ({"TIGHTSHIP_THRESHOLD": "soket=off"}, "unknown kind 'soket'; did you mean 'socket'"),
        ({"TIGHTSHIP_THRESHOLD": "off,strong"}, "gives two thresholds for all kinds"),
        ({"TIGHTSHIP_THRESHOLD": "task=off,task=strong"}, "names 'task' twice"),
    ],
)
def test_a_wrong_variable_is_named_with_its_place(tmp_path, env, message):
    """Other variables are nobody's business."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, env={"HOME": "/", "TIGHTSHIPS": "1", **env})
    assert message in str(caught.value)
    assert str(caught.value).startswith("environment TIGHTSHIP")


@pytest.mark.parametrize(
    ("cli", "message"),
    [
        ({"gracee": 1}, "command line: unknown option 'gracee'; did you mean 'grace'"),
        ({"grace": "soon"}, "command line --tightship-grace: expected a number"),
        ({"max_findings": True}, "command line --tightship-max-findings: expected a whole"),
        ({"threshold": ["storng"]}, "--tightship-threshold: unknown threshold 'storng'"),
        ({"threshold": 3}, "--tightship-threshold: expected a list of strings"),
        ({"thresholds": {"socket": "of"}}, "--tightship-thresholds socket: unknown threshold"),
        ({"allow": ["task:x"]}, "'task:x' has no reason; write 'kind:label=reason'"),
        ({"allow": ["tsk:x=y"]}, "--tightship-allow: unknown kind 'tsk'; did you mean 'task'"),
    ],
)
def test_a_wrong_word_on_the_command_line_is_named_with_its_place(tmp_path, cli, message):
    """The option as it is typed."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, cli=cli)
    assert message in str(caught.value)


def test_settings_in_both_files_are_refused(tmp_path):
    """Neither is silently ignored."""
    with pytest.raises(ConfigError, match=r"both tightship\.toml and pyproject\.toml"):
        read(tmp_path, HEAD, own="")


def test_a_pyproject_of_others_does_not_matter(tmp_path):
    """Only a section of ours is in conflict with a file of ours."""
    assert read(tmp_path, "[tool.other]\ntightship = 1", own="grace = 2").grace == 2


def test_malformed_toml_is_named_with_the_parsers_line(tmp_path):
    """File, line and column."""
    with pytest.raises(ConfigError, match=r"^tightship\.toml: is not valid TOML: .*line 2"):
        read(tmp_path, own="grace = 1\ngrace =\n")


def test_a_file_that_is_not_text_is_named(tmp_path):
    """As one sentence, not as a decoder's traceback."""
    Path(tmp_path, "tightship.toml").write_bytes(b"journal = '\xff'")
    with pytest.raises(ConfigError, match=r"^tightship\.toml: is not UTF-8"):
        read(tmp_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    """A directory of that name, say."""
    Path(tmp_path, "tightship.toml").mkdir()
    with pytest.raises(ConfigError, match=r"^tightship\.toml: cannot be read: "):
        read(tmp_path)


# -- the marker --------------------------------------------------------------------------


def test_an_empty_marker_says_nothing():
    """None stands for what it does not say."""
    said = marker()
    assert (said.rules, said.threshold, said.thresholds) == ((), None, {})
    assert (said.enabled, said.grace) == (None, None)


def test_a_marker_allows_with_all_parts():
    """The reason, the day and the count hold for each selector."""
    said = marker(allow=["task:a", "socket"], reason="why", until="2027-01-01", count=2)
    assert [r.selector for r in said.rules] == ["task:a", "socket:*"]
    for rule in said.rules:
        assert (rule.reason, rule.until, rule.count) == ("why", date(2027, 1, 1), 2)
        assert rule.expired
        assert rule.where == "t.py::test_a"


def test_a_marker_takes_a_single_selector():
    """The line that a report prints, as it stands."""
    [rule] = marker(allow="task:poll", reason="...").rules
    assert rule.selector == "task:poll"


def test_a_marker_sets_the_general_threshold():
    """As a word."""
    assert marker(threshold="off").threshold == "off"


def test_a_marker_sets_thresholds_of_kinds():
    """As a dict."""
    assert marker(threshold={"lamp": "off"}).thresholds == {"lamp": "off"}


def test_a_marker_limits_a_test():
    """By seconds, by a budget's name, or not at all."""
    place = "t.py::test_a timeout"
    assert marker(timeout=3).timeouts == {"test": (3, "", place)}
    assert marker(timeout="admin").timeouts == {"test": (5, "admin", "built in")}
    assert marker(timeout="off").timeouts == {"test": None}


def test_a_marker_limits_phases():
    """Only those it names."""
    found = marker(timeout={"call": 3, "teardown": "off", "fixture": "admin"}).timeouts
    assert found == {
        "call": (3, "", "t.py::test_a timeout"),
        "teardown": None,
        "fixture": (5, "admin", "built in"),
    }


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-1, "t.py::test_a timeout: expected more than 0 seconds, or 'off', got -1"),
        (True, "expected seconds, or 'off', got True"),
        (None, "expected seconds, or 'off', got None"),
        ("databse", "t.py::test_a timeout: unknown budget 'databse'; did you mean 'database'"),
        ({"cal": 3}, "t.py::test_a timeout: unknown phase 'cal'; did you mean 'call'"),
        ({"session": 3}, "unknown phase 'session'"),
        ({"call": 0}, "expected more than 0 seconds"),
    ],
)
def test_a_wrong_limit_on_a_marker_is_named_with_its_test(value, message):
    """And with the nearest match."""
    with pytest.raises(ConfigError) as caught:
        marker(timeout=value)
    assert message in str(caught.value)


def test_a_marker_sets_enabled_and_grace():
    """False is something else than not given."""
    said = marker(enabled=False, grace=2)
    assert (said.enabled, said.grace) == (False, 2.0)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        (("task",), {}, "takes keywords only, got 'task'"),
        ((), {"alow": "task"}, "unknown keyword 'alow'; did you mean 'allow'"),
        ((), {"allow": "task"}, "'task' is allowed without a reason"),
        ((), {"allow": "task", "reason": ""}, "reason: expected a sentence"),
        ((), {"allow": [], "reason": "x"}, "allow: expected 'kind:label' or a list"),
        ((), {"allow": "tsk", "reason": "x"}, "unknown kind 'tsk'; did you mean 'task'"),
        ((), {"allow": 3, "reason": "x"}, "expected 'kind:label', got 3"),
        ((), {"reason": "x"}, "reason without allow says nothing"),
        (
            (),
            {"reason": "x", "until": "2027-01-01", "count": 1},
            "reason and until and count without",
        ),
        ((), {"allow": "task", "reason": "x", "until": "soon"}, "until: expected a date"),
        ((), {"allow": "task", "reason": "x", "count": True}, "count: expected a whole number"),
        ((), {"allow": "task", "reason": "x", "tests": "*"}, "unknown keyword 'tests'"),
        ((), {"threshold": "of"}, "threshold: unknown threshold 'of'; did you mean 'off'"),
        ((), {"threshold": {"soket": "off"}}, "unknown kind 'soket'; did you mean 'socket'"),
        ((), {"threshold": {"socket": "of"}}, "threshold socket: unknown threshold 'of'"),
        ((), {"enabled": 1}, "enabled: expected true or false"),
        ((), {"grace": True}, "grace: expected a number of seconds"),
    ],
)
def test_a_wrong_marker_is_named_with_its_test(args, kwargs, message):
    """One wrong marker is one clear error."""
    with pytest.raises(ConfigError) as caught:
        marker(*args, **kwargs)
    assert message in str(caught.value)
    assert str(caught.value).startswith("t.py::test_a")


def test_reading_settings_loads_no_parser_without_a_section():
    """Importing and loading stay light: ``tomllib`` and ``difflib`` come when needed."""
    import subprocess
    import sys

    code = (
        "import sys, pathlib, datetime\n"
        "from tightship import config, policy, known, fingerprint\n"
        "config.load(pathlib.Path('/nonexistent'), env={}, cli={}, kinds=(),"
        " today=datetime.date(2027, 1, 1))\n"
        "print([m for m in ('tomllib', 'difflib', 'asyncio', 'pytest') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
