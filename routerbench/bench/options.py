"""The words of `routerbench bench`, and what of them is refused before torch is loaded."""

import argparse
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from routerbench.checks import check_count, check_one_of

KINDS = ("layer", "router", "model", "memory")
SIZES = ("ti", "s", "b")
PRECISIONS = ("fp32", "bf16", "fp16")
GROUPS = ("batch", "image")
PLOT_SUFFIXES = (".png", ".svg")
TOKENS_PER_IMAGE = 196
_LAYERS = ("layer", "router", "memory")
# What means something to some kinds alone, or to a measurement alone.
_USED_BY = {
    "sizes": _LAYERS,
    "tokens": _LAYERS,
    "experts": KINDS,
    "precision": KINDS,
    "routers": KINDS,
    "group": KINDS,
    "backends": ("layer", "model", "memory"),
    "peer": ("layer", "memory"),
    "model": ("model",),
    "image_size": ("model",),
    "batch_size": ("model",),
    "placements": ("model",),
    "repeats": ("layer", "router", "model"),
    "device": KINDS,
    "threads": KINDS,
    "json": KINDS,
}


@dataclass(frozen=True)
class Options:
    """The options as given; None for what was not, and has another default for each kind of case."""

    kinds: tuple[str, ...]
    sizes: tuple[str, ...] | None
    tokens: tuple[int, ...] | None
    experts: tuple[int, ...] | None
    precision: tuple[str, ...] | None
    routers: tuple[str, ...] | None
    group: str | None
    backends: tuple[str, ...] | None
    peer: tuple[str, ...] | None
    model: str | None
    image_size: int | None
    batch_size: int | None
    placements: tuple[str, ...] | None
    repeats: int | None
    device: str | None
    threads: int | None
    json: Path | None
    source: Path | None
    plot: Path | None
    paste: Path | None
    references: Path | None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Everything that `routerbench bench` takes; lists are separated by commas."""
    parser.add_argument("kinds", nargs="*", metavar="kind", help=f"{', '.join(KINDS)}; without any: all")
    cases = parser.add_argument_group("what is measured (without these: the cases of docs/performance.md)")
    cases.add_argument("--sizes", type=_words, metavar="LIST", help="ti, s, b: widths of 192, 384, 768")
    cases.add_argument("--tokens", type=_numbers, metavar="LIST", help="multiples of 196, those of an image")
    cases.add_argument("--experts", type=_numbers, metavar="LIST", help="numbers of experts")
    cases.add_argument("--precision", type=_words, metavar="LIST", help="fp32, or autocast to bf16 or fp16")
    cases.add_argument("--routers", type=_words, metavar="LIST", help="names of conf/router")
    cases.add_argument(
        "--group", metavar="GROUP", help="batch (all images together) or image; a soft router takes image"
    )
    cases.add_argument("--backends", type=_words, metavar="LIST", help="of our layer; without: all of them")
    cases.add_argument(
        "--peer",
        action="append",
        metavar="MODULE:CALLABLE",
        help="a layer to time beside ours; called with width, hidden, num_experts, top_k, capacity_factor, "
        "it gives a module from (B, S, D) to the same, or to a tuple that begins with that; repeatable",
    )
    cases.add_argument(
        "--model", metavar="NAME", help="timm model of the model benchmark (vit_small_patch16_224)"
    )
    cases.add_argument("--image-size", type=_number, metavar="N", help="its images (224)")
    cases.add_argument("--batch-size", type=_number, metavar="N", help="how many of them in a step (8)")
    cases.add_argument("--placements", type=_words, metavar="LIST", help="of its MoE layers (last_2,every_2)")
    how = parser.add_argument_group("how")
    how.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:1 ... (a GPU where there is one)")
    how.add_argument(
        "--threads",
        type=_number,
        metavar="N",
        help="on a CPU; 1, the default, is timed in CPU time, which other programs disturb little",
    )
    how.add_argument(
        "--repeats", type=_number, metavar="N", help="rounds over all contestants of a case (11)"
    )
    show = parser.add_argument_group("what comes of it, beside the tables in the terminal")
    show.add_argument("--json", type=Path, metavar="FILE", help="every sample, with where it comes from")
    show.add_argument("--plot", type=Path, metavar="FILE", help="ratios to dense, as .png or .svg")
    show.add_argument(
        "--from", type=Path, dest="source", metavar="FILE", help="show this JSON; measure nothing"
    )
    show.add_argument("--paste", type=Path, metavar="FILE", help="replace the tables in this Markdown file")
    show.add_argument(
        "--references",
        type=Path,
        metavar="FILE",
        help="CSV of ratios measured elsewhere, to stand beside ours",
    )


def checked(arguments: argparse.Namespace) -> Options:
    """The options; raises ValueError for what is unknown, impossible or without meaning beside the others."""
    values = {name: getattr(arguments, name) for name in Options.__dataclass_fields__}
    for name in ("kinds", "peer"):
        values[name] = None if values[name] is None else tuple(values[name])
    options = Options(**{**values, "kinds": values["kinds"] or KINDS})
    for name in ("kinds", "peer"):
        twice = [word for word, count in Counter(getattr(options, name) or ()).items() if count > 1]
        if twice:
            raise ValueError(f"{twice[0]} stands there twice: leave it out once")
    for kind in options.kinds:
        check_one_of("bench", kind, KINDS)
    for name, kinds in _USED_BY.items():
        if values[name] is not None:
            _check_has_meaning(name, kinds, options, values["kinds"])
    _check_values(options)
    _check_files(options)
    return options


def _check_has_meaning(name: str, kinds: tuple[str, ...], options: Options, given: tuple[str, ...]) -> None:
    option = f"--{name.replace('_', '-')}"
    if options.source is not None:
        raise ValueError(f"--from={options.source} shows an earlier measurement: leave out {option}")
    if not set(kinds) & set(options.kinds):
        raise ValueError(f"{option} means nothing to bench {' '.join(given)}: leave it out")


def _check_values(options: Options) -> None:
    if options.source is not None and options.kinds != KINDS:
        raise ValueError(f"--from={options.source} shows all that was measured: leave out {options.kinds[0]}")
    for name, values, choices in (
        ("sizes", options.sizes, SIZES),
        ("precision", options.precision, PRECISIONS),
        ("group", options.group and (options.group,), GROUPS),
    ):
        for value in values or ():
            check_one_of(name, value, choices)
    counts = {name: getattr(options, name) for name in ("repeats", "threads", "batch_size", "image_size")}
    for name, value in counts.items():
        if value is not None:
            check_count(name, value)
    for value in options.experts or ():
        check_count("experts", value)
    for value in options.tokens or ():
        check_count("tokens", value)
        if value % TOKENS_PER_IMAGE:
            nearest = max(1, round(value / TOKENS_PER_IMAGE)) * TOKENS_PER_IMAGE
            raise ValueError(
                f"tokens={value} is no multiple of {TOKENS_PER_IMAGE}, the tokens of an image: give {nearest}"
            )


def _check_files(options: Options) -> None:
    for name, path in (("json", options.json), ("plot", options.plot)):
        if path is None:
            continue
        if path.is_dir():
            raise ValueError(f"{name}={str(path)!r} is a folder: give a file")
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise ValueError(
                f"{name}={str(path)!r} cannot be written: {path.parent} is no folder that can be written to"
            )
    if options.plot is not None:
        check_one_of("suffix of plot", options.plot.suffix, PLOT_SUFFIXES)
    for name, path in (
        ("from", options.source),
        ("paste", options.paste),
        ("references", options.references),
    ):
        if path is not None and not path.is_file():
            raise ValueError(f"{name}={str(path)!r} is not a file")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(_number, text.split(",")))


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
