"""The ``tightship`` command: a self-check, and a reader for journals."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["main"]

#: What a shell reports for a program that a closed pipe ended.
_SIGPIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status.

    0: all is well. 1: the self-check missed a leak or reported what was none. 2: bad
    arguments, settings or files.

    Args:
        argv: the arguments, those of the process if None.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read this has seen enough. Python would complain again when it exits.
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (OSError, ValueError):
            pass
        return _SIGPIPE
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    from . import __version__

    parser = argparse.ArgumentParser(
        prog="tightship",
        description="Every async test leaves the ship as it found it.",
    )
    parser.add_argument("--version", action="version", version=f"tightship {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    doctor = commands.add_parser(
        "doctor",
        help="plant one leak of each kind and see that it is caught; check the settings",
        description="Plant one real leak of each kind, in a process of its own, and see that it "
        "is caught; see that a clean twin is not. Then check the settings of this directory.",
        epilog="Exit status: 0 all is well, 1 something was missed or a clean twin was "
        "reported, 2 the settings are wrong.",
    )
    doctor.add_argument(
        "--kind",
        action="append",
        metavar="KIND",
        help="check only this kind; may be given more than once",
    )
    doctor.add_argument("--json", action="store_true", help="write one JSON object")
    doctor.set_defaults(run=_doctor)
    journal = commands.add_parser(
        "journal",
        help="print what a journal holds",
        description="Print the findings of a journal (pytest --tightship-journal=FILE).",
        epilog="Exit status: 0 it was read, whatever it holds, 2 it cannot be read.",
    )
    journal.add_argument("file", metavar="FILE")
    journal.set_defaults(run=_journal)
    return parser


def _fail(text: str) -> int:
    sys.stdout.flush()
    print(f"tightship: {text}", file=sys.stderr)
    return 2


# -- doctor --------------------------------------------------------------------------------------


def _doctor(args: argparse.Namespace) -> int:
    from pathlib import Path

    from . import doctor
    from .probes import KINDS, MOMENTS

    try:
        kinds = doctor.kinds_of(args.kind)
    except ValueError as exc:
        return _fail(str(exc))
    foreign, broken = doctor.foreign_kinds()
    here = Path.cwd()
    settings = doctor.settings(here, dict(os.environ), (*KINDS, *MOMENTS, *foreign))
    if args.json:
        checks = list(doctor.check(kinds))
        _write_json(doctor, checks, settings, here, foreign, broken)
    else:
        checks = list(_told(doctor.check(kinds)))
        _write(doctor, checks, settings, here, foreign, broken)
    if settings.error:
        return 2
    return 1 if any(c.failed for c in checks) else 0


def _told(checks: Iterator[Any]) -> Iterator[Any]:
    for check in checks:
        print(check, flush=True)
        yield check


def _write(
    doctor: Any, checks: list[Any], settings: Any, here: Any, foreign: Any, broken: list[str]
) -> None:
    counts = Counter(c.outcome for c in checks)
    words = {
        "caught": "caught",
        "missed": "missed",
        "noisy": "reported without a leak",
        "broken": "not checked",
        "blind": "not watched here",
    }
    told = ", ".join(f"{counts[o]} {w}" for o, w in words.items() if counts[o])
    print(f"{len(checks)} kind{'s' if len(checks) != 1 else ''}: {told}")
    if foreign:
        print(f"added by other packages, not checked: {', '.join(foreign)}")
    for text in broken:
        print(f"cannot be loaded: {text}")
    print(f"\nsettings in {here}")
    if settings.error:
        sys.stdout.flush()
        print(f"  ERROR: {settings.error}", file=sys.stderr)
    wide = max((len(f"{k} = {v}") for k, v, _ in settings.values), default=0)
    for key, value, where in settings.values:
        print(f"  {f'{key} = {value}':<{wide}}  {where}")
    for selector, reason, where in settings.allow:
        print(f"  allowed: {selector}  {reason}  ({where})")
    for selector, until, where in settings.expired:
        print(f"  EXPIRED on {until}: {selector}  ({where})")
    print("\nversions")
    for name, version in doctor.versions():
        print(f"  {name:<15} {version}")
    spots = doctor.blind_spots()
    if spots:
        print("\ncannot be watched here")
        for spot in spots:
            print(f"  {spot}")


def _write_json(
    doctor: Any, checks: list[Any], settings: Any, here: Any, foreign: Any, broken: list[str]
) -> None:
    import json

    data = {
        "checks": [{"kind": c.kind, "outcome": c.outcome, "text": c.text} for c in checks],
        "settings": {
            "directory": str(here),
            "error": settings.error or None,
            "values": [{"key": k, "value": v, "source": w} for k, v, w in settings.values],
            "allow": [{"what": s, "reason": r, "source": w} for s, r, w in settings.allow],
            "expired": [{"what": s, "until": u, "source": w} for s, u, w in settings.expired],
        },
        "foreign_kinds": list(foreign),
        "broken_probes": broken,
        "versions": dict(doctor.versions()),
        "blind": doctor.blind_spots(),
    }
    print(json.dumps(data, indent=2))


# -- journal -------------------------------------------------------------------------------------


def _journal(args: argparse.Namespace) -> int:
    from .journal import JournalError, read
    from .model import Finding

    tests = 0
    runs: list[dict[str, Any]] = []
    findings: list[Finding] = []
    try:
        for number, record in enumerate(read(args.file), 1):
            if record["event"] == "run":
                runs.append(record)
            elif record["event"] == "test":
                tests += 1
            try:
                findings += [Finding.from_dict(d) for d in record.get("findings", ())]
            except (KeyError, TypeError, ValueError, AttributeError) as exc:
                raise JournalError(
                    f"{args.file}, record {number}: this is no finding "
                    f"({type(exc).__name__}: {exc}). The journal was edited, or is damaged."
                ) from exc
    except JournalError as exc:
        return _fail(str(exc))
    _print_journal(args.file, runs, tests, findings)
    return 0


def _print_journal(file: str, runs: list[dict[str, Any]], tests: int, findings: list[Any]) -> None:
    from .model import Verdict
    from .policy import group
    from .reporters import terminal

    if not runs and not tests:
        print(f"{file}: empty, no run and no test")
        return
    for run in runs:
        print(
            f"run of {run.get('started', '?')}, tightship {run.get('tightship', '?')}, "
            f"Python {run.get('python', '?')}"
        )
    grouped = group(findings)
    failing = [f for f in grouped if f.verdict is Verdict.FAIL]
    others = [f for f in grouped if f.verdict in (Verdict.NOTE, Verdict.SLOW)]
    allowed = [f for f in grouped if f.verdict is Verdict.ALLOWED]
    for title, some in (("", failing), ("noted, without failing a test", others)):
        if some:
            print(f"\n-- {title} --" if title else "")
            # All of them: whoever opens a journal has come for the details.
            print("" if not title else "\n", end="")
            print(terminal.report(some, limit=len(some)))
    extra = [
        f"{sum(f.count for f in some)} {word}"
        for some, word in (
            ([f for f in others if f.verdict is Verdict.SLOW], "slow to close"),
            ([f for f in others if f.verdict is Verdict.NOTE], "noted"),
            (allowed, "allowed"),
        )
        if some
    ]
    line = f"{terminal.closing(failing)} in {tests} test{'s' if tests != 1 else ''}"
    print("\n" + line + (f" ({', '.join(extra)})" if extra else ""))
