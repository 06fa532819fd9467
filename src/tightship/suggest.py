"""Unknown words: what was given, what it was perhaps meant to be, what would be valid."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["nearest", "unknown"]


def nearest(word: str, valid: Collection[str]) -> str | None:
    """Return the valid word that ``word`` was perhaps meant to be, or None.

    Upper and lower case are the same here; ``_`` and ``-`` too, as both are used for options.
    """
    # Loaded only for a message that ends the run anyway.
    from difflib import get_close_matches

    plain = {_plain(v): v for v in valid}
    close = get_close_matches(_plain(word), list(plain), n=1, cutoff=0.6)
    return plain[close[0]] if close else None


def unknown(word: object, valid: Collection[str], what: str) -> str:
    """Return the message for a word that is not in ``valid``.

    Args:
        word: what was given. Anything but a string is shown, and gets no suggestion.
        valid: the words that would do, in the order to show them.
        what: what such a word is called: ``kind``, ``option``.
    """
    match = nearest(word, valid) if isinstance(word, str) else None
    hint = f"; did you mean {match!r}?" if match else "."
    return f"unknown {what} {word!r}{hint} Valid: {', '.join(valid)}"


def _plain(word: str) -> str:
    return word.lower().replace("_", "-")
