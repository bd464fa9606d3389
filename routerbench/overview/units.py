"""Large numbers as people say them."""

SECONDS = {"d": 86_400, "h": 3_600, "min": 60}
THOUSANDS = ("", "k", "M", "G", "T", "P", "E", "Z")


def in_thousands(number: int | float) -> str:
    """Three digits and a prefix: 10.9 M, 1.20 P."""
    step = 0
    while abs(number) >= 999.5 and step < len(THOUSANDS) - 1:
        number, step = number / 1000, step + 1
    digits = 0 if number >= 99.95 or not step else 1 if number >= 9.995 else 2
    return f"{number:.{digits}f} {THOUSANDS[step]}".rstrip()


def duration(seconds: int | float) -> str:
    """The largest fitting unit: 45 s, 12.5 min, 3.2 h, 2.0 d."""
    for unit, length in SECONDS.items():
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def numbers(values: list[int]) -> str:
    """Whole numbers in order, neighbours together: 0-2,5."""
    parts: list[list[int]] = []
    for value in sorted(values):
        if parts and value == parts[-1][-1] + 1:
            parts[-1].append(value)
        else:
            parts.append([value])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
