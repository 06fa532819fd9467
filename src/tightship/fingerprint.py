"""Fingerprints: the same finding has the same one in the next run, and on another machine.

What changes without the code changing is erased: line numbers, other digits, addresses,
temporary paths, parameters of the test, pytest-xdist's group.
"""

from __future__ import annotations

import hashlib
import json
import re

from .model import Finding

__all__ = ["LENGTH", "erase", "erase_digits", "fingerprint"]

#: Hex digits of a fingerprint: a collision among ten thousand has odds of one in five million.
LENGTH = 12

_TEMP = re.compile(
    r"(?:[A-Za-z]:)?[^\s'\"]*?"
    r"(?:(?<![\w.])/tmp|/private/tmp|/var/tmp|/var/folders|/Local/Temp|/pytest-of-[^/\s'\"]+)"
    r"(?:/[^/\s'\"]+)*(?=/)"
)
#: What `tempfile` makes up: eight characters, of which digits may be erased already.
_RANDOM = re.compile(r"\btmp(?:[a-z0-9_]{8}|(?=[a-z_]*\*)[a-z_*]{1,8})(?![a-z0-9_*])")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]+")
_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.I)
_DIGITS = re.compile(r"\d+")
_GROUP = re.compile(r"@[^@\[\]/:]*$")
_PARAMETERS = re.compile(r"\[.*\]", re.S)


def erase_digits(text: str) -> str:
    """Return a text with addresses and runs of digits as ``*``."""
    return _DIGITS.sub("*", _ADDRESS.sub("*", text))


def erase(text: str) -> str:
    """Return a text without anything that changes from run to run.

    Of a temporary path the last part stays, unless `tempfile` made that up as well.
    """
    text = text.replace("\\", "/")
    return erase_digits(_UUID.sub("*", _RANDOM.sub("tmp*", _TEMP.sub("<tmp>", text))))


def fingerprint(finding: Finding) -> str:
    """Return 12 hex digits that name this finding in every run.

    Made of the kind, the label, the owner's name without parameters, and the file, function
    and source text of the line that made it; not of the line's number.
    """
    made = finding.made
    site = (made.file, made.function, " ".join(made.source.split())) if made else ()
    parts = [finding.kind, finding.label, _plain_owner(finding.owner), *site]
    text = json.dumps([erase(part) for part in parts])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:LENGTH]


def _plain_owner(owner: str) -> str:
    return _PARAMETERS.sub("", _GROUP.sub("", owner))
