"""Where something was made: captured in a microsecond, turned into words only if shown.

A raw site is a tuple of (code object, instruction offset) pairs, innermost first. Code
objects are never hashed (that costs up to 70 us for a large function); they are compared by
file name only.
"""

from __future__ import annotations

import linecache
import os
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from types import CodeType, FrameType

from .model import Site

__all__ = [
    "DEPTH",
    "Raw",
    "capture",
    "describe",
    "layer",
    "project_site",
    "root",
    "set_root",
    "shorten",
    "stack_sites",
]

#: Frames kept per birth. Enough to climb out of asyncio and one client library.
DEPTH = 12

Raw = tuple[tuple[CodeType, int], ...]

_getframe = sys._getframe
_modulename = getattr(sys, "_getframemodulename", None)
_ranks: dict[str, int] = {}
#: File name -> whether it belongs to a test runner or to the runtime, as far as was asked.
MACHINERY: dict[str, bool] = {}


def capture(skip: int = 1, depth: int = DEPTH) -> Raw:
    """Return the calling stack as raw pairs, leaving out ``skip`` frames.

    Climbs no further than the first frame of the project itself, which is the one that will
    be shown, and never beyond the runner's own frames: most births cost two or three frames,
    well below a microsecond.
    """
    frame: FrameType | None
    try:
        frame = _getframe(skip + 1)
    except ValueError:
        return ()
    pairs = []
    while frame is not None and depth:
        code = frame.f_code
        pairs.append((code, frame.f_lasti))
        file = code.co_filename
        rank = _ranks.get(file)
        if rank is None:
            rank = _ranks[file] = _rank(file)
        if rank != 1:
            break
        frame = frame.f_back
        depth -= 1
    return tuple(pairs)


def by_runner() -> bool:
    """Tell whether a test runner's plugin makes an event loop right now: it will close it.

    Asked of the frames above asyncio's, three at least, without making objects of them (Python
    3.12 and later; before, nobody can tell).
    """
    if _modulename is None:
        return False
    for depth in range(3, 10):
        name = _modulename(depth)
        if name is None or not name.startswith("asyncio."):
            return name in ("pytest_asyncio.plugin", "anyio._backends._asyncio")
    return False


def is_machinery(file: str) -> bool:
    """Tell whether a file belongs to a test runner or to the runtime (60 ns)."""
    found = MACHINERY.get(file)
    if found is None:
        found = MACHINERY[file] = layer(file) == 2
    return found


def _rank(file: str) -> int:
    """Tell a file's part in a stack: 0 the project, 1 between, 2 the runner: climb no more."""
    if layer(file) == 0:
        return 0
    return 2 if any(part in file for part in _RUNNERS) else 1


#: Above a frame of these stands nobody's code but theirs.
_RUNNERS = ("/pluggy/", "/_pytest/", "/pytest_asyncio/")

_stdlib = tuple(
    {
        os.path.realpath(p) + os.sep
        for key in ("stdlib", "platstdlib")
        if (p := sysconfig.get_path(key))
    }
)
_site = tuple(
    {
        os.path.realpath(p) + os.sep
        for key in ("purelib", "platlib")
        if (p := sysconfig.get_path(key))
    }
)
_own = os.path.dirname(os.path.realpath(__file__)) + os.sep
_root = os.getcwd() + os.sep


def root() -> str:
    """Return the directory to which shown paths are relative."""
    return _root


def set_root(path: str) -> None:
    """Make shown paths relative to this directory."""
    global _root
    _root = os.path.join(os.path.abspath(path), "")
    _ranks.clear()
    MACHINERY.clear()


def shorten(path: str) -> str:
    """Return a path as a person would like to read it."""
    if path.startswith(_root):
        return path[len(_root) :]
    for base in _site:
        if path.startswith(base):
            return path[len(base) :]
    for base in _stdlib:
        if path.startswith(base):
            return path[len(base) :]
    return path


def layer(path: str) -> int:
    """Tell whose code a file is: 0 the project's, 1 a library's, 2 the runtime's or ours."""
    if path.startswith((_own, "<", "uvloop/")):  # the last as Cython names its sources
        return 2
    if path.startswith(_site) or "/site-packages/" in path or "/dist-packages/" in path:
        name = path.rsplit("-packages/", 1)[-1]
        return 2 if name.startswith(_MACHINERY) else 1
    if path.startswith(_stdlib):
        return 2
    if "/lib/python3." in path and not path.startswith(_root):
        # A virtual environment's interpreter: the standard library lies elsewhere.
        return 2
    return 0


#: Packages that only carry a call: their frames say nothing about who wanted it.
_MACHINERY = (
    "_pytest/",
    "pytest/",
    "pluggy/",
    "pytest_asyncio/",
    "pytest_trio/",
    "anyio/",
    "trio/",
    "uvloop/",
    "outcome/",
    "sniffio/",
    "hypothesis/",
    "xdist/",
    "execnet/",
    "pytest_rerunfailures",
    "blockbuster/",
)


def _line(code: CodeType, lasti: int) -> int:
    for start, end, line in code.co_lines():
        if start <= lasti < end and line is not None:
            return line
    return code.co_firstlineno


def describe(code: CodeType, lasti: int) -> Site:
    """Turn one raw pair into a site with its source line."""
    return site_at(code.co_filename, _line(code, lasti), code.co_qualname)


def site_at(file: str, line: int, function: str = "") -> Site:
    """Return the site for a file and line, reading its source text."""
    try:
        source = linecache.getline(file, line).strip()
    except Exception:  # a broken loader must not cost the report
        source = ""
    if len(source) > 120:
        source = source[:117] + "..."
    return Site(shorten(file), line, function, source)


def project_site(raw: Raw | None) -> Site | None:
    """Return the frame that a reader would call "the line that made it".

    That is the innermost frame of the project itself; failing that of a library; failing
    that the innermost frame there is.
    """
    if not raw:
        return None
    best: tuple[CodeType, int] | None = None
    for pair in raw:
        rank = layer(pair[0].co_filename)
        if rank == 0:
            return describe(*pair)
        if rank == 1 and best is None:
            best = pair
    return describe(
        *(best or next((p for p in raw if not p[0].co_filename.startswith(_own)), raw[0]))
    )


def stack_sites(raw: Raw | Sequence[tuple[CodeType, int]], *, trim: bool = True) -> list[Site]:
    """Return the stack as sites, innermost first, without machinery frames if ``trim``."""
    pairs: Iterable[tuple[CodeType, int]] = raw
    if trim:
        kept = [p for p in raw if layer(p[0].co_filename) < 2]
        pairs = kept or raw
    return [describe(*p) for p in pairs]
