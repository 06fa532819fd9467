"""Configuration: what the user wants, validated, with the place that each value came from.

Sources in rising strength: ``tightship.toml`` or ``[tool.tightship]`` in ``pyproject.toml``,
the environment, the command line; a marker on a test is stronger still, and is read by
`from_marker`. A value that is wrong is a `ConfigError` which says value, place, what would be
valid, and the nearest match.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from .budget import PHASES, Budget, Budgets, seconds_value
from .rules import (
    THRESHOLDS,
    AllowRule,
    ConfigError,
    Threshold,
    blocked_or_limit,
    blocked_value,
    bool_text,
    bool_value,
    count_text,
    count_value,
    factor_text,
    factor_value,
    kind_value,
    label_matches,
    limit_text,
    limit_value,
    make_rule,
    number_text,
    number_value,
    parse_selector,
    path_value,
    threshold_value,
    wrong,
)
from .suggest import unknown

__all__ = [
    "MARKER",
    "OPTIONS",
    "THRESHOLDS",
    "AllowRule",
    "Config",
    "ConfigError",
    "MarkerPolicy",
    "Option",
    "Threshold",
    "from_marker",
    "label_matches",
    "load",
    "make_rule",
    "parse_selector",
]


class Config(NamedTuple):
    """All settings of a run."""

    enabled: bool = True
    threshold: Threshold = "strong"
    """The least certainty that fails a test; ``off``: not judged at all."""
    thresholds: Mapping[str, Threshold] = MappingProxyType({})
    """The same for single kinds; beats `threshold`, whichever source each came from."""
    allow: tuple[AllowRule, ...] = ()
    """The strongest source first."""
    grace: float = 1.0
    """Seconds: the cap of the time that survivors are given to go away."""
    journal: str | None = None
    """The journal's path; None for no journal."""
    known: bool = True
    """Whether the built-in list of known library behaviour is used."""
    fail_on_fault: bool = False
    """Whether a fault inside Tightship fails the run."""
    max_findings: int = 10
    """How many findings of a kind are shown for one test."""
    timeouts: Mapping[str, Budget | None] = MappingProxyType({})
    """Phase (as in `budget.PHASES`) -> its limit, None for no limit."""
    budgets: Budgets = Budgets()
    """The named limits."""
    blocked: str = "note"
    """What becomes of calls that hold a loop: ``off``, ``note``, ``fail`` or ``collect``."""
    blocked_limit: float = 0.1
    """Seconds from which on a call counts as holding the loop."""
    forecast: bool = True
    """Whether a loop that nothing can wake any more ends its test."""
    sources: Mapping[str, str] = MappingProxyType({})
    """Key -> the place its value came from (``thresholds.socket`` for a kind's)."""

    def source(self, key: str) -> str:
        """Return the place that a value came from, for a message."""
        return self.sources.get(key, "the default")


class MarkerPolicy(NamedTuple):
    """What one marker says; None and empty for what it doesn't."""

    where: str
    rules: tuple[AllowRule, ...] = ()
    threshold: Threshold | None = None
    thresholds: Mapping[str, Threshold] = MappingProxyType({})
    enabled: bool | None = None
    grace: float | None = None
    timeouts: Mapping[str, Budget | None] = MappingProxyType({})
    blocked: str | float | None = None
    """``off``, ``note`` or ``fail``, or the limit in seconds."""


# -- settings --------------------------------------------------------------------------


class Option(NamedTuple):
    """One setting, from which its readers and its documentation are made."""

    key: str
    """Its name in TOML and on the command line."""
    env: str
    """Its environment variable; empty if it has none."""
    meaning: str
    value: Callable[[object, str], Any] | None = None
    """Checks a typed value; None for those with a reader of their own."""
    text: Callable[[str, str], Any] | None = None
    """Reads a text."""


#: Every setting there is: help texts and parsers come from this one table.
OPTIONS: tuple[Option, ...] = (
    Option("enabled", "TIGHTSHIP", "look for leaks at all", bool_value, bool_text),
    Option(
        "threshold",
        "TIGHTSHIP_THRESHOLD",
        "least certainty that fails a test: off, proven, strong, possible; as text also for "
        "single kinds: strong,socket=off",
    ),
    Option("thresholds", "", "the same for single kinds (a table)"),
    Option("allow", "", "what may be left behind, and why"),
    Option(
        "grace",
        "TIGHTSHIP_GRACE",
        "seconds that survivors are given at most to go away",
        number_value,
        number_text,
    ),
    Option(
        "journal", "TIGHTSHIP_JOURNAL", "file for one JSON line per test", path_value, path_value
    ),
    Option(
        "known",
        "TIGHTSHIP_KNOWN",
        "use the built-in list of known library behaviour",
        bool_value,
        bool_text,
    ),
    Option(
        "fail_on_fault",
        "TIGHTSHIP_FAIL_ON_FAULT",
        "a fault inside Tightship fails the run",
        bool_value,
        bool_text,
    ),
    Option(
        "max_findings",
        "TIGHTSHIP_MAX_FINDINGS",
        "findings shown per kind and test",
        count_value,
        count_text,
    ),
    Option(
        "timeout",
        "TIGHTSHIP_TIMEOUT",
        "longest time for a test: seconds, the name of a budget, or off; as text also for "
        "single phases (30,teardown=5), and with ! to beat every marker (30!)",
    ),
    Option("timeouts", "", "the same for single phases (a table)"),
    Option("budgets", "", "seconds by name, for timeouts (a table)"),
    Option(
        "timeout_scale",
        "TIGHTSHIP_TIMEOUT_SCALE",
        "factor for all timeouts and budgets: 2 for a machine half as fast",
        factor_value,
        factor_text,
    ),
    Option(
        "blocked",
        "TIGHTSHIP_BLOCKED",
        "calls that hold an event loop: off, note, fail, or collect to list them all by line",
        blocked_value,
        blocked_value,
    ),
    Option(
        "blocked_limit",
        "TIGHTSHIP_BLOCKED_LIMIT",
        "seconds from which on a call counts as holding the loop",
        limit_value,
        limit_text,
    ),
    Option(
        "forecast",
        "TIGHTSHIP_FORECAST",
        "end a test at once when nothing can wake its event loop any more",
        bool_value,
        bool_text,
    ),
)

#: Keywords of the marker and what they mean.
MARKER: dict[str, str] = {
    "allow": "what may be left behind: 'kind:label', or a list of such",
    "reason": "why; goes with allow, and must be there",
    "until": "last day on which it is allowed, as 'YYYY-MM-DD'",
    "count": "at most that many findings",
    "threshold": "least certainty that fails the test, or a dict of kind to certainty",
    "enabled": "False: do not look at this test",
    "grace": "seconds that survivors are given at most to go away",
    "timeout": "longest time: seconds, a budget's name, 'off', or a dict of phase to such",
    "blocked": "calls that hold an event loop: 'off', 'note' or 'fail', or seconds from which on",
}

#: Phases that a marker on a test can limit.
_OF_A_TEST = ("test", "setup", "call", "teardown", "fixture")

_ALLOW_KEYS = ("what", "reason", "until", "tests", "count")


def _threshold_text(
    text: str, kinds: Collection[str], where: str
) -> tuple[Threshold | None, dict[str, Threshold]]:
    """Read ``strong,socket=off``: the general threshold and those of single kinds."""
    general: Threshold | None = None
    single: dict[str, Threshold] = {}
    for part in text.split(","):
        left, equals, right = (p.strip() for p in part.partition("="))
        if equals:
            kind_value(left, kinds, where)
            if left in single:
                raise ConfigError(f"{where}: {text!r} names {left!r} twice")
            single[left] = threshold_value(right, where)
        elif general is not None:
            raise ConfigError(f"{where}: {text!r} gives two thresholds for all kinds")
        else:
            general = threshold_value(left, where)
    return general, single


def _timeout_text(text: str, where: str) -> tuple[dict[str, object], float | None]:
    """Read ``30,teardown=5``: phase -> value; and seconds that beat everything (``30!``)."""
    found: dict[str, object] = {}
    forced: float | None = None
    for part in text.split(","):
        left, equals, right = (p.strip() for p in part.partition("="))
        phase, value = (left, right) if equals else ("test", left)
        if phase not in PHASES:
            raise ConfigError(f"{where}: {unknown(phase, PHASES, 'phase')}")
        if phase in found:
            raise ConfigError(f"{where}: {text!r} gives {phase!r} two timeouts")
        if value.endswith("!"):
            if equals:
                raise ConfigError(f"{where}: {part!r}: only a test's timeout can beat the markers")
            forced = seconds_value(_number(value[:-1]), where)
            if forced is None:
                raise wrong(where, "seconds and !", value)
            found[phase] = forced
        else:
            found[phase] = _number(value)
    return found, forced


def _number(text: str) -> object:
    """Return a number, or the text itself: the name of a budget."""
    try:
        return float(text)
    except ValueError:
        return text


def _timeout_table(value: object, phases: Collection[str], where: str) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise wrong(where, "a table of phase to seconds or the name of a budget", value)
    for phase in value:
        if phase not in phases:
            raise ConfigError(f"{where}: {unknown(phase, phases, 'phase')}")
    return dict(value)


def _threshold_table(
    value: object, kinds: Collection[str], where: str, at: Callable[[str], str]
) -> dict[str, Threshold]:
    if not isinstance(value, Mapping):
        raise wrong(where, "a table of kind to threshold", value)
    return {
        kind_value(str(kind), kinds, where): threshold_value(level, at(str(kind)))
        for kind, level in value.items()
    }


# -- sources -----------------------------------------------------------------------------


class _Draft:
    """The settings while sources are laid over each other, the weakest first."""

    def __init__(self, kinds: Collection[str], today: date) -> None:
        self.kinds = kinds
        self.today = today
        self.values: dict[str, Any] = {}
        self.thresholds: dict[str, Threshold] = {}
        self.allow: list[AllowRule] = []
        self.sources: dict[str, str] = {}
        self.timeouts: dict[str, tuple[object, str]] = {}
        self.budgets: dict[str, float] = {}
        self.forced: Budget | None = None

    def put(self, key: str, value: object, where: str) -> None:
        self.values[key] = value
        self.sources[key] = where

    def put_thresholds(self, table: Mapping[str, Threshold], at: Callable[[str], str]) -> None:
        for kind, level in table.items():
            self.thresholds[kind] = level
            self.sources[f"thresholds.{kind}"] = at(kind)

    def put_threshold_text(self, text: str, where: str) -> None:
        general, single = _threshold_text(text, self.kinds, where)
        if general is not None:
            self.put("threshold", general, where)
        self.put_thresholds(single, lambda _: where)

    def put_rules(self, rules: Sequence[AllowRule], where: str) -> None:
        # The stronger source speaks first: the closest rule wins.
        self.allow[:0] = rules
        if rules:
            self.sources["allow"] = where

    def put_timeouts(self, table: Mapping[str, object], at: Callable[[str], str]) -> None:
        for phase, value in table.items():
            self.timeouts[phase] = value, at(phase)

    def put_timeout_text(self, text: str, where: str) -> None:
        table, forced = _timeout_text(text, where)
        self.put_timeouts(table, lambda _: where)
        if forced is not None:
            self.forced = Budget(forced, "", where)

    def put_budgets(self, table: object, where: str, at: Callable[[str], str]) -> None:
        if not isinstance(table, Mapping):
            raise wrong(where, "a table of name to seconds", table)
        for name, value in table.items():
            if not str(name).isidentifier() or name == "off":
                raise ConfigError(f"{at(name)}: a budget's name is a word, got {name!r}")
            seconds = seconds_value(value, at(name))
            if seconds is None:
                raise wrong(at(name), "seconds", value)
            self.budgets[name] = seconds
            self.sources[f"budgets.{name}"] = at(name)

    def config(self) -> Config:
        values = dict(self.values)
        budgets = Budgets(
            self.budgets,
            values.pop("timeout_scale", 1.0),
            {n: self.sources[f"budgets.{n}"] for n in self.budgets},
            self.forced,
        )
        timeouts = {
            phase: None if default is None else budgets.resolve(default, "the default")
            for phase, (default, _) in PHASES.items()
        }
        for phase, (value, where) in self.timeouts.items():
            timeouts[phase] = budgets.resolve(value, where)
        if self.forced is not None:
            timeouts["test"] = self.forced
        return Config(
            **values,
            thresholds=self.thresholds,
            allow=tuple(self.allow),
            sources=self.sources,
            timeouts=timeouts,
            budgets=budgets,
        )


def load(
    rootdir: Path,
    *,
    env: Mapping[str, str],
    cli: Mapping[str, object],
    kinds: Collection[str],
    today: date,
) -> Config:
    """Read all sources and return the settings.

    Args:
        rootdir: where ``pyproject.toml`` and ``tightship.toml`` may be.
        env: the environment; only names that begin with ``TIGHTSHIP`` are looked at.
        cli: key -> value as in TOML, None for what was not given. ``threshold`` is a list of
            ``strong`` or ``socket=off``, ``allow`` a list of ``kind:label=reason``.
        kinds: every kind there is, those of other packages included.
        today: the day on which rules are judged.

    Raises:
        ConfigError: if anything in any source is wrong.
    """
    draft = _Draft(kinds, today)
    _read_files(draft, rootdir)
    _read_env(draft, env)
    _read_cli(draft, cli)
    return draft.config()


def _read_files(draft: _Draft, rootdir: Path) -> None:
    own = _toml(rootdir / "tightship.toml")
    project = _toml(rootdir / "pyproject.toml", "tightship")
    tool = project.get("tool") if project is not None else None
    section = tool.get("tightship") if isinstance(tool, dict) else None
    if own is not None and section is not None:
        raise ConfigError(
            "settings in both tightship.toml and pyproject.toml [tool.tightship]: keep one of them"
        )
    if own is not None:
        _read_table(draft, own, _Places("tightship.toml", ""))
    elif section is not None:
        if not isinstance(section, dict):
            raise wrong("pyproject.toml [tool.tightship]", "a table", section)
        _read_table(draft, section, _Places("pyproject.toml", "tool.tightship"))


def _toml(path: Path, word: str = "") -> dict[str, Any] | None:
    """Return a file's content; None if there is no such file, or ``word`` is not in it."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ConfigError(f"{path.name}: cannot be read: {exc.strerror}") from exc
    if word and word.encode() not in data:
        return None  # saves the parser's import; other people's mistakes are not ours to tell
    import tomllib

    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path.name}: is not UTF-8: {exc}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path.name}: is not valid TOML: {exc}") from exc


class _Places:
    """Names places in one TOML file."""

    def __init__(self, file: str, prefix: str) -> None:
        self.file = file
        self.prefix = prefix

    def key(self, key: str, *tables: str) -> str:
        table = ".".join(filter(None, (self.prefix, *tables)))
        return f"{self.file} [{table}] {key}" if table else f"{self.file} {key}"

    def array(self, name: str, number: int) -> str:
        return f"{self.file} [[{'.'.join(filter(None, (self.prefix, name)))}]] #{number}"


def _read_table(draft: _Draft, table: Mapping[str, Any], places: _Places) -> None:
    options = {option.key: option for option in OPTIONS}
    rules: list[AllowRule] = []
    for key, value in table.items():
        where = places.key(key)
        if key not in options:
            raise ConfigError(f"{where}: {unknown(key, options, 'option')}")
        check = options[key].value
        if check is not None:
            draft.put(key, check(value, where), where)
        elif key == "threshold":
            draft.put(key, threshold_value(value, where), where)
        elif key == "thresholds":

            def at(kind: str) -> str:
                return places.key(kind, "thresholds")

            draft.put_thresholds(_threshold_table(value, draft.kinds, where, at), at)
        elif key == "timeout":
            draft.put_timeouts({"test": value}, lambda _, where=where: where)  # type: ignore[misc]
        elif key == "timeouts":
            draft.put_timeouts(
                _timeout_table(value, PHASES, where), lambda p: places.key(p, "timeouts")
            )
        elif key == "budgets":
            draft.put_budgets(value, where, lambda n: places.key(n, "budgets"))
        else:
            rules = _toml_rules(draft, value, places)
            draft.put_rules(rules, where)


def _toml_rules(draft: _Draft, value: object, places: _Places) -> list[AllowRule]:
    if not isinstance(value, list):
        header = places.array("allow", 0).partition(" ")[2].removesuffix(" #0")
        raise wrong(places.key("allow"), f"tables, each under {header}", value)
    rules = []
    for number, entry in enumerate(value, 1):
        where = places.array("allow", number)
        if not isinstance(entry, dict):
            raise wrong(where, "a table with what and reason", entry)
        for key in entry:
            if key not in _ALLOW_KEYS:
                raise ConfigError(f"{where}: {unknown(key, _ALLOW_KEYS, 'key')}")
        if "what" not in entry:
            raise ConfigError(f"{where}: does not say what it allows; add what = 'kind:label'")
        rules.append(
            make_rule(entry["what"], entry, kinds=draft.kinds, where=where, today=draft.today)
        )
    return rules


def _read_env(draft: _Draft, env: Mapping[str, str]) -> None:
    options = {option.env: option for option in OPTIONS if option.env}
    for name, text in env.items():
        if name != "TIGHTSHIP" and not name.startswith("TIGHTSHIP_"):
            continue
        where = f"environment {name}"
        if name not in options:
            raise ConfigError(f"{where}: {unknown(name, options, 'variable')}")
        if not text.strip():
            continue  # how many shells and CI systems spell "not set"
        option = options[name]
        if option.text is not None:
            draft.put(option.key, option.text(text, where), where)
        elif option.key == "timeout":
            draft.put_timeout_text(text, where)
        else:
            draft.put_threshold_text(text, where)


def _read_cli(draft: _Draft, cli: Mapping[str, object]) -> None:
    options = {option.key: option for option in OPTIONS}
    for key, value in cli.items():
        if key not in options:
            raise ConfigError(f"command line: {unknown(key, options, 'option')}")
        if value is None:
            continue
        flag = "--tightship" if key == "enabled" else f"--tightship-{key.replace('_', '-')}"
        where = f"command line {flag}"
        option = options[key]
        if option.value is not None and option.text is not None:
            read = option.text if isinstance(value, str) else option.value
            draft.put(key, read(value, where), where)  # type: ignore[arg-type]
        elif key == "threshold":
            # One by one: of those in ``addopts`` and those typed, the last one counts.
            for text in _texts(value, where):
                draft.put_threshold_text(text, where)
        elif key == "thresholds":

            def at(kind: str, where: str = where) -> str:
                return f"{where} {kind}"

            draft.put_thresholds(_threshold_table(value, draft.kinds, where, at), at)
        elif key == "timeout":
            for text in _texts(value, where):
                draft.put_timeout_text(text, where)
        elif key == "timeouts":
            table = _timeout_table(value, PHASES, where)
            draft.put_timeouts(table, lambda p, where=where: f"{where} {p}")  # type: ignore[misc]
        elif key == "budgets":
            draft.put_budgets(value, where, lambda n, where=where: f"{where} {n}")  # type: ignore[misc]
        else:
            draft.put_rules([_cli_rule(draft, t, where) for t in _texts(value, where)], where)


def _texts(value: object, where: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, (list, tuple)) and all(isinstance(t, str) for t in texts):
        return list(texts)
    raise wrong(where, "a list of strings", value)


def _cli_rule(draft: _Draft, text: str, where: str) -> AllowRule:
    what, _, reason = text.partition("=")
    if not reason.strip():
        raise ConfigError(f"{where}: {text!r} has no reason; write 'kind:label=reason'")
    return make_rule(what, {"reason": reason}, kinds=draft.kinds, where=where, today=draft.today)


# -- the marker --------------------------------------------------------------------------


def from_marker(
    args: Sequence[object],
    kwargs: Mapping[str, object],
    *,
    kinds: Collection[str],
    where: str,
    today: date,
    budgets: Budgets | None = None,
) -> MarkerPolicy:
    """Return what ``@pytest.mark.tightship(...)`` says.

    Args:
        args: the marker's positional arguments: there are none.
        kwargs: its keywords, as in `MARKER`.
        kinds: every kind there is.
        where: the test it stands on, for messages.
        today: the day on which rules are judged.
        budgets: the named limits that ``timeout`` may name; those of the box if not given.

    Raises:
        ConfigError: if a keyword is unknown, a value is wrong, or ``reason``, ``until`` or
            ``count`` stand there without ``allow``.
    """
    if args:
        shown = ", ".join(repr(a) for a in args)
        raise ConfigError(
            f"{where}: the tightship marker takes keywords only, got {shown}. "
            f"Valid: {', '.join(MARKER)}"
        )
    for key in kwargs:
        if key not in MARKER:
            raise ConfigError(f"{where}: {unknown(key, MARKER, 'keyword')}")
    rules: tuple[AllowRule, ...] = ()
    if "allow" in kwargs:
        rules = tuple(
            make_rule(what, kwargs, kinds=kinds, where=where, today=today)
            for what in _selectors(kwargs["allow"], f"{where} allow")
        )
    elif lone := [key for key in ("reason", "until", "count") if key in kwargs]:
        raise ConfigError(f"{where}: {' and '.join(lone)} without allow says nothing")
    threshold: Threshold | None = None
    thresholds: dict[str, Threshold] = {}
    if "threshold" in kwargs:
        place = f"{where} threshold"
        value = kwargs["threshold"]
        if isinstance(value, Mapping):
            thresholds = _threshold_table(value, kinds, place, lambda kind: f"{place} {kind}")
        else:
            threshold = threshold_value(value, place)
    timeouts: dict[str, Budget | None] = {}
    if "timeout" in kwargs:
        place = f"{where} timeout"
        value = kwargs["timeout"]
        table = (
            _timeout_table(value, _OF_A_TEST, place)
            if isinstance(value, Mapping)
            else {"test": value}
        )
        known = budgets or Budgets()
        timeouts = {phase: known.resolve(v, place) for phase, v in table.items()}
    return MarkerPolicy(
        where,
        rules,
        threshold,
        thresholds,
        bool_value(kwargs["enabled"], f"{where} enabled") if "enabled" in kwargs else None,
        number_value(kwargs["grace"], f"{where} grace") if "grace" in kwargs else None,
        timeouts,
        blocked_or_limit(kwargs["blocked"], f"{where} blocked") if "blocked" in kwargs else None,
    )


def _selectors(value: object, where: str) -> Iterable[object]:
    if isinstance(value, (list, tuple)):
        if not value:
            raise wrong(where, "'kind:label' or a list of such", value)
        return value
    return (value,)
