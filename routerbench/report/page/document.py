"""What pages have in common: they escape what they are given, ask for nothing, and share a style."""

import base64
import hashlib
import math
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from routerbench.printable import printable
from routerbench.report.tables.table import Cell

HERE = Path(__file__).parent


def environment(templates: Path) -> Environment:
    """Everything that comes from a record is escaped, and its control characters are spelt out."""
    made = Environment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_literal,
    )
    made.filters["breakable"] = _breakable
    made.globals["sorted_by"] = _sorted_by
    return made


def own_text(name: str) -> Markup:
    """A file of this folder, which goes into a page as it is."""
    return Markup((HERE / name).read_text(encoding="utf-8"))


def policy(style: str, script: str = "") -> str:
    """The Content-Security-Policy: this style, this script, pictures of the page itself, and nothing else."""
    scripts = f"script-src '{_hash(script)}'; " if script else ""
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; {scripts}"
        "base-uri 'none'; form-action 'none'"
    )


def _literal(value: Any) -> Any:
    return value if isinstance(value, Markup) else printable(str(value))


def _breakable(text: str) -> Markup:
    """A name that may be broken after each of its words."""
    return Markup("<wbr>").join(re.split(r"(?<=[_/=])", printable(text)))


def _sorted_by(cell: Cell) -> Markup:
    """The number that a cell is sorted by as an attribute; without a value where its text is that number."""
    if cell.value is None or math.isnan(cell.value):
        return Markup()
    number = f"{cell.value:.7g}"
    return Markup(" data-v") if number == cell.text else Markup(' data-v="{}"').format(number)


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
