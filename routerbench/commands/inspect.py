"""`routerbench inspect`: what the routers of trained models do, in numbers and pictures."""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from routerbench.checks import check_count, check_not_negative
from routerbench.commands.opening import add_opening, be_ready
from routerbench.refusal import refuse

if TYPE_CHECKING:
    from routerbench.inspection.asked import Asked
    from routerbench.inspection.run import Outcome

EPILOG = """\
examples:
  routerbench inspect results/runs/RUN
  routerbench inspect results/runs/*token_choice-s* --classes water,cropland
  routerbench inspect results/runs/RUN --least 8 --layers blocks.5 --pdf
"""
FORMATS = ("png", "pdf")  # beside SVG
MEANS = {"class": "class", "position": "position", "next_layer": "next layer"}


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Make the command known."""
    parser = commands.add_parser(
        "inspect",
        help="who serves what: maps, specialisation, pictures of images",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs")
    _add_pictures(parser)
    _add_measuring(parser)
    add_opening(parser)
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.set_defaults(run=run)


def _add_pictures(parser: argparse.ArgumentParser) -> None:
    pictures = parser.add_argument_group("what is drawn")
    images = pictures.add_mutually_exclusive_group()
    images.add_argument("--images", metavar="N,N", help="places in the test set, counted from 0")
    images.add_argument("--classes", metavar="NAME,NAME", help="the first images of these classes")
    images.add_argument("--most", type=int, metavar="N", help="so many images that fill most slots")
    images.add_argument("--least", type=int, metavar="N", help="so many images that fill fewest slots")
    pictures.add_argument(
        "--layers", metavar="NAME,NAME", help="these MoE layers, as blocks.5; without it all"
    )
    for name in FORMATS:
        pictures.add_argument(f"--{name}", action="store_true", help=f"each picture also as {name.upper()}")


def _add_measuring(parser: argparse.ArgumentParser) -> None:
    measuring = parser.add_argument_group("how it is measured")
    measuring.add_argument(
        "--permutations", type=int, default=200, metavar="N", help="of the null models (200)"
    )
    measuring.add_argument("--seed", type=int, default=0, metavar="N", help="of the null models (0)")
    measuring.add_argument("--again", action="store_true", help="also what was measured before")


def run(arguments: argparse.Namespace) -> int:
    """Look at the routing of each run; 2 where one of them was refused."""
    asked = _asked(arguments)
    refusals = be_ready(arguments, arguments.runs)
    if refusals and not arguments.json:
        return max(map(refuse, refusals))
    from routerbench.inspection.run import inspect_runs

    outcomes = [_told(one, arguments.json) for one in inspect_runs(arguments.runs, asked)]
    if arguments.json:
        print(json.dumps([_as_json(one) for one in outcomes], indent=1))
    return 2 if any(one.refusal is not None for one in outcomes) else 0


def _asked(arguments: argparse.Namespace) -> "Asked":
    for name in ("most", "least", "permutations", "threads"):
        if getattr(arguments, name) is not None:
            check_count(f"--{name}", getattr(arguments, name))
    if arguments.batch_size is not None:
        check_count("--batch-size", arguments.batch_size)
    check_not_negative("--seed", arguments.seed)
    places = _places(arguments.images)
    from routerbench.inspection.asked import Asked
    from routerbench.inspection.chosen import Choice

    return Asked(
        choice=Choice(places, _names("--classes", arguments.classes), arguments.most, arguments.least),
        layers=_names("--layers", arguments.layers),
        formats=tuple(name for name in FORMATS if getattr(arguments, name)),
        **{
            name: getattr(arguments, name)
            for name in ("weights", "device", "batch_size", "data_path", "permutations", "seed", "again")
        },
    )


def _names(option: str, text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    names = tuple(name.strip() for name in text.split(","))
    if "" in names:
        raise ValueError(f"{option}={text} has an empty name: give some, separated by commas")
    return names


def _places(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(name) for name in _names("--images", text))
    except ValueError:
        raise ValueError(f"--images={text} is no list of whole numbers: give some such as 3,17") from None


def _told(outcome: "Outcome", as_json: bool) -> "Outcome":
    """Say what became of a run as soon as it is known."""
    if outcome.refusal is not None:
        refuse(outcome.refusal)
    elif not as_json:
        print("\n".join(_lines(outcome)), flush=True)
    return outcome


def _lines(outcome: "Outcome") -> Iterable[str]:
    if outcome.numbers is None:
        return [f"{outcome.path.name}: {outcome.nothing}"]
    means = [
        f"{label} {outcome.numbers[name]:.2f}" for name, label in MEANS.items() if name in outcome.numbers
    ]
    explained = (
        f"share of its routing's entropy explained by {', '.join(means)} (mean over layers)"
        if means
        else "what explains its routing is not defined: it has no entropy"
    )
    seeds = [f"  {outcome.seeds}"] if outcome.seeds else []
    return [f"{outcome.path.name}: {explained}", *seeds, f"  {outcome.page}"]


def _as_json(outcome: "Outcome") -> dict[str, object]:
    page = None if outcome.page is None else str(outcome.page)
    return {
        "path": str(outcome.path),
        "page": page,
        "numbers": outcome.numbers,
        "seeds": outcome.over_seeds,
        "nothing": outcome.nothing,
        "refusal": outcome.refusal,
    }
