"""Parts -> `report.html`, one file that needs no other."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from markupsafe import Markup

from routerbench.figures.svg import svg
from routerbench.records import STATUSES
from routerbench.report.page.document import environment, own_text, policy
from routerbench.report.page.of_boards import beyond_parts, board_parts
from routerbench.report.page.parts import Part
from routerbench.report.runs.run import Run
from routerbench.report.tables.table import Section

__all__ = ["Part", "beyond_parts", "board_parts", "page"]

HERE = Path(__file__).parent
LINES = 4_000  # of all tables together: 10,000 records must stay under 5 MB


def page(heading: str, parts: Sequence[Part], runs: Sequence[Run], remarks: Sequence[str]) -> str:
    """The whole page, the same text for the same records; `runs` are all that were found."""
    shown, left_out = _within(parts, LINES)
    style, script = own_text("style.css"), own_text("script.js")
    return (
        environment(HERE)
        .get_template("page.html.j2")
        .render(
            heading=heading,
            parts=shown,
            contents=_contents([part.section for part in shown]),
            pictures=_drawn(shown),
            num_runs=f"{len(runs):,}",
            outcomes=_outcomes(runs),
            remarks=remarks,
            left_out=left_out,
            style=style,
            script=script,
            policy=policy(style, script),
        )
    )


def _drawn(parts: Sequence[Part]) -> list[list[Markup]]:
    """The pictures of each part as SVG."""
    return [
        [Markup(svg(picture, f"picture-{part}-{number}")) for number, picture in enumerate(one.pictures, 1)]
        for part, one in enumerate(parts, 1)
    ]


def _contents(sections: Sequence[Section]) -> list[tuple[str, str]]:
    """The titles, with the caption of the first table where titles are the same."""
    titles = Counter(section.title for section in sections)
    captions = [section.tables[0].caption if section.tables else "" for section in sections]
    return [
        (section.title, caption if titles[section.title] > 1 else "")
        for section, caption in zip(sections, captions, strict=True)
    ]


def _outcomes(runs: Sequence[Run]) -> list[str]:
    """How many runs came to what."""
    status = Counter(str(run["status"]) for run in runs)
    return [f"{status[name]:,} {name}" for name in STATUSES if status[name]]


def _within(parts: Sequence[Part], room: int) -> tuple[list[Part], list[str]]:
    """The parts with so many lines at most, and a remark on what had no room."""
    shown, left_out = [], 0
    for part in parts:
        tables = []
        for table in part.section.tables:
            lines = table.lines[:room]
            room, left_out = room - len(lines), left_out + len(table.lines) - len(lines)
            tables += [replace(table, lines=lines)] if lines or not table.lines else []
        if tables or not part.section.tables:
            shown.append(replace(part, section=Section(part.section.title, tables)))
    remark = (
        f"{left_out:,} lines are left out, as the page holds {LINES:,}: ask for fewer boards with --where."
    )
    return shown, [remark] * (left_out > 0)
