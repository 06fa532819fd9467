"""What the documentation says is so: examples run, output is real, tables match the code."""

from __future__ import annotations

import datetime
import functools
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
from blocks import PAGES, ROOT, Block, anchors, blocks, links, missing, numbered
from tables import TABLES, refreshed, tables_of

from tightship.config import load
from tightship.explain.remedies import REMEDIES
from tightship.probes import KINDS, MOMENTS

ALL = [b for page in PAGES for b in blocks(page)]
PLAIN = """\
[tool.pytest.ini_options]
asyncio_mode = "auto"
asyncio_default_fixture_loop_scope = "function"
"""


def test_pages_have_examples():
    """The reader of the pages works: otherwise everything below would pass."""
    assert sum(b.has_tests for b in ALL) >= 10
    assert {"python", "toml", "console", "text"} <= {b.language for b in ALL}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_marks_are_known(page):
    """A misspelt comment would switch a check off in silence."""
    known = {"output", "file", "options", "settings", "run", "suite", "not run"}
    assert {m for b in blocks(page) for m in b.marks} - {"table", "end"} <= known
    assert page.read_text("utf-8").count("\n```") % 2 == 0


def test_output_that_is_not_real_is_noticed():
    """What differs from run to run may differ; words, order and missing lines may not."""
    real = "made  /home/me/shop/test_shop.py:12   x = 1\nfd 7\nnoise\nfix   close it\n"
    assert missing("made test_shop.py:3 x = 2\nfd 12\n...\nfix close ...", real) is None
    assert missing("fix   close her", real) == "fix   close her"
    assert missing("fix   close it\nfd 7", real) == "fd 7"


# -- examples ------------------------------------------------------------------------------


def _rounds() -> dict[tuple[str, str, str], list[Block]]:
    """Return what is run together: the blocks of a page with the same settings and options."""
    found: dict[tuple[str, str, str], list[Block]] = {}
    for page in PAGES:
        settings = ""
        for block in blocks(page):
            if "settings" in block.marks:
                settings = block.text
            if block.has_tests and "not run" not in block.marks:
                key = (page.relative_to(ROOT).as_posix(), settings, block.marks.get("options", ""))
                found.setdefault(key, []).append(block)
    return found


ROUNDS = _rounds()


@pytest.mark.parametrize("key", ROUNDS, ids=lambda key: f"{key[0]}:{ROUNDS[key][0].line}")
def test_examples_do_what_the_page_says(key, tmp_path):
    """Examples with tests pass; those followed by output print it."""
    _, settings, options = key
    (tmp_path / "pyproject.toml").write_text(PLAIN + settings)
    for block in ROUNDS[key]:
        folder = tmp_path / _folder(block)
        folder.mkdir()
        for file in _beside(block):
            (folder / file.marks["file"]).write_text(file.text)
        (folder / block.marks.get("file", "test_it.py")).write_text(block.text)
    result = _run(
        [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider"]
        + ["--import-mode=importlib", *options.split()],
        tmp_path,
    )
    for block in ROUNDS[key]:
        output = _output(block)
        if output is not None:
            _compare(output, result)
            continue
        results = re.findall(rf"^(\w+) {_folder(block)}/", result, re.M)
        assert results, f"{block.name}: pytest found no tests\n{result}"
        assert set(results) <= {"PASSED", "SKIPPED", "XFAIL"}, f"{block.name} fails\n{result}"


SCRIPTS = [b for b in ALL if b.language == "python" and not b.has_tests]


@pytest.mark.parametrize("block", SCRIPTS, ids=numbered(SCRIPTS))
def test_scripts_run(block, tmp_path):
    """Examples without tests run as scripts, or compile if they cannot run alone."""
    compile(block.text, block.name, "exec")
    if "not run" in block.marks:
        return
    (tmp_path / "example.py").write_text(block.text)
    output = _output(block)
    result = _run([sys.executable, "example.py"], tmp_path, status=None if output else 0)
    if output is not None:
        _compare(output, result)


SUITES = [b for b in ALL if "suite" in b.marks]


@pytest.mark.parametrize("block", SUITES, ids=numbered(SUITES))
def test_output_of_suites_is_real(block):
    """What a page shows of a suite of this repository is what that suite prints."""
    _compare(block, _suite(block.marks["suite"]))


@functools.cache
def _suite(words: str) -> str:
    folder, suite = words.split()
    return _run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", suite], ROOT / folder)


COMMANDS = [b for b in ALL if b.language == "console" and "run" in b.marks]


@pytest.mark.parametrize("block", COMMANDS, ids=numbered(COMMANDS))
def test_commands_print_what_the_page_shows(block, tmp_path):
    """Commands are run in an empty folder, one after the other."""
    for part in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
        command, _, shown = part.partition("\n")
        words = command.split()
        assert words[0] == "tightship", f"{block.name}: only tightship commands can be run"
        program = Path(sys.executable).with_name("tightship")
        result = _run([str(program), *words[1:]], tmp_path, status=0, columns=80)
        line = missing(shown, result)
        assert line is None, f"{block.name}: not printed: {line}\n{result}"


TOML = [b for b in ALL if b.language == "toml"]


@pytest.mark.parametrize("block", TOML, ids=numbered(TOML))
def test_settings_are_valid(block, tmp_path):
    """Settings that a page shows are read without complaint."""
    tomllib.loads(block.text)
    (tmp_path / block.marks.get("file", "pyproject.toml")).write_text(block.text)
    load(tmp_path, env={}, cli={}, kinds=(*KINDS, *MOMENTS), today=datetime.date.today())


def _folder(block: Block) -> str:
    return f"at_{block.line:04}"


def _beside(block: Block) -> list[Block]:
    """Return the page's files that lie beside this block's tests."""
    files = {}
    for other in blocks(block.page):
        if other.line >= block.line:
            break
        if "file" in other.marks and other.language == "python" and not other.has_tests:
            files[other.marks["file"]] = other
    return list(files.values())


def _output(block: Block) -> Block | None:
    """Return the block that shows what this one prints."""
    for other in blocks(block.page):
        if other.line > block.line and other.language != "console":
            return other if "output" in other.marks else None
    return None


def _compare(output: Block, result: str) -> None:
    line = missing(output.text, result)
    assert line is None, f"{output.name}: not printed: {line}\n{result}"


def _run(command: list[str], folder: Path, *, status: int | None = None, columns: int = 200) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("TIGHTSHIP", "PYTEST"))}
    result = subprocess.run(
        command,
        cwd=folder,
        env={**env, "COLUMNS": str(columns), "PYTHONWARNINGS": "", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    printed = result.stdout + result.stderr
    assert status in (None, result.returncode), printed
    return printed


# -- tables --------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [p for p in PAGES if tables_of(p)], ids=lambda p: p.name)
def test_tables_match_the_code(page):
    """Tables are made from the code: python tests/docs/tables.py writes them anew."""
    text = page.read_text("utf-8")
    assert refreshed(text) == text, "python tests/docs/tables.py makes it right"


def test_every_table_is_somewhere():
    """None of the tables was lost."""
    assert {name for page in PAGES for name, _ in tables_of(page)} == set(TABLES)


def test_every_kind_is_described():
    """Each kind has a remedy and a section that answers the same questions."""
    text = (ROOT / "docs/reference/kinds.md").read_text("utf-8")
    sections = dict(re.findall(r"^### (\S+)\n(.*?)(?=^##|\Z)", text, re.M | re.S))
    assert list(sections) == list(KINDS)
    assert set(REMEDIES) == set(KINDS)
    for kind, section in sections.items():
        for word in ("**Counts:**", "**Certainty:**", "**Label:**", "**Not seen:**"):
            assert word in section, f"{kind}: {word} is missing"


def test_public_names_are_described():
    """The API page tells of everything that can be imported from the top."""
    import tightship

    text = (ROOT / "docs/reference/api.md").read_text("utf-8")
    missing_names = [n for n in tightship.__all__ if f"`{n}" not in text]
    assert not missing_names


# -- links ---------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    """Every relative link points to a file, and to a heading in it."""
    dead = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(target)
    assert not dead, textwrap.shorten(str(dead), 300)
