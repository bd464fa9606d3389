"""From the words of a command to configurations, and from Hydra's errors to one line."""

from routerbench.compose.asked import Asked, asked, compose_sweep
from routerbench.compose.cells import Cell, Sweep
from routerbench.compose.errors import one_line
from routerbench.compose.own_files import import_from
from routerbench.compose.products import Product
from routerbench.compose.words import quoted, repeating

__all__ = [
    "Asked",
    "Cell",
    "Product",
    "Sweep",
    "asked",
    "compose_sweep",
    "import_from",
    "one_line",
    "quoted",
    "repeating",
]
