"""What only the garbage collector closes, whenever it comes."""

from __future__ import annotations

import pytest

SUITE = """
import concurrent.futures, gc, socket, warnings
import pytest

class Cycle:
    pass

def leak():
    cycle = Cycle()
    cycle.me, cycle.sock = cycle, socket.socket()  # born

def collect_by_itself():
    return [[] for _ in range(20_000)]

def test_left_to_the_end():
    leak()

def test_collected_by_the_interpreter():
    leak()
    collect_by_itself()

def test_clean_collected_on_purpose():
    leak()
    with pytest.warns(ResourceWarning):
        gc.collect()

def test_clean_reads_the_warnings():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        leak()
        collect_by_itself()
    assert [w.category for w in caught] == [ResourceWarning]

class Pool:
    def __init__(self):
        self.me = self
        self.executor = concurrent.futures.ThreadPoolExecutor(1)
        self.executor.submit(int).result()

def full_collections():
    return gc.get_stats()[2]["collections"]

def test_clean_garbage_that_a_collection_made_old():
    pool, before, kept = Pool(), full_collections(), []
    while full_collections() == before:
        kept.append([[] for _ in range(1000)])
        assert len(kept) < 20_000, "no full collection came"
    del pool, kept

def test_clean_garbage_that_was_there_when_the_test_collected():
    pool = Pool()
    gc.collect()
    del pool

def test_clean_garbage():
    for _ in range(100):
        cycle = Cycle()
        cycle.me = cycle
    collect_by_itself()
"""


@pytest.fixture
def ran(suite):
    """The suite's run."""
    return suite(SUITE, "-rA", status=1)


def test_garbage_is_found_whoever_collects_it(ran):
    """It does not depend on how much a test allocates."""
    leaky = {"test_left_to_the_end", "test_collected_by_the_interpreter"}
    assert ran.failed == leaky, ran.text
    for name in leaky:
        (finding,) = ran.tests[name]["findings"]
        assert (finding["kind"], finding["certainty"]) == ("socket", "proven")
        assert finding["made"]["source"].endswith("# born")


def test_what_a_test_collects_or_reads_by_itself_is_its_own_affair(ran):
    """No finding for its warnings, and it gets all of them."""
    assert ran.counts["passed"] == 7, ran.text
    assert not [n for n, r in ran.tests.items() if n.startswith("test_clean") and r["findings"]]


def test_the_warning_of_the_interpreters_own_collection_is_still_shown(suite):
    """Filters decide about it as they would without us."""
    suite(SUITE, "-k", "interpreter")
    ran = suite(SUITE, "-k", "interpreter", "-W", "always::ResourceWarning")
    assert "ResourceWarning: unclosed <socket.socket" in ran.text
    ran = suite(SUITE, "-k", "interpreter", "-W", "ignore::ResourceWarning")
    assert "ResourceWarning" not in ran.text


FINALIZER = """
import warnings

class Transport:
    def __init__(self):
        self.me = self
    def __del__(self):
        warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
        raise TypeError("what a finalizer may stumble over")

def test_left():
    Transport()

def test_next():
    pass
"""


def test_an_error_of_a_finalizer_does_not_fail_the_next_test(suite):
    """What it belongs to was told of already."""
    ran = suite(FINALIZER, "-W", "error", status=1)
    assert ran.failed == {"test_left"}, ran.text
    assert ran.counts == {"passed": 2, "error": 1}, ran.text
