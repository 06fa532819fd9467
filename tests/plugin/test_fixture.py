"""The ``tightship`` fixture: what a test may ask and say; opting in and out."""

from __future__ import annotations

import pytest

HEAD = """
import asyncio, os, socket, subprocess, sys, threading, time
import pytest

KEPT = []

async def poll():
    await asyncio.sleep(3600)

def leak():
    async def main():
        asyncio.create_task(poll())
        await asyncio.sleep(0)
    asyncio.run(main())
"""


def test_a_test_can_expect_what_it_leaves(suite):
    """``expect`` allows with a reason and up to a count; without it the same test fails."""
    ran = suite(
        HEAD
        + """
def test_expected(tightship):
    tightship.expect("task:poll", reason="on purpose")
    leak()

def test_counted(tightship):
    tightship.expect("task:poll", reason="one", count=1)
    leak()
    leak()

def test_unexpected(tightship):
    leak()

def test_wrong_words(tightship):
    with pytest.raises(ValueError, match="did you mean 'task'"):
        tightship.expect("tsak:poll", reason="r")
    with pytest.raises(ValueError, match="reason"):
        tightship.expect("task:poll", reason=" ")
    with pytest.raises(ValueError, match="whole number"):
        tightship.expect("task:poll", reason="r", count=0)
""",
        status=1,
    )
    assert ran.failed == {"test_counted", "test_unexpected"}, ran.text
    assert ran.verdicts("test_expected") == [("task", "allowed")]
    assert ran.tests["test_wrong_words"]["outcome"] == "passed"


def test_a_test_can_ask_what_it_would_be_told(suite):
    """``findings`` is a list of what is open right now and was made by this test."""
    suite(
        HEAD
        + """
@pytest.fixture(scope="module")
def wide():
    sock = socket.socket()
    yield sock
    sock.close()

def test_clean(tightship):
    assert tightship.findings == []

async def test_clean_async(tightship):
    await asyncio.sleep(0)
    assert tightship.findings == []

async def test_pending_task(tightship):
    task = asyncio.create_task(poll())
    await asyncio.sleep(0)
    found = tightship.findings
    assert [f.kind for f in found if f.kind == "task"] == ["task"]
    assert found[0].label == "poll"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert tightship.findings == []

async def test_not_those_that_wait_for_us(tightship):
    async def inner():
        return [f.label for f in tightship.findings if f.kind == "task"]
    assert await asyncio.create_task(inner()) == []

def test_nothing_of_others(wide, tightship):
    assert tightship.findings == []
    sock = socket.socket()
    assert [f.kind for f in tightship.findings] == ["socket"]
    sock.close()
    assert tightship.findings == []

def test_leaves(tightship):
    tightship.expect("*:*", reason="for the next one")
    KEPT.append(socket.socket())

def test_nothing_of_earlier_tests(tightship):
    assert tightship.findings == []
""",
        status=0,
    )


ADOPT = """
@pytest.fixture(scope="module", autouse=True)
def pool():
    held = []
    yield held
    END(held)

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def crew():
    held = []
    yield held
    LEAVE(held)

def test_socket(tightship, pool):
    sock = socket.socket()
    pool.append(sock.close)
    tightship.adopt(sock, to="pool", reason="pooled")

def test_thread(tightship, pool):
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    pool.append(lambda: (stop.set(), thread.join()))
    tightship.adopt(thread, to="pool", reason="pooled")

def test_process(tightship, pool):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    pool.append(lambda: (process.kill(), process.wait()))
    tightship.adopt(process, to="pool", reason="pooled")

@pytest.mark.asyncio(loop_scope="module")
async def test_task(tightship, crew):
    task = asyncio.create_task(poll())
    crew.append(task)
    tightship.adopt(task, to="crew", reason="hired")
    await asyncio.sleep(0)

@pytest.mark.asyncio(loop_scope="module")
async def test_last(tightship):
    with pytest.raises(ValueError, match="did you mean 'pool'"):
        tightship.adopt(object(), to="pol", reason="r")
    with pytest.raises(ValueError, match="reason"):
        tightship.adopt(object(), reason="")
    await asyncio.sleep(0)
"""


def test_what_is_adopted_is_judged_when_its_new_owner_ends(suite):
    """A module fixture that closes all it adopted is clean; one that doesn't is told."""
    head = HEAD + "import pytest_asyncio\n"
    good = ADOPT.replace("END(held)", "[close() for close in held]")
    good = good.replace("LEAVE(held)", "[task.cancel() for task in held]")
    ran = suite(head + good, status=0)
    assert all(r["findings"] == [] for r in ran.tests.values()), ran.text
    bad = ADOPT.replace("END(held)", "held[1](); held[2]()").replace("LEAVE(held)", "pass")
    ran = suite(head + bad, status=1)
    assert ran.failed == {"test_last"}, ran.text
    owners = {(f["kind"], f["owner"]) for f in ran.tests["test_last"]["findings"]}
    assert ("socket", "fixture 'pool' (module)") in owners, ran.text
    assert ("task", "fixture 'crew' (module)") in owners, ran.text


def test_what_the_session_adopts_is_judged_at_its_end(suite):
    """Closed before the end it is clean; else the run fails, and says what was left."""
    source = (
        HEAD
        + """
def test_first(tightship):
    sock = socket.socket()
    KEPT.append(sock)
    tightship.adopt(sock, reason="one for all")

async def test_dies_with_its_loop(tightship):
    task = asyncio.create_task(poll())
    tightship.adopt(task, reason="until the loop closes")
    await asyncio.sleep(0)

def test_second():
    KEPT[0].fileno()
    CLOSE
"""
    )
    ran = suite(source.replace("CLOSE", "KEPT[0].close()"), status=0)
    assert all(r["findings"] == [] for r in ran.tests.values()), ran.text
    threshold = "--tightship-threshold=possible"
    ran = suite(source.replace("CLOSE", ""), threshold, status=1)
    assert ran.failed == set(), ran.text
    assert "outlived the session" in ran.section, ran.text
    (finding,) = ran.records[-1]["findings"]
    assert finding["kind"] == "socket"
    assert ["adopted", "one for all"] in finding["facts"]
    ran = suite(source.replace("CLOSE", ""), threshold, "-n1", status=1)
    assert "outlived the session" in ran.section, ran.text
    assert [f["kind"] for f in ran.records[-1]["findings"]] == ["socket"]


@pytest.mark.parametrize("off", ["command line", "pyproject", "environment"])
def test_tests_that_ask_for_it_are_watched_when_it_is_off(suite, monkeypatch, off):
    """By marker, by fixture, by an autouse fixture; all others are left alone."""
    args, toml = (), ""
    if off == "command line":
        args = ("--tightship=off",)
    elif off == "pyproject":
        toml = "[tool.tightship]\nenabled = false\n"
    else:
        monkeypatch.setenv("TIGHTSHIP", "off")
    ran = suite(
        HEAD
        + """
def test_plain():
    leak()

@pytest.mark.tightship(enabled=True)
def test_marked():
    leak()

def test_fixture(tightship):
    leak()

@pytest.mark.tightship(enabled=False)
def test_fixture_but_marked(tightship):
    tightship.expect("task:poll", reason="says nothing")
    assert tightship.findings == []
    leak()

class TestAutouse:
    @pytest.fixture(autouse=True)
    def watch(self, tightship):
        pass

    def test_autouse(self):
        leak()

def test_plain_again():
    leak()
""",
        *args,
        toml=toml,
        status=1,
    )
    assert ran.failed == {"test_marked", "test_fixture", "test_autouse"}, ran.text
    assert not ran.tests["test_plain"]["watched"]
    assert ran.tests["test_fixture"]["watched"]
    assert ": off (" in ran.text


def test_an_autouse_fixture_of_a_conftest_turns_it_on_for_a_folder(suite, pytester):
    """The usual way to adopt the plugin folder by folder."""
    (pytester.path / "conftest.py").write_text(
        "import pytest\n@pytest.fixture(autouse=True)\ndef _watched(tightship): pass\n"
    )
    ran = suite(HEAD + "\ndef test_leak():\n    leak()\n", "--tightship=off", status=1)
    assert ran.failed == {"test_leak"}
