"""The self-check: plant one real leak of each kind, and see that it is caught.

Each kind has its own process, so that the shell's is not dirtied and a hang is ended. In it
two blocks run under `no_leaks`: one that plants the leak and has to be caught, and its clean
twin, which has to be silent.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from .config import OPTIONS, Config, ConfigError, load
from .model import Finding
from .probes import KINDS
from .suggest import unknown
from .window import blind_spots

__all__ = ["Check", "Settings", "blind_spots", "check", "kinds_of", "settings", "versions"]

#: Seconds after which a kind's process is ended.
TIME_LIMIT = 30.0

#: Processes at a time.
_AT_ONCE = 4

Outcome = Literal["caught", "missed", "noisy", "blind", "broken"]


@dataclass(frozen=True, slots=True)
class Check:
    """What came of one kind."""

    kind: str
    outcome: Outcome
    """``caught``; ``missed``: the leak was not seen; ``noisy``: the clean twin was reported;
    ``blind``: not watched here; ``broken``: the check itself failed."""
    text: str = ""
    """The finding's headline, or the reason."""

    @property
    def failed(self) -> bool:
        """Tell whether this kind cannot be relied on."""
        return self.outcome in ("missed", "noisy", "broken")

    def __str__(self) -> str:
        word = {
            "caught": "caught",
            "missed": "MISSED",
            "noisy": "NOISY",
            "blind": "not watched here:",
            "broken": "BROKEN",
        }[self.outcome]
        return f"{self.kind:<15} {word:<7} {self.text}".rstrip()


# -- planting ------------------------------------------------------------------------------

Keep = list[Any]
"""Holds what is planted, as a test's local variable would."""

#: kind -> what plants it. ``leak`` is False for the clean twin, which makes the same thing and
#: ends it. What has to be cleared away afterwards goes on the stack.
Plant = Callable[[bool, Keep, ExitStack], Any]
_SYNC: dict[str, Plant] = {}
_ASYNC: dict[str, Callable[[bool, Keep, ExitStack], Coroutine[Any, Any, None]]] = {}


def _sync(kind: str) -> Callable[[Plant], Plant]:
    def add(plant: Plant) -> Plant:
        _SYNC[kind] = plant
        return plant

    return add


def _async(kind: str) -> Callable[[Any], Any]:
    def add(plant: Any) -> Any:
        _ASYNC[kind] = plant
        return plant

    return add


async def planted() -> None:
    """Stay for ever, as the tasks and coroutines that are planted."""
    await asyncio.get_running_loop().create_future()


@_async("task")
async def _task(leak: bool, keep: Keep, after: ExitStack) -> None:
    task = asyncio.create_task(planted())
    keep.append(task)
    after.callback(task.cancel)
    if not leak:
        task.cancel()


@_async("timer")
async def _timer(leak: bool, keep: Keep, after: ExitStack) -> None:
    timer = asyncio.get_running_loop().call_later(3600, planted)
    after.callback(timer.cancel)
    if not leak:
        timer.cancel()


@_async("reader")
async def _reader(leak: bool, keep: Keep, after: ExitStack) -> None:
    import socket

    loop = asyncio.get_running_loop()
    pair = socket.socketpair()
    keep.extend(pair)
    loop.add_reader(pair[0], print)
    after.callback(loop.remove_reader, pair[0].fileno())
    if not leak:
        loop.remove_reader(pair[0])
        for sock in pair:
            sock.close()


@_async("transport")
async def _transport(leak: bool, keep: Keep, after: ExitStack) -> None:
    import socket

    ends = socket.socketpair()
    _, writer = await asyncio.open_connection(sock=ends[0])
    keep += [writer, ends[1]]
    after.callback(writer.close)
    if not leak:
        writer.close()
        await writer.wait_closed()
        ends[1].close()


@_async("server")
async def _server(leak: bool, keep: Keep, after: ExitStack) -> None:
    def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(met, "127.0.0.1", 0)
    keep.append(server)
    after.callback(server.close)
    if not leak:
        server.close()
        await server.wait_closed()


@_async("asyncgen")
async def _asyncgen(leak: bool, keep: Keep, after: ExitStack) -> None:
    async def numbers() -> Any:
        for number in range(3):
            yield number

    generator = numbers()
    await anext(generator)
    keep.append(generator)
    if not leak:
        await generator.aclose()


@_async("exception")
async def _exception(leak: bool, keep: Keep, after: ExitStack) -> None:
    async def fail() -> None:
        raise ValueError("planted")

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    if not leak:
        task.exception()


@_sync("coroutine")
def _coroutine(leak: bool, keep: Keep, after: ExitStack) -> None:
    coro = planted()
    if leak:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning = lambda *a, **k: None
            del coro
    else:
        coro.close()


@_sync("loop")
def _loop(leak: bool, keep: Keep, after: ExitStack) -> None:
    loop = asyncio.new_event_loop()
    keep.append(loop)
    after.callback(loop.close)
    if not leak:
        loop.close()


@_sync("executor")
def _executor(leak: bool, keep: Keep, after: ExitStack) -> None:
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(1)
    keep.append(pool)
    pool.submit(int).result()
    after.callback(pool.shutdown)
    if not leak:
        pool.shutdown()


@_sync("thread")
def _thread(leak: bool, keep: Keep, after: ExitStack) -> None:
    import threading

    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="planted")
    thread.start()
    after.callback(thread.join)
    after.callback(over.set)
    if not leak:
        over.set()
        thread.join()


@_sync("native-thread")
def _native_thread(leak: bool, keep: Keep, after: ExitStack) -> None:
    import _thread

    over, ended = _thread.allocate_lock(), _thread.allocate_lock()
    over.acquire()
    ended.acquire()

    def run() -> None:
        over.acquire()
        ended.release()

    _thread.start_new_thread(run, ())
    if leak:
        after.callback(over.release)
    else:
        over.release()
        ended.acquire()


@_sync("process")
def _process(leak: bool, keep: Keep, after: ExitStack) -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    keep.append(process)
    after.callback(process.communicate)
    if not leak:
        process.communicate()


@_sync("sqlite3")
def _sqlite3(leak: bool, keep: Keep, after: ExitStack) -> None:
    import sqlite3

    connection = sqlite3.connect(":memory:")
    keep.append(connection)
    after.callback(connection.close)
    if not leak:
        connection.close()


@_sync("shared-memory")
def _shared_memory(leak: bool, keep: Keep, after: ExitStack) -> None:
    from multiprocessing import shared_memory

    block = shared_memory.SharedMemory(create=True, size=64)
    keep.append(block)
    if leak:
        after.callback(block.unlink)
        after.callback(block.close)
    else:
        block.close()
        block.unlink()


@_sync("mmap")
def _mmap(leak: bool, keep: Keep, after: ExitStack) -> None:
    import mmap

    mapping = mmap.mmap(-1, 4096)
    keep.append(mapping)
    after.callback(mapping.close)
    if not leak:
        mapping.close()


@_sync("tempfile")
def _tempfile(leak: bool, keep: Keep, after: ExitStack) -> None:
    import tempfile

    path = tempfile.mkdtemp(prefix="tightship-doctor-")
    if leak:
        after.callback(os.rmdir, path)
    else:
        os.rmdir(path)


@_sync("socket")
def _socket(leak: bool, keep: Keep, after: ExitStack) -> None:
    import socket

    sock = socket.socket()
    keep.append(sock)
    after.callback(sock.close)
    if not leak:
        sock.close()


@_sync("pipe")
def _pipe(leak: bool, keep: Keep, after: ExitStack) -> None:
    for end in os.pipe():
        if leak:
            after.callback(os.close, end)
        else:
            os.close(end)


@_sync("file")
def _file(leak: bool, keep: Keep, after: ExitStack) -> None:
    file = open(os.devnull)  # noqa: SIM115 - left open on purpose
    keep.append(file)
    after.callback(file.close)
    if not leak:
        file.close()


@_sync("fd")
def _fd(leak: bool, keep: Keep, after: ExitStack) -> None:
    fd = os.memfd_create("planted") if not hasattr(os, "eventfd") else os.eventfd(0)
    if leak:
        after.callback(os.close, fd)
    else:
        os.close(fd)


class _Careless:
    """Says that it died open, as objects of many libraries do."""

    def __init__(self) -> None:
        self.me = self
        self.closed = False

    def __del__(self) -> None:
        if not self.closed:
            warnings.warn("unclosed planted object", ResourceWarning, source=self, stacklevel=2)


@_sync("unclosed")
def _unclosed(leak: bool, keep: Keep, after: ExitStack) -> None:
    careless = _Careless()
    careless.closed = not leak
    del careless


# -- one kind, in its own process ------------------------------------------------------------


def child(kind: str) -> None:
    """Check one kind in this process and print the outcome as JSON."""
    check = _check_here(kind)
    print(json.dumps(asdict(check)), flush=True)
    os._exit(0)


def _check_here(kind: str) -> Check:
    if kind == "shared-memory" and os.name == "posix":
        from multiprocessing import resource_tracker

        # Python keeps one process for all blocks of memory, from the first to the end.
        resource_tracker.ensure_running()
    try:
        # The first time loads what planting needs, and shows whether it is possible at all.
        _plant_alone(kind)
    except (OSError, ImportError, AttributeError) as exc:
        return Check(kind, "blind", f"it cannot be made here ({type(exc).__name__}: {exc})")
    reason = _blind(kind)
    noise = _trial(kind, leak=False)
    if noise:
        return Check(kind, "noisy", f"nothing was left, but it said: {noise[0].headline}")
    found = [f for f in _trial(kind, leak=True) if f.kind == kind]
    if found:
        first = found[0]
        return Check(kind, "caught", f"{first.subject} {first.tail} its block ({first.certainty})")
    if reason:
        return Check(kind, "blind", reason)
    return Check(kind, "missed", "a leak was planted, and nobody saw it")


def _plant_alone(kind: str) -> None:
    with ExitStack() as after:
        if kind in _ASYNC:
            asyncio.run(_ASYNC[kind](False, [], after))
        else:
            _SYNC[kind](False, [], after)


def _trial(kind: str, *, leak: bool) -> tuple[Finding, ...]:
    from .blocks import LeakError, no_leaks

    block = no_leaks(threshold="possible")
    keep: Keep = []
    with ExitStack() as after:
        try:
            if kind in _ASYNC:

                async def run() -> None:
                    try:
                        async with block:
                            await _ASYNC[kind](leak, keep, after)
                    finally:
                        after.close()

                asyncio.run(run())
            else:
                with block:
                    _SYNC[kind](leak, keep, after)
        except LeakError as exc:
            return exc.findings
        finally:
            _forget(keep)
    return ()


def _forget(keep: Keep) -> None:
    for thing in keep:
        close = getattr(thing, "close", None)
        if close is not None and not asyncio.iscoroutine(thing):
            try:
                close()
            except Exception:  # a second close is not the point here
                pass
    keep.clear()


def _blind(kind: str) -> str:
    """Return why a kind can't be seen on this machine, if so."""
    from .window import AVAILABLE

    if kind == "native-thread" and not os.path.isdir("/proc/self/task"):
        return "no /proc on this system"
    if kind in ("socket", "file", "pipe", "fd") and not (
        os.path.isdir("/proc/self/fd") or os.path.isdir("/dev/fd")
    ):
        return "neither /proc/self/fd nor /dev/fd on this system"
    if not AVAILABLE and kind in (
        "mmap",
        "sqlite3",
        "shared-memory",
        "executor",
        "loop",
        "unclosed",
    ):
        return "no gc.freeze on this interpreter, so that its objects cannot be listed"
    return ""


# -- all kinds ---------------------------------------------------------------------------------

_CHILD = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from tightship.doctor import child; child(sys.argv[2])"
)


def check(kinds: Sequence[str], *, limit: float = TIME_LIMIT) -> Iterator[Check]:
    """Check kinds, each in a process of its own; yield the outcomes in the order given.

    Args:
        kinds: what to check.
        limit: seconds after which a process is ended.
    """
    waiting = list(kinds)
    running: list[tuple[str, subprocess.Popen[bytes], float]] = []
    env = {k: v for k, v in os.environ.items() if not k.startswith("TIGHTSHIP")}
    env.pop("PYTHONWARNINGS", None)
    env.pop("PYTHONASYNCIODEBUG", None)
    try:
        while waiting or running:
            while waiting and len(running) < _AT_ONCE:
                kind = waiting.pop(0)
                process = subprocess.Popen(
                    [sys.executable, "-c", _CHILD, json.dumps([str(p) for p in sys.path]), kind],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=env,
                )
                running.append((kind, process, time.monotonic() + limit))
            kind, process, deadline = running[0]
            yield _outcome(kind, process, deadline, limit)
            running.pop(0)
    finally:
        for _, process, _ in running:
            process.kill()
            process.communicate()


def _outcome(kind: str, process: subprocess.Popen[bytes], deadline: float, limit: float) -> Check:
    try:
        out, err = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return Check(kind, "broken", f"the check did not end within {limit:g} s")
    try:
        return Check(**json.loads(out.splitlines()[-1]))
    except (ValueError, IndexError, TypeError):
        lines = err.decode(errors="replace").strip().splitlines()
        why = lines[-1] if lines else "it said nothing"
        return Check(kind, "broken", f"the check ended with status {process.returncode}: {why}")


# -- the rest of the picture ---------------------------------------------------------------------


@dataclass(slots=True)
class Settings:
    """The configuration of a directory, as lines for a person."""

    error: str = ""
    """What is wrong with it; empty if nothing is."""
    values: list[tuple[str, str, str]] = field(default_factory=list)
    """(setting, value, the place it came from)."""
    allow: list[tuple[str, str, str]] = field(default_factory=list)
    """(selector, reason, place) of each allow rule that holds."""
    expired: list[tuple[str, str, str]] = field(default_factory=list)
    """(selector, last day, place) of each allow rule whose last day has passed."""


def settings(directory: Path, env: dict[str, str], kinds: Collection[str]) -> Settings:
    """Read a directory's configuration as the plugin would.

    Args:
        directory: where ``pyproject.toml`` or ``tightship.toml`` may be.
        env: the environment.
        kinds: every kind there is.
    """
    import datetime

    try:
        config = load(directory, env=env, cli={}, kinds=kinds, today=datetime.date.today())
    except ConfigError as exc:
        return Settings(error=str(exc))
    return Settings(
        values=list(_values(config)),
        allow=[(r.selector, r.reason, r.where) for r in config.allow if not r.expired],
        expired=[(r.selector, str(r.until), r.where) for r in config.allow if r.expired],
    )


def _values(config: Config) -> Iterator[tuple[str, str, str]]:
    for option in OPTIONS:
        if option.key in ("allow", "timeout"):
            continue
        if option.key == "timeouts":
            for phase, budget in config.timeouts.items():
                shown = "off" if budget is None else f"{budget.seconds:g}"
                where = "the default" if budget is None else budget.where
                yield "timeout" if phase == "test" else f"timeouts.{phase}", shown, where
            continue
        if option.key == "budgets":
            for name, seconds in config.budgets.table.items():
                place = config.budgets.places.get(name, "built in")
                yield f"budgets.{name}", f"{seconds:g}", place
            continue
        if option.key == "timeout_scale":
            yield option.key, f"{config.budgets.scale:g}", config.source(option.key)
            continue
        value = getattr(config, option.key)
        if option.key == "thresholds":
            for kind, level in value.items():
                key = f"thresholds.{kind}"
                yield key, level, config.source(key)
            continue
        if isinstance(value, bool):
            value = "true" if value else "false"
        yield option.key, "none" if value is None else str(value), config.source(option.key)


def kinds_of(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the kinds to check.

    Raises:
        ValueError: for a kind that does not exist.
    """
    for name in names or ():
        if name not in KINDS:
            raise ValueError(unknown(name, KINDS, "kind"))
    return tuple(dict.fromkeys(names)) if names else KINDS


def foreign_kinds() -> tuple[tuple[str, ...], list[str]]:
    """Return the kinds that other packages add, and what is wrong with those packages."""
    from importlib.metadata import entry_points

    kinds: list[str] = []
    broken: list[str] = []
    for point in entry_points(group="tightship.probes"):
        try:
            kind = point.load().kind
            if not isinstance(kind, str):
                raise TypeError(f"{point.value} has no 'kind'")
            kinds.append(kind)
        except Exception as exc:
            broken.append(f"probe {point.name}: {type(exc).__name__}: {exc}")
    return tuple(kinds), broken


#: What may matter to somebody who reads a bug report.
_PACKAGES = (
    "pytest",
    "pytest-asyncio",
    "anyio",
    "trio",
    "pytest-trio",
    "uvloop",
    "pytest-xdist",
    "psutil",
)


def versions() -> list[tuple[str, str]]:
    """Return (name, version) of Tightship, Python and what is installed of its surroundings."""
    from importlib.metadata import PackageNotFoundError, version

    from . import __version__

    found = [
        ("tightship", __version__),
        ("python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("system", f"{platform.system()} {platform.release()}"),
    ]
    for name in _PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            pass
    return found
