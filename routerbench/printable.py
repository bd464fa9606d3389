"""Text of others, as it may be shown."""

from collections.abc import Sequence

MOST_NAMED = 20  # in one line


def printable(text: str) -> str:
    """The text with control characters spelt out, so that no name moves the cursor or ends a line."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def some(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
