"""Text that comes from data, made safe for where it goes: a page, or the name of a file."""

import hashlib
import re

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
UNENCODABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""What no page can hold: control characters but for tab and newline, halves of a character, what is none."""
NO_NAMES = re.compile(r'[/\\:*?"<>|~]|^\.|[. ]$')
"""What a file's name cannot hold, start or end with on some system; `~` stands before a digest alone."""
DEVICES = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)", re.IGNORECASE)
"""Names that Windows keeps for itself, with any ending."""
NAME_BYTES = 100


def page_text(text: str) -> str:
    """A text that can be written as UTF-8 and read as a page: what cannot is replaced."""
    return UNENCODABLE.sub(REPLACEMENT, text)


def file_name(text: str) -> str:
    """The name of one file or folder, of 100 bytes at most; different texts have different names.

    A text that can be such a name is its own. Any other has what does not fit replaced, and ends in `~` and a digest of
    the text, which no other name can.
    """
    name = "".join(c if c.isprintable() else "_" for c in text)
    name = DEVICES.sub(r"_\g<0>", NO_NAMES.sub("_", name))
    if name and name == text and len(name.encode()) <= NAME_BYTES:
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    kept = name.encode()[: NAME_BYTES - 1 - len(digest)].decode("utf-8", "ignore")
    return f"{kept}~{digest}"
