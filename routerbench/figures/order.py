"""The order in which layers are drawn."""

import re


def in_natural_order(name: str) -> list[tuple[bool, int, str]]:
    """A key that puts blocks.2 before blocks.10."""
    return [
        (not part.isdecimal(), int(part) if part.isdecimal() else 0, part)
        for part in re.split(r"(\d+)", name)
    ]
