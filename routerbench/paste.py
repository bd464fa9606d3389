"""Generated lines in a document that people write."""

from pathlib import Path


def pasted(document: str, lines: str, name: str) -> str:
    """The document with these lines, each with its end, in place of those between the markers of this name.

    ValueError unless both marker lines stand in it once, the first one before the other.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    old = document.splitlines(keepends=True)
    found = [(line.strip(), number) for number, line in enumerate(old) if line.strip() in (begin, end)]
    if [marker for marker, _ in found] != [begin, end]:
        raise ValueError(f"does not hold the lines {begin} and {end} once each, in this order: add them")
    (_, first), (_, last) = found
    return "".join([*old[: first + 1], lines, *old[last:]])


def pasted_file(path: Path, lines: str, name: str) -> str:
    """The same for the text of a file; raises ValueError for one that is missing or without the markers."""
    if not path.is_file():
        raise ValueError(f"paste={str(path)!r} is not a file: give the Markdown file that shows the {name}s")
    try:
        # Bytes, as reading text would turn the line ends of the rest of the file.
        return pasted(path.read_bytes().decode(), lines, name)
    except ValueError as error:
        raise ValueError(f"paste={str(path)!r} {error}") from error
