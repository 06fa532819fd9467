"""What a process is: its command line without secrets, its state, its parent, its age."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["ProcessInfo", "describe", "redact"]

_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting for a device",
    "Z": "zombie",
    "T": "stopped",
    "t": "stopped by a debugger",
    "X": "dead",
    "x": "dead",
    "I": "idle",
}


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One process, in words and numbers."""

    pid: int
    command: str
    """The command line with secrets as ``***``; ``[name]`` if it has none (a zombie)."""
    state: str
    """running, sleeping, zombie, stopped ..."""
    parent: int
    seconds: float
    """How long it has been alive."""

    def __str__(self) -> str:
        return f"{self.command} ({self.state} for {self.seconds:.1f} s)"


def describe(pid: int) -> ProcessInfo | None:
    """Describe a process, or return None if it is gone. Never raises."""
    try:
        if os.path.exists("/proc/self/stat"):
            return _from_proc(pid)
        return _from_psutil(pid)
    except Exception:  # it may vanish between any two reads
        return None


def _from_proc(pid: int) -> ProcessInfo:
    with open(f"/proc/{pid:d}/stat", "rb", buffering=0) as file:
        text = file.read().decode("utf-8", "replace")
    # The name in parentheses may itself contain spaces and parentheses.
    name = text[text.index("(") + 1 : text.rindex(")")]
    fields = text[text.rindex(")") + 2 :].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    seconds = max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    try:
        with open(f"/proc/{pid:d}/cmdline", "rb", buffering=0) as file:
            words = file.read(16384).decode("utf-8", "replace").rstrip("\0").split("\0")
    except OSError:
        words = [""]
    command = redact(words) if words != [""] else f"[{name}]"
    return ProcessInfo(pid, command, _STATES.get(fields[0], fields[0]), int(fields[1]), seconds)


def _from_psutil(pid: int) -> ProcessInfo | None:
    from importlib import import_module

    process = import_module("psutil").Process(pid)
    words = process.cmdline()
    return ProcessInfo(
        pid,
        redact(words) if words else f"[{process.name()}]",
        process.status(),
        process.ppid(),
        max(0.0, time.time() - process.create_time()),
    )


_SECRET = (
    r"[\w.-]*(?:password|passwd|passphrase|pwd|secret|token|credential|auth"
    r"|api[-_]?key|access[-_]?key|private[-_]?key)s?[\w.-]*"
)
#: password=x, --token=x, "secret": "x", PGPASSWORD=x
_PAIR = re.compile(
    rf"({_SECRET}[\"']?\s*[=:]\s*)((?:bearer|basic)\s+\S+|\"[^\"]*\"|'[^']*'|[^\s,;&\"']+)", re.I
)
#: The same as a whole argument: its value may contain spaces.
_WHOLE = re.compile(rf"((?:--?)?{_SECRET}=).+", re.I | re.S)
_FLAG = re.compile(rf"--?{_SECRET}", re.I)
_URL = re.compile(r"(\w[\w+.-]*://)[^/\s@\"']*(?:[^/\s\"']*)@")
_BEARER = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.I)
_USER = re.compile(r"([^:\s]+):\S+")


def redact(words: Sequence[str], limit: int = 200) -> str:
    """Return a command line as one line of text, with secrets replaced by ``***``."""
    shown: list[str] = []
    before = ""
    for word in words:
        if _FLAG.fullmatch(before) and not word.startswith("--"):
            text = "***"
        elif before in ("-u", "--user") and _USER.fullmatch(word):
            text = _USER.sub(r"\1:***", word)
        else:
            text = _WHOLE.sub(r"\1***", word) if _WHOLE.fullmatch(word) else word
            text = _URL.sub(r"\1***@", text)
            text = _PAIR.sub(r"\1***", text)
            text = _BEARER.sub(r"\1 ***", text)
        shown.append(" ".join(text.split()))
        before = word
    line = " ".join(shown)
    return line if len(line) <= limit else line[: limit - 3] + "..."
