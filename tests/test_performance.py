"""The pages of performance keep their word: their tables are those of the measurements beside them."""

import shutil
from pathlib import Path

import pytest
from rich.console import Console

from routerbench.bench.cases import LAYERS
from routerbench.bench.command import bench
from routerbench.bench.options import KINDS, Options
from routerbench.bench.results import read_references, read_results

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MEASURED = ROOT / "results" / "performance"


@pytest.mark.parametrize(
    ("page", "measurement", "references"),
    [
        ("performance.md", "bench.json", MEASURED / "references.csv"),
        ("performance-h100.md", "h100.json", None),
    ],
)
def test_tables_are_those_of_the_measurement(
    page: str, measurement: str, references: Path | None, tmp_path: Path
) -> None:
    pasted = Path(shutil.copy(DOCS / page, tmp_path))
    nothing = dict.fromkeys(Options.__dataclass_fields__)
    options = Options(
        **{
            **nothing,
            "kinds": KINDS,
            "source": MEASURED / measurement,
            "references": references,
            "paste": pasted,
        }
    )
    assert bench(options, "routerbench bench", Console(quiet=True))
    assert pasted.read_text(encoding="utf-8") == (DOCS / page).read_text(encoding="utf-8")


def test_references_are_for_cases_that_are_measured() -> None:
    measured = {case["case"] for case in read_results(MEASURED / "bench.json")["cases"]}
    kinds = {name.partition(" ")[0] for name in measured}
    references = read_references(MEASURED / "references.csv")
    wanted = {reference.case for reference in references if reference.case.partition(" ")[0] in kinds}
    assert wanted <= measured
    assert {f"layer token_choice {shape} group=batch" for shape in LAYERS} <= wanted


def test_references_of_the_layer_as_published() -> None:
    ratios: dict[str, list[float]] = {}
    for reference in read_references(MEASURED / "references.csv"):
        if reference.case.startswith("layer token_choice"):
            ratios.setdefault(f"{reference.label} {reference.measured_on}".strip(), []).append(
                reference.ratio
            )
    assert ratios == {
        "best public layer 2-core AMX Xeon": [1.21, 1.22, 1.12, 2.42, 2.97, 3.37, 1.22],
        "plain gather + bmm + index_add 2-core AMX Xeon": [1.11, 1.11, 1.19, 1.38, 1.85, 1.95, 1.33],
        "to reach": [1.08, 1.10, 1.08, 1.25, 1.50, 1.50, 1.15],
    }
