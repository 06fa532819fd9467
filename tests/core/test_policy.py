"""What becomes of findings."""

import json
from datetime import date

import pytest

from tightship.config import AllowRule, Config, MarkerPolicy
from tightship.known import Known
from tightship.model import Certainty, Finding, Site, Verdict
from tightship.policy import Policy, group

NODE = "tests/test_shop.py::test_restock"


def make(kind="task", label="test_x.<locals>.poll", certainty=Certainty.STRONG, **changes):
    values = {
        "kind": kind,
        "label": label,
        "subject": "task 'poll'",
        "owner": "test_restock",
        "owner_kind": "test",
        "owner_scope": "function",
        "nodeid": NODE,
        "certainty": certainty,
    }
    return Finding(**{**values, **changes})


def rule(selector="task:poll", **changes):
    kind, _, label = selector.partition(":")
    return AllowRule(kind, label, "a reason", **{"where": "here", **changes})


def judge(*findings, config=None, markers=(), known=(), expectations=(), own_failure=False):
    policy = Policy(config or Config(), known)
    return policy.judge(
        findings or [make()],
        nodeid=NODE,
        markers=markers,
        expectations=expectations,
        own_failure=own_failure,
    )


def verdicts(*args, **kwargs):
    return [f.verdict for f in judge(*args, **kwargs)]


# -- thresholds --------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["proven", "strong", "possible"])
@pytest.mark.parametrize("certainty", list(Certainty))
def test_a_finding_fails_from_the_threshold_on(level, certainty):
    """At or above it fails, below it is noted."""
    wanted = certainty >= Certainty[level.upper()]
    assert verdicts(make(certainty=certainty), config=Config(threshold=level)) == [
        Verdict.FAIL if wanted else Verdict.NOTE
    ]


def test_a_note_names_the_threshold_and_where_it_was_set():
    """The reader learns which knob to turn, and keeps the reason for the certainty."""
    config = Config(threshold="proven", sources={"threshold": "tightship.toml threshold"})
    [note] = judge(make(reason="held by a global"), config=config)
    assert note.reason == (
        "held by a global; strong is below the threshold 'proven' (tightship.toml threshold)"
    )


def test_a_kind_that_is_off_is_dropped_and_its_neighbour_is_not():
    """A selector narrows: nothing else is switched off with it."""
    found = judge(make(), make(kind="socket"), config=Config(thresholds={"socket": "off"}))
    assert [f.kind for f in found] == ["task"]


@pytest.mark.parametrize(
    ("config", "markers", "level"),
    [
        (Config(), [], "strong"),
        (Config(threshold="proven"), [], "proven"),
        (Config(threshold="proven", thresholds={"task": "possible"}), [], "possible"),
        (Config(thresholds={"task": "off"}), [MarkerPolicy("m", threshold="proven")], "proven"),
        (
            Config(),
            [MarkerPolicy("m", threshold="proven", thresholds={"task": "possible"})],
            "possible",
        ),
        (
            Config(),
            [MarkerPolicy("near", threshold="off"), MarkerPolicy("far", threshold="proven")],
            "off",
        ),
        (Config(), [MarkerPolicy("m", thresholds={"socket": "off"})], "strong"),
    ],
)
def test_the_closest_threshold_counts(config, markers, level):
    """Marker before settings, a kind's own before the general one."""
    assert Policy(config).threshold("task", markers)[0] == level


def test_the_closest_marker_says_whether_and_how_long():
    """``enabled`` and ``grace`` of a marker beat the settings."""
    policy = Policy(Config(grace=2.0))
    near, far = MarkerPolicy("n", enabled=False), MarkerPolicy("f", enabled=True, grace=0.5)
    assert (policy.enabled([near, far]), policy.enabled()) == (False, True)
    assert (policy.grace([near, far]), policy.grace()) == (0.5, 2.0)


def test_a_test_that_is_switched_off_has_no_findings():
    """And its twin has."""
    assert judge(markers=[MarkerPolicy("m", enabled=False)]) == []
    assert verdicts(markers=[MarkerPolicy("m", enabled=True)]) == [Verdict.FAIL]


# -- rules, each with its twin -----------------------------------------------------------

GIVE = {
    "config": lambda r: {"config": Config(allow=(r,))},
    "marker": lambda r: {"markers": [MarkerPolicy("m", rules=(r,))]},
    "expectation": lambda r: {"expectations": [r]},
}


@pytest.mark.parametrize("source", GIVE)
def test_a_rule_allows_what_it_names(source):
    """The reason says which rule and why."""
    [found] = judge(**GIVE[source](rule()))
    assert found.verdict is Verdict.ALLOWED
    assert found.reason == "allowed (here): a reason"


@pytest.mark.parametrize("source", GIVE)
def test_a_rule_leaves_others_alone(source):
    """The twin: another label, another kind, or no rule at all still fail."""
    assert verdicts(**GIVE[source](rule("task:push"))) == [Verdict.FAIL]
    assert verdicts(**GIVE[source](rule("socket:poll"))) == [Verdict.FAIL]
    assert verdicts() == [Verdict.FAIL]


@pytest.mark.parametrize(
    "selector", ["task:poll", "task:po*", "*:poll", "task:*", "task:test_x.<locals>.poll"]
)
def test_a_label_is_matched_in_full_or_by_its_last_part(selector):
    """What a reader would write works."""
    assert verdicts(config=Config(allow=(rule(selector),))) == [Verdict.ALLOWED]


@pytest.mark.parametrize("selector", ["task:Poll", "task:oll", "task:locals", "task:pol"])
def test_a_label_is_matched_no_further(selector):
    """The twin: case matters, and so do both ends."""
    assert verdicts(config=Config(allow=(rule(selector),))) == [Verdict.FAIL]


def test_a_label_with_wildcards_in_it_can_be_pasted():
    """What the report prints is matched as it stands."""
    finding = make("file", "data[*].txt")
    assert verdicts(finding, config=Config(allow=(rule(finding.selector),))) == [Verdict.ALLOWED]
    other = make("file", "dataX.txt")
    assert verdicts(other, config=Config(allow=(rule(finding.selector),))) == [Verdict.FAIL]


@pytest.mark.parametrize(
    "pattern", [NODE, "tests/test_shop.py::*", "tests/test_shop.py", "tests", "*::test_restock"]
)
def test_a_rule_for_some_tests_holds_in_them(pattern):
    """Node ids, patterns of them, and what pytest itself would take as an argument."""
    assert verdicts(config=Config(allow=(rule(tests=(pattern,)),))) == [Verdict.ALLOWED]


@pytest.mark.parametrize("pattern", ["tests/test_s", "tests/test_till.py::*", NODE + "_2"])
def test_a_rule_for_some_tests_holds_in_no_other(pattern):
    """The twin."""
    assert verdicts(config=Config(allow=(rule(tests=(pattern,)),))) == [Verdict.FAIL]


@pytest.mark.parametrize("suffix", ["[eu-1]", "@group1", "[eu-1]@group1", "[me@home]"])
def test_parameters_and_worker_groups_are_part_of_the_test(suffix):
    """A rule for a test holds for all of its variants."""
    policy = Policy(Config(allow=(rule(tests=(NODE,)),)), ())
    [found] = policy.judge([make()], nodeid=NODE + suffix, markers=[], own_failure=False)
    assert found.verdict is Verdict.ALLOWED


def test_a_slow_finding_below_the_rules_is_allowed_too():
    """A rule outranks slow; its twin stays slow, even in a test that failed."""
    slow = make(verdict=Verdict.SLOW, reason="gone after 0.2 s")
    assert verdicts(slow, config=Config(allow=(rule(),))) == [Verdict.ALLOWED]
    [kept] = judge(slow, own_failure=True)
    assert (kept.verdict, kept.reason) == (Verdict.SLOW, "gone after 0.2 s")


def test_the_closest_rule_speaks():
    """Expectation before marker, marker before settings."""
    far, mid, near = rule(where="config"), rule(where="marker"), rule(where="expect")
    given = {"config": Config(allow=(far,)), "markers": [MarkerPolicy("m", rules=(mid,))]}
    [found] = judge(**given)
    assert "(marker)" in found.reason
    [found] = judge(**given, expectations=[near])
    assert "(expect)" in found.reason


# -- rules with an end and with a limit --------------------------------------------------


def test_an_expired_rule_is_refused_and_says_so():
    """The finding fails as without the rule."""
    gone = rule(until=date(2027, 1, 31), expired=True)
    [found] = judge(config=Config(allow=(gone,)))
    assert found.verdict is Verdict.FAIL
    assert found.reason == "the rule that allowed it expired on 2027-01-31 (here)"


def test_an_expired_rule_does_not_stand_in_the_way_of_a_valid_one():
    """It says nothing any more, not even no."""
    gone = rule(until=date(2027, 1, 31), expired=True)
    config = Config(allow=(gone, rule("task:*")))
    assert verdicts(config=config) == [Verdict.ALLOWED]


def test_findings_beyond_the_count_fail():
    """One finding may stand for several: it is split."""
    config = Config(allow=(rule(count=3),))
    found = judge(make(count=2), make(count=2), make(), config=config)
    assert [(f.verdict, f.count) for f in found] == [
        (Verdict.ALLOWED, 2),
        (Verdict.ALLOWED, 1),
        (Verdict.FAIL, 1),
        (Verdict.FAIL, 1),
    ]
    assert found[-1].reason == "more than the 3 allowed by 'task:poll' (here)"


def test_a_count_begins_anew_in_each_test():
    """It is a limit for one test."""
    policy = Policy(Config(allow=(rule(count=1),)), ())
    for _ in range(2):
        [found] = policy.judge([make()], nodeid=NODE, markers=[], own_failure=False)
        assert found.verdict is Verdict.ALLOWED


def test_a_wider_rule_farther_away_does_not_lift_a_limit():
    """The closest rule wins, also when it says no."""
    found = verdicts(
        make(count=2),
        markers=[MarkerPolicy("m", rules=(rule(count=1),))],
        config=Config(allow=(rule("task:*"),)),
    )
    assert found == [Verdict.ALLOWED, Verdict.FAIL]


def test_a_limit_makes_nothing_worse_than_no_rule():
    """Beyond the count a finding is judged as if there were no rule."""
    found = make(certainty=Certainty.POSSIBLE, count=2)
    assert verdicts(found, config=Config(allow=(rule(count=1),))) == [
        Verdict.ALLOWED,
        Verdict.NOTE,
    ]


# -- known behaviour ---------------------------------------------------------------------

KNOWN = (Known("task", "*.poll", "it always does"),)


def test_known_behaviour_is_allowed_with_its_reason():
    """The list is data: one entry is enough."""
    [found] = judge(known=KNOWN)
    assert (found.verdict, found.reason) == (Verdict.ALLOWED, "known: it always does")


def test_known_behaviour_can_be_switched_off():
    """The twin."""
    assert verdicts(known=KNOWN, config=Config(known=False)) == [Verdict.FAIL]


def test_known_behaviour_that_happens_once_is_allowed_once_in_the_process():
    """A second one is somebody's leak, in whichever test."""
    policy = Policy(Config(), (Known("task", "*", "once", count=1),))
    seen = [
        policy.judge([make()], nodeid=n, markers=[], own_failure=False)[0].verdict for n in "ab"
    ]
    assert seen == [Verdict.ALLOWED, Verdict.FAIL]


# -- the test's own failure --------------------------------------------------------------


def test_a_leak_of_a_test_that_failed_is_noted_only():
    """The test's own failure outranks it."""
    [found] = judge(own_failure=True)
    assert found.verdict is Verdict.NOTE
    assert found.reason == "the test itself failed; its leak may be a consequence"


def test_a_leak_of_a_wider_fixture_is_no_consequence_of_a_tests_failure():
    """It fails whatever the last test did."""
    wide = make(owner="fixture 'db' (session)", owner_kind="fixture", owner_scope="session")
    narrow = wide.with_(owner_scope="function")
    assert verdicts(wide, narrow, own_failure=True) == [Verdict.FAIL, Verdict.NOTE]


def test_the_findings_given_are_not_changed():
    """Copies come back."""
    finding = make(certainty=Certainty.POSSIBLE)
    [found] = judge(finding)
    assert finding.verdict is Verdict.FAIL
    assert found is not finding


# -- which rules were of use -------------------------------------------------------------


def test_rules_never_used_are_named():
    """The used one is not, nor the expired one."""
    used, idle, gone = rule(), rule("socket:x"), rule("file:x", expired=True)
    policy = Policy(Config(allow=(used, idle, gone)), ())
    policy.judge([make()], nodeid=NODE, markers=[], own_failure=False)
    assert policy.unused() == [idle]
    assert policy.expired() == [gone]


def test_use_in_another_process_counts():
    """A worker's numbers travel as plain JSON and add up."""
    config = Config(allow=(rule(),))
    worker, controller = Policy(config, ()), Policy(config, ())
    worker.judge([make(count=2)], nodeid=NODE, markers=[], own_failure=False)
    for _ in range(2):
        controller.merge_usage(json.loads(json.dumps(worker.usage())))
    assert controller.unused() == []
    assert list(controller.usage().values()) == [4]


def test_a_markers_rule_known_to_a_worker_only_is_named_by_the_controller():
    """The controller collects no tests, and yet says which rules were never used."""
    worker, controller = Policy(Config(), ()), Policy(Config(), ())
    marker = rule(until=date(2027, 1, 31), tests=("a",), count=2)
    worker.register([marker])
    controller.merge_usage(worker.usage())
    assert controller.unused() == [marker]


def test_a_key_that_is_no_rule_is_refused():
    """Raises ValueError, as documented."""
    with pytest.raises(ValueError):
        Policy(Config()).merge_usage({"nonsense": 1})


# -- grouping ----------------------------------------------------------------------------


def test_equal_findings_become_one_with_their_counts_added():
    """Facts and subject are the first one's; digits in subjects do not count."""
    site = Site("a.py", 1)
    one = make(subject="fd 3", made=site, facts=[("a", "b")], seconds=0.1)
    two = make(subject="fd 14", made=site, count=2, seconds=0.4)
    [merged] = group([one, two])
    assert (merged.count, merged.subject, merged.facts) == (3, "fd 3", [("a", "b")])
    assert merged.seconds == 0.4
    assert one.count == 1


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "socket"},
        {"label": "x"},
        {"owner": "x"},
        {"made": Site("b.py", 1)},
        {"subject": "other"},
        {"certainty": Certainty.PROVEN},
        {"verdict": Verdict.NOTE},
    ],
    ids=lambda c: next(iter(c)),
)
def test_findings_that_differ_stay_apart(change):
    """Each of these tells two findings apart."""
    assert len(group([make(), make().with_(**change)])) == 2


def test_what_two_libraries_made_for_one_line_is_judged_apart():
    """A known pipe and a leaked one of the same line: neither hides or blames the other."""
    line = Site("shop/pool.py", 7)
    pipe = make("pipe", "write-end", subject="pipe, write end (fd 9)", made=line)
    known, leaked = (
        pipe.with_(extra={"stack": [f"multiprocessing/{module}.py:53", "shop/pool.py:7"]})
        for module in ("resource_tracker", "popen_spawn_posix")
    )
    policy = Policy(Config())
    judged = policy.judge(
        group([known, leaked, leaked]), nodeid=NODE, markers=[], expectations=[], own_failure=False
    )
    assert [(f.verdict, f.count) for f in judged] == [(Verdict.ALLOWED, 1), (Verdict.FAIL, 2)]


def test_the_built_in_list_is_used_unless_another_is_given():
    """A real entry of it, through the policy; its twin without the list."""
    finding = make("native-thread", "tokio-runtime-w")
    given = {"nodeid": NODE, "markers": [], "own_failure": False}
    [found] = Policy(Config()).judge([finding], **given)
    assert found.verdict is Verdict.ALLOWED
    [found] = Policy(Config(known=False)).judge([finding], **given)
    assert found.verdict is Verdict.FAIL
