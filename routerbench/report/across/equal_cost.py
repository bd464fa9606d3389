"""Families -> tables at equal cost: every configuration at what its reference costs at its own scales."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from routerbench.report.across.configurations import names_of, order_of
from routerbench.report.across.families import Family, families_of
from routerbench.report.across.measures import Measure, measures_of
from routerbench.report.across.scale_curves import Curve, curves_of, reference_of
from routerbench.report.boards.board import MIXED, REFERENCES, UNFINISHED, Board
from routerbench.report.tables.table import (
    NOTHING,
    Cell,
    Column,
    Line,
    Section,
    Table,
    estimate_cell,
    fixed,
    significant,
)
from routerbench.stats import CONFIDENCE, paired_difference, t_interval

CAPTION = (
    "Between the scales of a configuration, seed by seed and linearly in the logarithm of the cost; nothing "
    "is extrapolated, and a dash stands where a curve does not reach. ± is half the width of the 95 % "
    "t-interval over seeds; differences are in points, paired by seed. No interval is corrected for how many "
    "there are, so there are no verdicts: those are of the boards' pairs."
)
NO_CURVE = "No curve, as "
SIGNS = {
    UNFINISHED: "not every run of this curve finished: its numbers stand for those that did",
    MIXED: "the runs of this curve differ in commit, device or versions",
}


def equal_cost_sections(boards: Sequence[Board]) -> list[Section]:
    """A section for each family with a configuration at several scales: a table for each measure of cost."""
    sections = []
    for family in families_of(boards):
        curves = [(measure, curves_of(family, measure)) for measure in measures_of(family)]
        tables = [_table(*one, family) for one in curves if any(curve.joined for curve in one[1])]
        sections += [Section(f"Equal cost · {family.title}", _said_once(tables))] if tables else []
    return sections


def _said_once(tables: Sequence[Table]) -> list[Table]:
    """The tables, those after the first without what its notes say of other curves."""
    said = [note for note in tables[0].notes if note.startswith(NO_CURVE)]
    others = [
        replace(table, notes=[note for note in table.notes if note not in said]) for table in tables[1:]
    ]
    return [tables[0], *others]


def costs_compared(reference: Curve | None, curves: Sequence[Curve]) -> list[float]:
    """The costs of the reference's own scales that one curve besides it reaches, at the least."""
    if reference is None or not reference.one_cost_a_scale:
        return []
    others = [curve for curve in curves if curve.joined and curve is not reference]
    return [cost for cost in reference.costs.tolist() if any(curve.at(cost) for curve in others)]


def _table(measure: Measure, curves: Sequence[Curve], family: Family) -> Table:
    reference = reference_of(curves, family.by)
    costs = costs_compared(reference, curves)
    shown = [curve for curve in curves if curve.joined or curve is reference]
    names = names_of([curve.configuration.key for curve in shown], family.by)
    names = {curve.name: names[curve.configuration.key] for curve in shown}
    shown.sort(key=lambda curve: _order(curve, costs))
    columns = _columns(measure, costs, family.metric.label, names[reference.name] if reference else "")
    lines = [_line(names[curve.name], curve, measure, costs, reference) for curve in shown]
    num_references = sum(curve.configuration.router in REFERENCES for curve in shown)
    notes = _notes(curves, costs, reference)
    caption = f"{family.evaluation}. {measure.note} {CAPTION}"
    return Table(f"Equal {measure.name}", caption, columns, lines, num_references, notes)


def _order(curve: Curve, costs: Sequence[float]) -> tuple[int, bool, float, str]:
    """References first, then by the score at the largest cost that is compared."""
    scores = curve.at(costs[-1]) if costs else {}
    mean = math.fsum(scores.values()) / len(scores) if scores else math.nan
    return order_of(curve.configuration.router, mean, curve.name)


def _columns(measure: Measure, costs: Sequence[float], label: str, reference: str) -> list[Column]:
    unit = measure.unit
    columns = [
        Column("router", "\nrouter"),
        Column("slots/token", "slots\n/tok."),
        Column("scales", "\nscales"),
        Column(f"from {unit}", f"from\n{unit}"),
        Column(f"to {unit}", f"to\n{unit}"),
    ]
    for cost in costs:
        at = f"at {significant(cost / measure.factor)} {unit}"
        columns += [Column(f"{label} {at}", f"{label}\n{at}")]
        columns += [Column(f"minus {reference} {at}, points", f"minus {reference}\npoints")]
    return columns


def _line(name: str, curve: Curve, measure: Measure, costs: Sequence[float], reference: Curve | None) -> Line:
    signs = _signs(curve)
    cells = [
        Cell(f"{name} {signs}".rstrip()),
        _slots(curve),
        Cell(str(len(curve.points)), len(curve.points)),
    ]
    cells += [Cell(significant(cost / measure.factor), cost) for cost in (curve.costs[0], curve.costs[-1])]
    for cost in costs:
        scores = curve.at(cost)
        cells += [estimate_cell(t_interval(list(scores.values()), CONFIDENCE))]
        cells += [_difference(scores, {} if curve is reference or not reference else reference.at(cost))]
    return Line(cells, marked=bool(signs))


def _difference(scores: Mapping[int, float], reference: Mapping[int, float]) -> Cell:
    difference = paired_difference(scores, reference, CONFIDENCE)
    return estimate_cell(difference, "+") if difference.n else Cell(NOTHING)


def _slots(curve: Curve) -> Cell:
    """Slots per token, a range where they differ by scale."""
    slots = [point.row.cost.slots_per_token for point in curve.points]
    known = sorted(one for one in slots if not math.isnan(one))
    texts = list(dict.fromkeys(fixed(one, 2) for one in known)) or [NOTHING]
    return Cell(texts[0] if len(texts) == 1 else f"{texts[0]}-{texts[-1]}", known[0] if known else None)


def _signs(curve: Curve) -> str:
    return UNFINISHED * curve.unfinished + MIXED * curve.mixed


def _notes(curves: Sequence[Curve], costs: Sequence[float], reference: Curve | None) -> list[str]:
    signs = "".join(_signs(curve) for curve in curves if curve.joined or curve is reference)
    notes = [f"{sign} {text}" for sign, text in SIGNS.items() if sign in signs]
    twice = [curve.name for curve in curves if not curve.one_cost_a_scale]
    notes += [f"{NO_CURVE}two scales have one cost: {', '.join(twice)}"] * bool(twice)
    alone = [
        curve.name for curve in curves if not (curve.joined or curve is reference or curve.name in twice)
    ]
    notes += [f"{NO_CURVE}no seed has two scales: {', '.join(alone)}"] * bool(alone)
    if reference is None:
        return [*notes, "Neither dense nor token_choice is here, at whose costs the others would be compared"]
    few = f"No curve reaches a cost of {reference.name}: without extrapolation nothing can be compared"
    return notes if costs else [*notes, few]
