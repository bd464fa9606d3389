"""Records of cases -> tables: one of each case for the terminal, and an overview of all cases of a kind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from routerbench.bench.results import (
    Record,
    Reference,
    Spread,
    contestant,
    flops_per_second,
    memory_ratio,
    seconds,
    time_ratio,
)

NOTHING = "-"
DENSE, GEMM = "dense", "GEMM"


@dataclass(frozen=True)
class Table:
    """Texts in rows and columns, the first column being labels."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


def case_table(case: Record) -> Table:
    """Everything that was measured of one case; a column that would be empty is left out."""
    names = [record["name"] for record in case["contestants"] if _took_part(record)]
    gemm = flops_per_second(case, GEMM)
    columns: dict[str, Callable[[str], str]] = {
        "ms": lambda name: _number(_median(seconds(case, name)), 1e3),
        "/ dense": lambda name: NOTHING if name == GEMM else _number(_median(time_ratio(case, name))),
        "quartiles": lambda name: NOTHING if name == GEMM else _quartiles(time_ratio(case, name)),
        "GFLOP/s": lambda name: _number(flops_per_second(case, name), 1e-9),
        "/ GEMM": lambda name: _percent(flops_per_second(case, name), gemm),
        "peak MiB": lambda name: _number((contestant(case, name) or {}).get("peak_bytes"), 2**-20),
        "/ limit": lambda name: NOTHING if name in (DENSE, GEMM) else _number(memory_ratio(case, name)),
    }
    if case["kind"] == "router":  # a router's work is hardly in products
        del columns["GFLOP/s"]
    texts = {head: [text(name) for name in names] for head, text in columns.items()}
    texts = {head: column for head, column in texts.items() if set(column) != {NOTHING}}
    rows = [list(row) for row in zip(names, *texts.values(), strict=True)]
    return Table(case["case"], ["", *texts], rows, _absences([case]))


def overview(cases: Sequence[Record], references: Sequence[Reference]) -> list[Table]:
    """Tables with a column for each case: of layers by router and group, of routers, of models."""
    by_method: dict[tuple[str, str], list[Record]] = {}
    for case in cases:
        if case["kind"] in ("layer", "memory"):
            by_method.setdefault((case["router"], case["group"]), []).append(case)
    tables: list[Table] = []
    for (router, group), alike in by_method.items():
        title = f"router={router} group={group}"
        timed = [case for case in alike if case["kind"] == "layer"]
        if timed:
            tables += [_times(f"Layer, {title}: time over dense", timed, references), _speeds(title, timed)]
        tables.append(_memory(title, alike, references))
    for kind, title in (
        ("router", "Routers alone: time over that of a dense layer"),
        ("model", "Training step"),
    ):
        timed = [case for case in cases if case["kind"] == kind]
        if timed:
            tables.append(
                _times(title if kind == "router" else f"{title}: time over dense", timed, references)
            )
    return tables


def label(case: Record) -> str:
    """A case in a few words, for the head of a column."""
    if case["kind"] == "model":
        parts = (case["model"], case["router"], f"B{case['batch_size']}", _suffix(case), case["group"])
        return " ".join(parts)
    size = f"{case['size'].capitalize()} {case['tokens']} {_suffix(case)}"
    return f"{size} {case['group']}" if case["kind"] == "router" else size


def _suffix(case: Record) -> str:
    return f"E{case['num_experts']} {case['precision']}"


def _times(title: str, cases: Sequence[Record], references: Sequence[Reference]) -> Table:
    rows = _reference_rows(cases, references)
    for name in names(cases, without=(DENSE, GEMM)):
        texts = []
        for case in cases:
            ratio = time_ratio(case, name)
            texts.append(
                NOTHING if ratio is None else f"{_number(ratio.median)}{_to_reach(case, name, references)}"
            )
        rows.append([name, *texts])
    rows.append(["dense, ms", *(_number(_median(seconds(case, DENSE)), 1e3) for case in cases)])
    return Table(title, ["", *map(label, cases)], rows, [_quartile_distances(cases), *_absences(cases)])


def _speeds(title: str, cases: Sequence[Record]) -> Table:
    gemm = [flops_per_second(case, GEMM) for case in cases]
    rows = []
    for name in names(cases, without=(GEMM,)):
        speeds = [flops_per_second(case, name) for case in cases]
        rows.append([name, *(_percent(speed, of) for speed, of in zip(speeds, gemm, strict=True))])
    rows.append(["GEMM, GFLOP/s", *(_number(speed, 1e-9) for speed in gemm)])
    return Table(f"Layer, {title}: FLOP/s over those of a plain GEMM", ["", *map(label, cases)], rows)


def _memory(title: str, cases: Sequence[Record], references: Sequence[Reference]) -> Table:
    of_memory = {case["case"] for case in cases if case["kind"] == "memory"}
    rows = _reference_rows(cases, [reference for reference in references if reference.case in of_memory])
    for name in names(cases, without=(DENSE, GEMM)):
        rows.append([name, *(_number(memory_ratio(case, name)) for case in cases)])
    peaks = [(contestant(case, DENSE) or {}).get("peak_bytes") for case in cases]
    rows.append(["dense, MiB", *(_number(peak, 2**-20) for peak in peaks)])
    title = f"Layer, {title}: peak memory over that of dense plus the gradients of the experts"
    return Table(title, ["", *map(label, cases)], rows, _absences(cases))


def _reference_rows(cases: Sequence[Record], references: Sequence[Reference]) -> list[list[str]]:
    """Ratios that are for all of a case, a row for each label."""
    names = [case["case"] for case in cases]
    found = {
        (reference.label, reference.measured_on, reference.case): reference.ratio
        for reference in references
        if not reference.contestant and reference.case in names
    }
    labels = dict.fromkeys((label, place) for label, place, _ in found)
    return [
        [f"{label} ({place})" if place else label]
        + [f"{found[label, place, name]:.2f}" if (label, place, name) in found else NOTHING for name in names]
        for label, place in labels
    ]


def _to_reach(case: Record, name: str, references: Sequence[Reference]) -> str:
    return "".join(
        f" ({reference.label} {reference.ratio:.2f})"
        for reference in references
        if (reference.case, reference.contestant) == (case["case"], name)
    )


def names(cases: Sequence[Record], without: tuple[str, ...]) -> list[str]:
    """Contestants that take part in any of the cases."""
    records = [record for case in cases for record in case["contestants"] if _took_part(record)]
    return [name for name in dict.fromkeys(record["name"] for record in records) if name not in without]


def _took_part(record: Record) -> bool:
    return "refused" not in record and "failed" not in record


def _absences(cases: Sequence[Record]) -> list[str]:
    """Who was refused or failed, and why, each once."""
    found: dict[str, list[str]] = {}
    for case in cases:
        for record in case["contestants"]:
            for word in ("refused", "failed"):
                if word in record:
                    found.setdefault(f"{record['name']} {word}: {record[word]}", []).append(label(case))
    everywhere = len(cases)
    return [text if len(of) == everywhere else f"{', '.join(of)}: {text}" for text, of in found.items()]


def _quartile_distances(cases: Sequence[Record]) -> str:
    spreads = [time_ratio(case, name) for case in cases for name in names([case], without=(DENSE, GEMM))]
    away = [max(s.high / s.median, s.median / s.low) - 1 for s in spreads if s]
    if not away:
        return "Nothing was timed."
    typical, farthest = (f"{100 * distance:.0f} %" for distance in (median(away), max(away)))
    return f"Medians over rounds; their quartiles are {typical} away, at most {farthest}."


def _median(spread: Spread | None) -> float | None:
    return None if spread is None else spread.median


def _quartiles(spread: Spread | None) -> str:
    return NOTHING if spread is None else f"{_number(spread.low)}-{_number(spread.high)}"


def _number(value: int | float | None, scale: float = 1.0) -> str:
    """About three significant digits."""
    if value is None:
        return NOTHING
    scaled = value * scale
    decimals = 0 if scaled >= 99.5 else 1 if scaled >= 9.95 else 2 if scaled >= 0.0995 else 3
    return f"{scaled:,.{decimals}f}"


def _percent(value: float | None, of: float | None) -> str:
    return NOTHING if value is None or not of else f"{100 * value / of:.0f} %"
