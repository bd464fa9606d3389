"""What the page is made of: sections, each with its pictures and the pages of its runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from routerbench.figures.picture import Picture
from routerbench.report.tables.table import Section


@dataclass(frozen=True)
class Fact:
    """A name and its value as text."""

    name: str
    text: str


@dataclass(frozen=True)
class Routing:
    """What was measured of the routing: for each metric its name and its text for every column of layers."""

    layers: Sequence[str]
    metrics: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class Study:
    """What was found of a run after training: for each mode its texts, a name a column."""

    name: str
    columns: Sequence[str]
    modes: Sequence[tuple[str, Sequence[str]]]
    left_out: str


@dataclass(frozen=True)
class RunPage:
    """All that a record says of one run; `error` in lines, `pictures` where a page of its own is."""

    anchor: str
    run_id: str
    seed: str
    status: str
    score: str
    error: Sequence[str]
    command: str
    metrics: Sequence[Fact]
    routing: Routing
    studies: Sequence[Study]
    pictures: str
    cost: Sequence[Fact]
    provenance: Sequence[Fact]
    rest: Sequence[Fact]

    @property
    def characters(self) -> int:
        """About how long it is in HTML."""
        facts = [*self.metrics, *self.cost, *self.provenance, *self.rest]
        tables = [str(self.routing), *map(str, self.studies)]
        return sum(map(len, [*self.error, self.command, *map(str, facts), *tables])) + 500


@dataclass(frozen=True)
class RowPage:
    """One configuration and its runs: the settings of its own, then those that its whole board shares."""

    anchor: str
    line_anchor: str
    label: str
    own: Sequence[Fact]
    shared: Sequence[Fact]
    runs: Sequence[RunPage]


@dataclass(frozen=True)
class Link:
    """A line's own place on the page, and where its name leads."""

    anchor: str
    href: str


@dataclass(frozen=True)
class Part:
    """A section with all that only the page shows; `links`: by the text of the first cell of a line."""

    section: Section
    pictures: Sequence[Picture] = ()
    row_pages: Sequence[RowPage] = ()
    links: Mapping[str, Link] = field(default_factory=dict)
    left_out: Sequence[str] = ()
