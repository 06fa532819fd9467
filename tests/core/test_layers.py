"""Imports point down, and pytest is known to the plugin alone."""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator

import tightship

HERE = pathlib.Path(tightship.__file__).parent

#: From the ground up. A module may import its own floor and those below.
FLOORS = (
    {"forks", "model"},
    {
        "ownership",
        "origin",
        "ledger",
        "settle",
        "survivors",
        "suggest",
        "budget",
        "rules",
        "config",
        "known",
        "policy",
        "fingerprint",
        "garbage",
        "journal",
    },
    {"births", "window", "probes", "runtimes", "explain", "reporters"},
    {"roster"},
    {"looking", "reported", "telling", "waiting"},
    {"attribution", "collected"},
    {"blocking", "forecast", "judging", "loopwatch"},
    {"watch"},
    {
        "blocks",
        "deadlines",
        "cancellation",
        "bounded",
        "closing",
        "concurrency",
        "doctor",
        "testing",
    },
    {"plugin", "cli", "__main__"},
)


def floor(name: str) -> int:
    for number, names in enumerate(FLOORS):
        if name in names:
            return number
    raise AssertionError(f"{name} has no floor: give it one in FLOORS")


def imports() -> Iterator[tuple[pathlib.Path, str, str]]:
    """Yield (file, its own first name, what it imports as a dotted name)."""
    for path in HERE.rglob("*.py"):
        parts = path.relative_to(HERE).with_suffix("").parts
        if parts == ("__init__",):  # the public face, which may see everything
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield path, parts[0], alias.name
            elif isinstance(node, ast.ImportFrom):
                package = ("tightship", *parts[:-1])
                base = package[: len(package) - node.level + 1] if node.level else ()
                dotted = ".".join((*base, *filter(None, [node.module])))
                if dotted == "tightship":
                    for alias in node.names:
                        yield path, parts[0], f"tightship.{alias.name}"
                else:
                    yield path, parts[0], dotted


def test_imports_point_down():
    """No module imports one of a floor above its own."""
    wrong = [
        f"{path.relative_to(HERE)} imports {target}"
        for path, own, target in imports()
        if target.startswith("tightship.")
        and not target.split(".")[1].startswith("__")
        and floor(target.split(".")[1]) > floor(own)
    ]
    assert not wrong


def test_pytest_is_imported_in_the_plugin_alone():
    """The core can be used without pytest."""
    wrong = [
        f"{path.relative_to(HERE)} imports {target}"
        for path, own, target in imports()
        if target.split(".")[0] in ("pytest", "_pytest", "pluggy") and own != "plugin"
    ]
    assert not wrong


def test_every_module_has_a_floor():
    """A new module is given its place."""
    for path in HERE.iterdir():
        if path.suffix == ".py" and path.stem != "__init__":
            floor(path.stem)
