"""After a session nothing of Tightship is left, and while it runs it is in nobody's way."""

from __future__ import annotations

import sys

SCRIPT = """
import asyncio, asyncio.runners, builtins, concurrent.futures.thread, gc, io, os, socket, sqlite3
import subprocess, sys, tempfile, threading, warnings
import pytest

def picture():
    base = asyncio.base_events.BaseEventLoop
    return {
        "socket": socket.socket.__init__, "open": builtins.open, "io.open": io.open,
        "pipe": os.pipe, "dup": os.dup, "fork": os.fork, "thread": threading.Thread.start,
        "bootstrap": threading.Thread._bootstrap_inner,
        "cancel": asyncio.runners._cancel_all_tasks, "init": base.__init__, "close": base.close,
        "unix close": asyncio.unix_events._UnixSelectorEventLoop.close,
        "call_at": base.call_at, "call_later": base.call_later,
        "handler": base.call_exception_handler,
        "unawaited": warnings._warn_unawaited_coroutine, "hook": sys.unraisablehook,
        "popen": subprocess.Popen.__init__, "connect": sqlite3.connect,
        "meta": list(sys.meta_path), "frozen": gc.get_freeze_count() > 5000,
        "collect": gc.collect, "get_objects": gc.get_objects,
        "depth": sys.get_coroutine_origin_tracking_depth(),
        "work": concurrent.futures.thread._WorkItem.run,
        "fds": sorted(os.listdir("/proc/self/fd")), "filters": warnings.filters[:],
        "excepthook": threading.excepthook, "enabled": gc.isenabled(),
        "threads": threading.active_count(),
    }

def run(*args):
    return pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:rerunfailures", *args])

# What pytest itself leaves behind, it leaves behind the first time.
run("-p", "no:tightship", "test_it.py")
before = picture()
status = run("test_it.py")
after = picture()
differ = {k: (before[k], after[k]) for k in before if before[k] != after[k]}
print("STATUS", int(status), "DIFFER", differ)
leak = os.dup(2)
from tightship.watch import Watch
from tightship.ledger import LEDGER
from tightship.ownership import CURRENT
from tightship.probes.fdtable import OWN
print("LEFT", len(Watch.active), len(LEDGER._objects), CURRENT.get(), len(OWN))
"""

SUITE = """
import asyncio, os, socket, subprocess, sys, threading
KEPT = []

async def poll():
    await asyncio.sleep(3600)

def test_clean():
    asyncio.run(asyncio.sleep(0))

def test_leak():
    async def main():
        asyncio.create_task(poll())
        await asyncio.sleep(0)
    asyncio.run(main())
    KEPT.append(socket.socket())

def test_closes():
    KEPT.pop().close()
    subprocess.run([sys.executable, "-c", ""])
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
"""


def test_every_patch_is_undone(suite, pytester):
    """Functions, hooks, finders, descriptors and the collector are as they were before."""
    suite(SUITE, status=1)
    (pytester.path / "script.py").write_text(SCRIPT)
    result = pytester.run(sys.executable, "script.py")
    text = result.stdout.str() + result.stderr.str()
    assert "STATUS 1 DIFFER {}" in text, text
    assert "LEFT 0 0 None 0" in text, text


def test_bad_input_leaves_nothing_patched_either(suite, pytester):
    """A run that ends with a usage error undoes what it began."""
    source = "import pytest\n@pytest.mark.tightship(nonsense=1)\ndef test_a(): pass\n"
    suite(source, status=4)
    (pytester.path / "script.py").write_text(SCRIPT)
    result = pytester.run(sys.executable, "script.py")
    text = result.stdout.str() + result.stderr.str()
    assert "STATUS 4 DIFFER {}" in text, text


def test_a_fault_in_any_part_is_contained(suite, pytester):
    """It is switched off and named once, other parts go on, no outcome changes."""
    (pytester.path / "conftest.py").write_text(
        """
from tightship.probes.sockets import SocketProbe
from tightship.probes.tasks import TaskProbe

def broken(self, *args):
    raise LookupError("planted fault")

SocketProbe.snapshot = broken
TaskProbe.explain = broken
"""
    )
    source = SUITE + "\ndef test_fd():\n    KEPT.append(os.dup(2))\n"
    ran = suite(source, faults=True)
    assert ran.tests["test_clean"]["outcome"] == "passed", ran.text
    assert ran.tests["test_closes"]["outcome"] == "passed", ran.text
    assert "test_fd" in ran.failed, ran.text
    for part in ("socket", "task"):
        assert ran.text.count(f"Tightship's own part '{part}' failed") == 1, ran.text
    assert "planted fault" in ran.section
    suite("import socket\ndef test_a():\n    socket.socket().close()\n", faults=True, status=0)


def test_a_fault_can_fail_the_run_but_no_test(suite, pytester):
    """``--tightship-fail-on-fault`` turns the exit status to 1."""
    (pytester.path / "conftest.py").write_text(
        "from tightship.watch import Watch\n"
        "def _end(self, owner):\n    raise LookupError('planted fault')\n"
        "Watch._end = _end\n"
    )
    source = "def test_a(): pass\ndef test_b(): pass\n"
    ran = suite(source, faults=True, status=0)
    assert ran.text.count("Tightship's own part 'watch' failed") == 1
    for args in ((), ("-n1",)):
        ran = suite(source, "--tightship-fail-on-fault", *args, faults=True, status=1)
        assert ran.counts == {"passed": 2}


def test_nothing_observed_is_kept_alive(suite):
    """What leaked and was told of dies when the user lets it go."""
    ran = suite(
        """
import asyncio, gc, os, socket, sqlite3, threading, weakref

KEPT, REFS = {}, {}

def keep(name, obj):
    KEPT[name] = obj
    REFS[name] = weakref.ref(obj)

def test_leaks():
    loop = asyncio.new_event_loop()
    async def main():
        keep("task", asyncio.create_task(asyncio.sleep(3600)))
        keep("timer", asyncio.get_running_loop().call_later(3600, print))
        server = await asyncio.start_server(print, "127.0.0.1", 0)
        keep("server", server)
        await asyncio.sleep(0)
    loop.run_until_complete(main())
    keep("loop", loop)
    keep("socket", socket.socket())
    keep("file", open(__file__))
    KEPT["sqlite"] = sqlite3.connect("data.db")
    KEPT["sqlite"].execute("create table if not exists a (b)")

def test_between():
    pass

def test_let_go():
    KEPT["server"].close()
    KEPT["task"].cancel()
    KEPT["timer"].cancel()
    loop = KEPT["loop"]
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    KEPT["socket"].close()
    KEPT["file"].close()
    del loop
    KEPT.clear()
    gc.collect()
    alive = {name for name, ref in REFS.items() if ref() is not None}
    assert alive == set(), [repr(r)[:200] for n in alive for r in gc.get_referrers(REFS[n]())]
    held = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
            if os.path.lexists(f"/proc/self/fd/{fd}")]
    assert not [path for path in held if path.endswith("data.db")]
""",
        "--tightship-threshold=possible",
        "-Wignore",
    )
    assert ran.failed == {"test_leaks"}, ran.text
    assert ran.tests["test_let_go"]["outcome"] == "passed", ran.text
    kinds = {f["kind"] for f in ran.tests["test_leaks"]["findings"]}
    assert {"socket", "file", "sqlite3"} <= kinds


def test_our_modules_are_imported_as_they_are(suite):
    """pytest rewrites a plugin's asserts; where it cannot keep that, each session would pay."""
    source = """
import sys

def test_loaders():
    ours = [m for n, m in sys.modules.items() if n.startswith("tightship.")]
    rewritten = [m for m in ours if "Rewriting" in type(m.__loader__).__name__]
    assert "tightship.watch" in sys.modules
    assert [m.__name__ for m in rewritten] in ([], ["tightship.plugin"])
"""
    suite(source, status=0)


def test_a_class_made_by_a_test_is_not_kept(suite):
    """Each mock has a class of its own: the window's memory of types must not hold them."""
    source = """
import gc
import weakref
from unittest import mock

SEEN = []

def test_mocks():
    for _ in range(5):
        thing = mock.MagicMock()
        thing.me = thing
        SEEN.append(weakref.ref(type(thing)))

def test_gone():
    gc.collect()
    assert len(SEEN) == 5
    assert not [ref for ref in SEEN if ref() is not None]
"""
    suite(source, status=0)
