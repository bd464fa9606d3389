"""The words of `routerbench eval`: which runs, which settings, and what is asked of them."""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routerbench.checks import check_count, check_not_negative, check_one_of, check_positive
from routerbench.evaluations.names import REPLACEMENTS, STUDIES

FLAGS = {"true": True, "false": False}


@dataclass(frozen=True)
class Options:
    """The words, taken apart; nothing heavy is imported for it."""

    folders: tuple[Path, ...]
    settings: tuple[str, ...]
    studies: tuple[str, ...]
    asked: dict[str, Any]
    """Fields of `measurement.Asked`."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Make the words known."""
    parser.add_argument("words", nargs="*", metavar="RUN", help="folders of finished runs, settings eval.*")
    parser.add_argument(
        "--only",
        metavar="STUDIES",
        help=f"of {','.join(STUDIES)}; without it all, images where settings are given",
    )
    parser.add_argument("--capacity-factor", metavar="C", help="such as 0.1,0.5,1,dropless")
    parser.add_argument("--top-k", metavar="K", help="choices of a token, such as 1,2")
    parser.add_argument("--batch-priority", metavar="FLAGS", help="true, false or true,false")
    parser.add_argument("--group", metavar="GROUPS", help="images routed together, such as image,8")
    parser.add_argument("--groupings", type=int, default=10, metavar="N", help="random orders of the images")
    parser.add_argument(
        "--replace", metavar="NAMES", help="in the router's place, such as random,frozen: docs/eval.md"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of every random choice")
    parser.add_argument("--again", action="store_true", help="measure what is in the records, too")
    parser.add_argument("--json", action="store_true", help="all results as one document, and nothing else")


def checked(arguments: argparse.Namespace) -> Options:
    """The words taken apart; raises ValueError for one that means nothing."""
    for name in ("groupings", "threads"):
        if getattr(arguments, name) is not None:
            check_count(f"--{name}", getattr(arguments, name))
    check_not_negative("--seed", arguments.seed)
    folders = [word for word in arguments.words if Path(word).is_dir() or "=" not in word]
    if not folders:
        raise ValueError("eval needs folders of finished runs, such as results/runs/*")
    unique = {Path(folder).resolve(): Path(folder) for folder in folders}
    asked = {
        "capacity_factors": _each(arguments, "capacity_factor", _factor),
        "top_ks": _each(arguments, "top_k", _count),
        "priorities": _each(arguments, "batch_priority", _flag),
        "groups": _each(arguments, "group", _group),
        "replacements": _each(arguments, "replace", _replacement),
        "num_groupings": arguments.groupings,
        "seed": arguments.seed,
    }
    studies = _each(arguments, "only", _study)
    settings = tuple(word for word in arguments.words if word not in folders)
    usual = STUDIES if settings else STUDIES[:-1]  # images are those that the settings say
    return Options(
        folders=tuple(unique.values()),
        settings=settings,
        studies=tuple(study for study in STUDIES if study in (studies or usual)),
        asked=asked,
    )


def _each(arguments: argparse.Namespace, name: str, value: Callable[[str, str], Any]) -> Sequence[Any]:
    """The values of a word such as 1,2."""
    text = getattr(arguments, name)
    option = f"--{name.replace('_', '-')}"
    words = [] if text is None else [word.strip() for word in text.split(",")]
    if "" in words:
        raise ValueError(f"{option}={text} has an empty value: give some, separated by commas")
    return tuple(value(option, word) for word in words)


def _factor(option: str, word: str) -> float | str:
    if word == "dropless":
        return word
    try:
        factor = float(word)
    except ValueError:
        raise ValueError(f"{option}={word} is neither a number nor dropless") from None
    if not math.isfinite(factor):
        raise ValueError(f"{option}={word} must be a finite number: dropless has slots for every token")
    check_positive(option, factor)
    return factor


def _count(option: str, word: str) -> int:
    if not word.isdecimal():
        raise ValueError(f"{option}={word} must be a whole number of at least 1")
    check_count(option, int(word))
    return int(word)


def _flag(option: str, word: str) -> bool:
    check_one_of(option, word, tuple(FLAGS))
    return FLAGS[word]


def _group(option: str, word: str) -> str | int:
    if word == "image":
        return word
    if not word.isdecimal() or not int(word):
        raise ValueError(f"{option}={word} is neither image nor a number of images")
    return int(word)


def _replacement(option: str, word: str) -> str:
    check_one_of(option, word, REPLACEMENTS)
    return word


def _study(option: str, word: str) -> str:
    check_one_of(option, word, STUDIES)
    return word
