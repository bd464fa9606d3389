"""Text of others, as it may be shown."""


def printable(text: str) -> str:
    """The text with control characters spelt out, so that no name moves the cursor or ends a line."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
