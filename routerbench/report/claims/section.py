"""Findings -> the tables of the claims."""

from collections.abc import Sequence

from routerbench.report.boards.board import MIXED, UNFINISHED
from routerbench.report.claims.found import claims_found
from routerbench.report.claims.verdicts import ALPHA, Finding, Judged
from routerbench.report.published import PublishedDifference
from routerbench.report.runs.metric import Metric
from routerbench.report.runs.run import Run
from routerbench.report.tables.table import (
    NOTHING,
    Cell,
    Column,
    Line,
    Section,
    Table,
    estimate_cell,
    fixed,
    number_cell,
)

ORIGINS = ("provenance.commit", "provenance.device", "provenance.versions.")
CLAIMS = (
    Column("claim", "\nclaim"),
    Column("verdict", "\nverdict"),
    Column("effect, points", "effect\npoints"),
    Column("p", "\np"),
    Column("cells", "\ncells"),
    Column("n", "\nn"),
    Column("published, points", "published\npoints"),
    Column("sweep", "\nsweep"),
)
PARTS = (
    Column("comparison", "\ncomparison"),
    Column("effect, points", "effect\npoints"),
    Column("cells", "\ncells"),
    Column("n", "\nn"),
)
PUBLISHED = (
    Column("comparison", "\ncomparison"),
    Column("published, points", "published\npoints"),
    Column("lowest", "\nlowest"),
    Column("highest", "\nhighest"),
    Column("n", "\nn"),
    Column("accuracy", "\naccuracy"),
    Column("source", "\nsource"),
)


def claims_section(runs: Sequence[Run], metric: Metric, delta: float) -> Section:
    """Each claim of the studies with its verdict, what in these runs speaks to it, and what the studies say.

    `delta`: the difference, a fraction, that "at least as good" allows.
    """
    findings = claims_found(runs, metric, delta)
    tables = [_verdicts(findings, metric, delta), _comparisons(findings), _published(findings)]
    return Section("The claims of the studies", tables)


def _verdicts(findings: Sequence[Finding], metric: Metric, delta: float) -> Table:
    lines = [_line(number, finding) for number, finding in enumerate(findings, 1)]
    caption = f"{metric.name}; differences between runs that are equal in all that the claim is not about"
    return Table("Verdicts", caption, CLAIMS, lines, notes=_notes(findings, delta))


def _line(number: int, finding: Finding) -> Line:
    judged, signs = finding.deciding, _signs(finding)
    cells = [
        Cell(f"{number} {finding.claim.name} {signs}".rstrip()),
        Cell(finding.verdict),
        Cell(NOTHING) if judged is None else estimate_cell(judged.interval, "+"),
        number_cell(finding.p, 3),
        Cell(NOTHING) if judged is None else Cell(str(judged.effect.num_cells), judged.effect.num_cells),
        Cell(NOTHING) if judged is None else Cell(str(judged.effect.n), judged.effect.n),
        _weakest_published(finding),
        Cell(finding.claim.sweep),
    ]
    return Line(cells, marked=bool(signs))


def _comparisons(findings: Sequence[Finding]) -> Table:
    lines = [
        Line([Cell(f"{number} {judged.part.name}"), *_effect(judged)])
        for number, finding in enumerate(findings, 1)
        for judged in finding.parts
    ]
    notes = ["Every comparison of a claim must hold. A dash: no runs that differ in this alone."]
    return Table("What speaks to them", "each at the interval of its claim", PARTS, lines, notes=notes)


def _effect(judged: Judged) -> Sequence[Cell]:
    if not judged.effect.n:
        return [Cell(NOTHING), Cell("0", 0), Cell("0", 0)]
    effect = judged.effect
    return [
        estimate_cell(judged.interval, "+"),
        Cell(str(effect.num_cells), effect.num_cells),
        Cell(str(effect.n), effect.n),
    ]


def _published(findings: Sequence[Finding]) -> Table:
    lines = [
        Line([Cell(f"{number} {part.name}"), *_difference(difference)])
        for number, finding in enumerate(findings, 1)
        for part in finding.claim.published()
        for difference in part.differences
    ]
    notes = [
        "The same comparisons in the tables of the studies: mean, lowest and highest of n differences of "
        "printed numbers. No study prints a spread over seeds, so none of these has an interval.",
    ]
    return Table("What the studies print", "", PUBLISHED, lines, notes=notes)


def _difference(one: PublishedDifference) -> Sequence[Cell]:
    values = [Cell(fixed(100 * value, 2, "+"), value) for value in (one.mean, one.low, one.high)]
    return [*values, Cell(str(one.count), one.count), Cell(one.metric), Cell(one.source)]


def _weakest_published(finding: Finding) -> Cell:
    """Of the first accuracy that each comparison has, the smallest mean: every comparison must hold."""
    means = [part.differences[0].mean for part in finding.claim.published() if part.differences]
    return Cell(fixed(100 * min(means), 2, "+"), min(means)) if means else Cell(NOTHING)


def _signs(finding: Finding) -> str:
    parts = [judged.part for judged in finding.parts]
    unfinished = any(part.unfinished for part in parts)
    # Within a cell, as only its own runs are held against one another.
    mixed = any(len(set(map(_origin, runs))) > 1 for part in parts for runs in part.runs)
    return UNFINISHED * unfinished + MIXED * mixed


def _origin(run: Run) -> tuple[tuple[str, str], ...]:
    return tuple((path, str(run[path])) for path in sorted(run) if path.startswith(ORIGINS))


def _notes(findings: Sequence[Finding], delta: float) -> list[str]:
    points = fixed(100 * delta, 2)
    shown = "".join(map(_signs, findings))
    texts = {
        UNFINISHED: "not every run behind this claim finished",
        MIXED: "in a cell behind this claim the runs differ in commit, device or versions",
    }
    return [
        "Effect: the mean over cells of the mean over seeds (n differences in all), of the comparison that "
        "the claim hangs on, with the interval that its verdict is read from: every comparison must be above "
        f"0 (at least as good: above -{points} points) to support it, one below that contradicts it.",
        "p: two-sided, corrected for all claims that could be tested (Holm): in at most "
        f"{100 * ALPHA:.0f} % of such tables any verdict of supported or contradicted is wrong. Published: "
        "the smallest comparison of the claim, by its first accuracy. Sweep: what routerbench train -m "
        "+sweep=NAME runs to test it, at the scale of its study; +sweep=pocket_NAME does on two CPU cores.",
        *(f"{sign} {text}" for sign, text in texts.items() if sign in shown),
        *(f"{number} {one.claim.text} ({one.claim.source})" for number, one in enumerate(findings, 1)),
    ]
