"""The words of `routerbench report`, and what of them is refused before a record is read."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from routerbench.checks import check_positive

TOP1 = "test/top1"
EVALUATED = "eval/"  # begins the name of an accuracy that was found after training
MOST_POINTS = 100
WANDB = re.compile(r"^wandb:[^/\s]+/[^/\s]+$")
# A comma parts two values unless it stands in brackets, as that of placement=[3,5].
BETWEEN_VALUES = re.compile(r",(?![^\[]*\])")
EPILOG = """\
examples:
  routerbench report --where router=soft,dense --where seed=0,1,2
  routerbench report --by model,placement --where router=expert_choice
  routerbench report --metric fewshot/10 --sweep routers
  routerbench report --metric eval/capacity/dropless=true/top1
  routerbench report --source wandb:vision/routerbench --results results --out report
"""


@dataclass(frozen=True)
class Options:
    """What a report is asked: which runs it reads and takes, what it compares, and what it writes where.

    `results` is None where the runs come from `source` alone; `delta` in points.
    """

    results: Path | None
    out: Path
    source: str | None = None
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sweep: str | None = None
    by: tuple[str, ...] = ("router",)
    metric: str = TOP1
    delta: float = 0.3
    claims: bool = False
    check_null: bool = False
    paste: Path | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Everything that `routerbench report` takes; lists are separated by commas."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    runs = parser.add_argument_group("which runs")
    runs.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="folder of the records (results, unless --source is given)",
    )
    runs.add_argument(
        "--source",
        metavar="wandb:ENTITY/PROJECT",
        help="the runs that W&B mirrors, beside those of --results if that is given too",
    )
    runs.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUES",
        help="only runs of which this is true: router=soft,hash, data=cifar10, placement=[3,5], seed=0,1, "
        "router.top_k=2, status=done ...; repeatable; a dense run has no setting of the MoE and fits any",
    )
    runs.add_argument("--sweep", metavar="NAME", help="only runs of this question of sweeps/")
    compared = parser.add_argument_group("what is compared")
    compared.add_argument(
        "--by",
        type=_words,
        default=("router",),
        metavar="LIST",
        help="in which settings the rows of a board differ (router); all else is equal on it",
    )
    compared.add_argument(
        "--metric",
        default=TOP1,
        metavar="NAME",
        help=f"accuracy of the records ({TOP1}), also {EVALUATED}STUDY/MODE/NAME of `routerbench eval`",
    )
    compared.add_argument(
        "--delta",
        type=_number,
        default=0.3,
        metavar="POINTS",
        help="the difference within which two rows count as equivalent (0.3)",
    )
    shown = parser.add_argument_group("what is shown")
    shown.add_argument(
        "--claims", action="store_true", help="what these runs say of the claims of the published studies"
    )
    shown.add_argument(
        "--check-null",
        action="store_true",
        help="how often the report claims a difference where labels are permuted, thus none is",
    )
    shown.add_argument(
        "--out", type=Path, metavar="DIR", help="where the files go (the folder of the records)"
    )
    shown.add_argument(
        "--paste", type=Path, metavar="FILE", help="also replace the board in this Markdown file"
    )


def checked(arguments: argparse.Namespace) -> Options:
    """The options; raises ValueError for what cannot be meant."""
    given = dict(vars(arguments))
    if given["source"] is not None and not WANDB.match(given["source"]):
        raise ValueError(f"--source={given['source']} is no source: give wandb:ENTITY/PROJECT")
    check_positive("--delta", given["delta"])
    if given["claims"] and given["check_null"]:
        raise ValueError("--claims and --check-null are two questions: give one of them")
    if given["delta"] > MOST_POINTS:
        raise ValueError(f"--delta={given['delta']} is above {MOST_POINTS} points: give some, such as 0.3")
    if given["check_null"] and (given["paste"] or given["out"]):
        raise ValueError("--check-null writes no files: leave out --out and --paste")
    if len(set(given["by"])) < len(given["by"]):
        raise ValueError(f"--by={','.join(given['by'])} names a setting twice: give each once")
    if "" in given["by"]:
        raise ValueError(
            f"--by={','.join(given['by'])} has an empty name: give settings, such as router,placement"
        )
    results = given["results"] or (None if given["source"] else Path("results"))
    out = given["out"] or results or Path("results")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out={out} is no folder: give one")
    chosen = {"results": results, "out": out, "where": _where(given["where"])}
    return Options(**{name: given[name] for name in Options.__dataclass_fields__} | chosen)


def _where(words: list[str]) -> dict[str, tuple[str, ...]]:
    """The wanted values by setting."""
    where: dict[str, tuple[str, ...]] = {}
    for word in words:
        key, equals, values = word.partition("=")
        if not key or not equals or not values:
            raise ValueError(f"--where {word} is no KEY=VALUE: give one, such as router=soft")
        if key in where:
            raise ValueError(f"--where {key} stands there twice: give its values once, separated by commas")
        where[key] = tuple(value.strip() for value in BETWEEN_VALUES.split(values))
    return where


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
