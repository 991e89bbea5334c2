"""Class names as they are shown: whatever a data set calls its classes, a title stays one short line."""

import unicodedata
from collections.abc import Sequence

LONGEST = 40
_MOST = 24
_LINES = ("Cc", "Zl", "Zp")  # Unicode's categories of what controls, and of what ends lines and paragraphs
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def class_title(name: str) -> str:
    """Return a class's name for people: one line, nothing in it that turns the text around, 40 characters at most.

    Examples
    --------
    >>> class_title("bees"), class_title("two\\nlines"), class_title("ab\\u202edc")
    ('bees', 'two lines', 'abdc')
    >>> len(class_title("x" * 300)), class_title("x" * 300)[-2:]
    (40, 'x…')
    """
    text = one_line(name)
    return text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "…"


def class_in_words(name: str) -> str:
    """Return a class's name as it stands in a sentence beside numbers: a bare number would look like one of them.

    Examples
    --------
    >>> class_in_words("bees"), class_in_words("5")
    ('bees', 'class 5')
    """
    title = class_title(name)
    return f"class {title}" if title.isdecimal() else title


def one_line(name: str) -> str:
    """Return a name without what ends lines, controls, or turns the text around."""
    kept = (" " if unicodedata.category(each) in _LINES else each for each in name if each not in _BIDI)
    return " ".join("".join("\ufffd" if unicodedata.category(each) == "Cs" else each for each in kept).split())


def list_classes(classes: Sequence[str]) -> str:
    """Return the names of classes, the first of many.

    Examples
    --------
    >>> list_classes(["ants", "bees"])
    'ants, bees'
    >>> list_classes([str(number) for number in range(26)]).endswith("22, 23 and 2 more")
    True
    """
    shown = ", ".join(map(class_title, classes[:_MOST]))
    return f"{shown} and {len(classes) - _MOST} more" if len(classes) > _MOST else shown
