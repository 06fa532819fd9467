"""Reading the documentation: its code blocks, what is said about them, and its links.

A block is a fence at the beginning of a line. HTML comments right before it say what is to be
done with it; readers do not see them:

``<!-- output: lines must appear -->``
    before a ``text`` block: what the ``python`` block above it prints, line by line, in this
    order. ``...`` stands for lines left out; a line that ends with ``...`` is a beginning.
``<!-- file: conftest.py -->``
    the name to save the block as. A file without tests lies beside the tests of all later
    blocks of the page.
``<!-- options: --tightship=off -->``
    what to hand to pytest.
``<!-- settings -->``
    before a ``toml`` block: the settings of the tests that follow, up to the next such block.
``<!-- run -->``
    before a ``console`` block: run its ``tightship`` commands and compare what they print.
``<!-- suite: examples/stockroom tests_leaky -->``
    before a ``text`` block: what this suite of the repository prints.
``<!-- not run: why -->``
    compile the block, no more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["PAGES", "ROOT", "Block", "anchors", "blocks", "links", "missing", "normal"]

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_COMMENT = re.compile(r"<!-- ([\w ]+?)(?:: (.*?))? -->\n*", re.S)
_BEFORE = re.compile(r"(?:<!--(?:(?!-->).)*-->\n+)+\Z", re.S)


@dataclass
class Block:
    """One block of a page."""

    page: Path
    line: int
    language: str
    text: str
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The place, for messages: ``docs/tutorial.md:12``."""
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"

    @property
    def has_tests(self) -> bool:
        """True if pytest would find tests in it."""
        return (
            self.language == "python"
            and re.search(r"^\s*(async )?def test_", self.text, re.M) is not None
        )


def blocks(page: Path) -> list[Block]:
    """Return all blocks of a page."""
    text = page.read_text("utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        before = _BEFORE.search(text[: fence.start()])
        marks = dict(_COMMENT.findall(before[0])) if before else {}
        line = text.count("\n", 0, fence.start()) + 2
        found.append(Block(page, line, fence[1], fence[2], marks))
    return found


# -- comparing -----------------------------------------------------------------------------


def normal(line: str) -> str:
    """Return a line without what differs from run to run: numbers, paths, runs of filling."""
    line = re.sub(r"\x1b\[[0-9;]*m", "", line)
    line = re.sub(r"\bat_\d+/", "", line)
    # Of an absolute path the last part stays.
    line = re.sub(r"(?<![\w.])(?:/[\w.+-]+)+/(?=[\w.+-])", "", line)
    line = re.sub(r"(?<=\bpython)[\d.]+\b", "", line)
    line = re.sub(r"\[ *\d+%\]", "", line)
    line = re.sub(r"\d+", "0", line)
    return re.sub(r"([ =_-])\1+", r"\1", line).strip()


def missing(shown: str, real: str) -> str | None:
    """Return the first shown line that the real output does not have in this order, or None."""
    lines = iter([normal(x) for x in real.splitlines()])
    for line in shown.splitlines():
        wanted = normal(line)
        if not wanted or wanted == "...":
            continue
        begins = wanted.removesuffix("...").rstrip()
        if not any(x.startswith(begins) if wanted.endswith("...") else x == wanted for x in lines):
            return line
    return None


# -- links ---------------------------------------------------------------------------------


def links(page: Path) -> Iterator[str]:
    """Yield the targets of a page's relative links."""
    prose = _FENCE.sub("", page.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as code hosts make them."""
    prose = _FENCE.sub("", page.read_text("utf-8"))
    return set(map(_anchor, re.findall(r"^#+ (.+)$", prose, re.M)))


def _anchor(heading: str) -> str:
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return kept.strip().replace(" ", "-")


def numbered(items: Iterable[Block]) -> list[str]:
    """Return the names of blocks, as ids for pytest."""
    return [b.name for b in items]
