"""Names of videos: which cannot be right, and how they and other text of a file are shown in a sentence."""

import unicodedata
from collections.abc import Sequence

LONGEST_NAME = 200
MOST_SHOWN = 200
UNPRINTABLE = {"Cc": "a control character", "Cs": "half a character", "Zl": "a line break", "Zp": "a line break"}


def problem_of_name(name: str) -> str | None:
    """Return what is wrong with the name of a video, to go on "the video name NAME ..."; None when it may be one.

    A name may hold any letters and signs, and spaces. Whoever writes it into a path or a plot makes it safe for that.
    """
    if not name:
        return "is empty"
    if len(name) > LONGEST_NAME:
        return f"has {len(name)} characters: expected {LONGEST_NAME} at most"
    if name.isprintable():
        return None
    odd = next((sign for sign in name if unicodedata.category(sign) in UNPRINTABLE), None)
    return f"holds {UNPRINTABLE[unicodedata.category(odd)]} ({odd!a})" if odd else None


def shown(text: str) -> str:
    """Return text from a file on one line of a sentence: no control characters, and not too much of it."""
    start = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text[:MOST_SHOWN])
    return start + ("..." if len(text) > MOST_SHOWN else "")


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first few names, and dots for the others."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
