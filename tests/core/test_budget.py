"""Budgets: what a limit's value means, and how near its uses came to it."""

from __future__ import annotations

import pytest

from tightship.budget import DEFAULTS, Budget, Budgets, seconds_value, summarize
from tightship.config import ConfigError


def uses(*seconds, name="http", limit=10.0):
    return [(name, limit, s, f"test_{s:g}") for s in seconds]


# -- values ------------------------------------------------------------------------------


def test_the_box_has_five():
    """Their names and seconds are part of the interface."""
    assert dict(DEFAULTS) == {
        "admin": 5,
        "http": 10,
        "database": 10,
        "workflow": 15,
        "check": 30,
    }


@pytest.mark.parametrize("value", [3, 0.5])
def test_a_number_is_seconds(value):
    """With the place it came from."""
    assert Budgets().resolve(value, "here") == Budget(value, "", "here")


def test_a_name_is_looked_up():
    """In the box, or in the table that is laid over it."""
    budgets = Budgets({"search": 2.5, "http": 3}, places={"search": "a.toml", "http": "b.toml"})
    assert budgets.resolve("search", "here") == Budget(2.5, "search", "a.toml")
    assert budgets.resolve("http", "here") == Budget(3, "http", "b.toml")
    assert budgets.resolve("admin", "here") == Budget(5, "admin", "built in")


@pytest.mark.parametrize("value", ["off", False])
def test_off_is_no_limit(value):
    """By either spelling."""
    assert Budgets().resolve(value, "here") is None


def test_one_factor_scales_all():
    """Numbers and names alike."""
    budgets = Budgets({"search": 2}, scale=3)
    assert budgets.resolve(1, "here").seconds == 3
    assert budgets.resolve("search", "here").seconds == 6
    assert budgets.resolve("admin", "here").seconds == 15


def test_a_resolved_budget_is_not_scaled_again():
    """It can be handed on."""
    budget = Budgets(scale=2).resolve(1, "here")
    assert Budgets(scale=2).resolve(budget, "there") is budget


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, None, [1], b"http"])
def test_what_is_no_time_is_refused(value):
    """With its place."""
    with pytest.raises(ConfigError, match=r"^here: expected (seconds|more than 0 seconds)"):
        Budgets().resolve(value, "here")


def test_an_unknown_name_is_refused_with_the_nearest():
    """Those of the table count."""
    with pytest.raises(ConfigError, match="here: unknown budget 'serch'; did you mean 'search'"):
        Budgets({"search": 2}).resolve("serch", "here")
    with pytest.raises(ConfigError, match="unknown budget 'databse'; did you mean 'database'"):
        Budgets().resolve("databse", "here")


def test_seconds_as_they_are():
    """A whole number becomes a float."""
    assert seconds_value(3, "here") == 3.0
    assert isinstance(seconds_value(3, "here"), float)


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (Budget(3.0), "3 s"),
        (Budget(0.25, "", "a.toml"), "0.25 s (a.toml)"),
        (Budget(10.0, "http", "built in"), "budget 'http' of 10 s (built in)"),
    ],
)
def test_a_budget_in_words(budget, text):
    """Its name, its seconds, its place."""
    assert str(budget) == text


# -- statistics ---------------------------------------------------------------------------


def test_no_uses_no_statistics():
    """Nothing to say."""
    assert summarize([]) == []


def test_one_use():
    """All figures are that one."""
    (one,) = summarize(uses(2))
    assert (one.name, one.seconds, one.uses) == ("http", 10, 1)
    assert (one.p50, one.p95, one.longest) == (2, 2, 2)
    assert one.share == 0.2
    assert one.nearest == "test_2"
    assert one.missed == 0
    assert one.suggestion is None
    assert str(one).startswith("budget 'http' (10 s) used once: ")


def test_percentiles_are_of_real_uses():
    """Half and 95 % of all are no longer than these."""
    (hundred,) = summarize(uses(*range(1, 101), limit=200.0))
    assert (hundred.p50, hundred.p95, hundred.longest) == (50, 95, 100)
    assert hundred.nearest == "test_100"


def test_the_order_of_uses_does_not_matter():
    """They are sorted here."""
    assert summarize(uses(3, 1, 2)) == summarize(uses(1, 2, 3))


def test_each_limit_of_a_name_is_told_apart():
    """A scaled run in one worker is another limit."""
    found = summarize([*uses(1), *uses(1, limit=20.0), *uses(1, name="admin")])
    assert [(s.name, s.seconds) for s in found] == [("admin", 10), ("http", 10), ("http", 20)]


def test_those_that_went_over_are_counted():
    """And no better limit is spoken of: what was stopped says nothing of its length."""
    (found,) = summarize(uses(1, 1, 1, 1, 10.02, 11))
    assert found.missed == 2
    assert found.suggestion is None
    assert "; 2 went over it" in str(found)


@pytest.mark.parametrize(
    ("longest", "suggestion"),
    [
        (0.01, 0.5),  # never less: machines stall
        (0.3, 1.0),
        (1.2, 5.0),
        (2.0, None),  # 10 is what one would choose
        (6.9, None),
        (7.5, 50.0),  # near enough to flake
    ],
)
def test_a_better_limit_is_three_times_the_longest_rounded_up(longest, suggestion):
    """To 1, 2 or 5 times a power of ten, if that differs enough."""
    (found,) = summarize(uses(*[longest] * 5))
    assert found.suggestion == suggestion
    assert (f"; {suggestion:g} s would do" in str(found)) if suggestion else True


def test_too_few_uses_suggest_nothing():
    """Four could be a coincidence."""
    (found,) = summarize(uses(*[0.01] * 4))
    assert found.suggestion is None
