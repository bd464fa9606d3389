"""The products of values that a sweep is the sum of, in which the command line wins."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override

from routerbench.compose.words import parsed

ONE_NAME = ("router", "model", "data", "augment", "optim", "recipe")

Product = dict[str, list[str]]
"""By key its words, one for each value."""


def products(
    shared: Mapping[str, Any], union: Sequence[Mapping[str, Any]], of_user: Sequence[Override]
) -> list[Product]:
    """One product for each part of the union that the user's words leave.

    Where parts set a key that the user gives, each takes those of the user's values that it has, and all of
    them take a value that none has. Raises ValueError for words that leave no part.
    """
    parts = [_product(parsed(_words(part))) for part in union] or [{}]
    first, own = _product(parsed(_words(shared))), _product(of_user)
    found = []
    for part in parts:
        taken = {key: _taken(key, words, part, parts) for key, words in own.items()}
        if all(taken.values()):
            found.append({**first, **part, **taken})
    if not found:
        choosing = [str(o.input_line) for o in of_user if any(o.get_key_element() in part for part in parts)]
        raise ValueError(f"{' '.join(choosing)}: no part of the sweep's union has all of these")
    return found


def _taken(key: str, words: list[str], part: Product, parts: Sequence[Product]) -> list[str]:
    if key not in part:
        return words
    return [word for word in words if word in part[key] or not any(word in p.get(key, []) for p in parts)]


def _words(params: Mapping[str, Any]) -> list[str]:
    for key, value in params.items():
        if key in ONE_NAME and not isinstance(value, str):
            raise ValueError(f"{key}: {value} in the sweep: write names with commas and without brackets")
    return [f"{key}={value}" for key, value in params.items()]


def _product(overrides: Iterable[Override]) -> Product:
    """As Hydra's sweeper does: of two words for a key the later one."""
    product: Product = {}
    for override in overrides:
        (batch,) = BasicSweeper.split_arguments([override], None)
        product[override.get_key_element()] = [word for (word,) in batch]
    return product
