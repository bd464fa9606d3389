"""Imports point one way, read from the sources."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "routerbench"

# The walk of the data: a module imports what stands above it.
WALK = (
    {"moe.plan", "moe.ranking", "moe.expert_loop", "timing", "ranks", "draws"},
    {"moe.sparse_solvers"},
    {"moe.slots", "moe.scorer", "moe.transport", "moe.losses", "moe.router"},
    {"moe.sparse"},
    {"moe.transport_routers"},
    {"moe.hidden_norm"},
    {"moe.dense_mlp"},
    {"moe.experts"},
    {"moe.backends"},
    {"moe.expert_parallel"},
    {"moe.layer"},
    {"moe.surgery"},
    {"build", "costs", "metrics", "modes", "parallel"},
    {"maps"},
    {"evaluate"},
    {"step", "autotune", "fewshot"},
    {"linear_probe"},
    {"train"},
    {"state", "checkpoint"},
    {"device", "parts.data", "parts.model", "parts.recipe"},
    {"parts.probes"},
    {"parts.verify"},
    {"parts"},
    {"measure", "footprint", "load"},
    {"evaluations.seeing.observation"},
    {"evaluations.measurement"},
    {"experiment"},
    {"sweep.check", "sweep.job"},
    {"sweep.launch"},
    {"sweep.run"},
    {"commands.train"},
    {"cli"},
)
# What is told of runs: pictures, then what is found of one run, then reports of many.
ROOMS = ("figures", "evaluations", "report", "inspection")
VOCABULARY = {
    "moe.plan",
    "moe.slots",
    "moe.scorer",
    "moe.transport",
    "moe.losses",
    "moe.router",
    "moe.sparse",
    "moe.transport_routers",
    "checks",
}
# Heavy or opinionated packages, and the modules that may know them; a name that ends in a dot is a folder.
HOMES = {
    "hydra": {
        "commands.train",
        "sweep.launch",
        "sweep.job",
        "sweep.context",
        "sweep.choose",
        "parts.",
        "schema",
        "build",
        "compose.",
    },
    "wandb": {"tracking.", "report.runs.wandb_source"},
    "pandas": {"records", "report."},
    "matplotlib": {
        "bench.plot",
        "figures.",
        "report.figures.",
        "evaluations.figures.",
        "inspection.figures.",
    },
    "jinja2": {"report.page.", "inspection.page"},
    "scipy": {"stats.", "fewshot", "linear_probe", "evaluations.", "inspection."},
}


def module_of(path: Path) -> str:
    """`moe/plan.py` is moe.plan, `moe/__init__.py` is moe."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_of(path): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def imported(module: str) -> Iterator[str]:
    """Absolute names of the modules that a module imports, wherever in its source."""
    for node in ast.walk(SOURCES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import in line {node.lineno}"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner.removeprefix("routerbench.") in SOURCES else node.module


def own(module: str) -> set[str]:
    """Modules of the package that a module imports; the package itself is lazy and counts as none."""
    return {name.removeprefix("routerbench.") for name in imported(module) if name.startswith("routerbench.")}


def test_the_walk_is_that_of_the_package() -> None:
    assert set().union(*WALK) <= SOURCES.keys()
    assert {name for name in SOURCES if name.startswith("moe.")} <= set().union(*WALK)


def test_imports_point_one_way() -> None:
    rank = {module: number for number, modules in enumerate(WALK) for module in modules}
    for module in rank:
        for other in own(module) & rank.keys():
            # The words of one line may build on each other, as a router on its losses; see the next test.
            assert rank[other] <= rank[module], f"{module} imports {other}"


def test_imports_run_in_no_circle() -> None:
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' -> '.join((*path, module))}"
        if module not in finished:
            for other in own(module):
                visit(other, (*path, module))
            finished.add(module)

    for module in SOURCES:
        visit(module, ())


def test_rooms_know_only_those_before_them() -> None:
    for module in SOURCES:
        room, _, _ = module.partition(".")
        later = ROOMS[ROOMS.index(room) + 1 :] if room in ROOMS else ()
        known = {name.partition(".")[0] for name in own(module)}
        assert not known & set(later), f"{module} imports {known & set(later)}"


ROUTERS = [module for module in SOURCES if module.startswith("routers.")]


@pytest.mark.parametrize("module", ROUTERS)
def test_a_router_knows_the_vocabulary_alone(module: str) -> None:
    assert own(module) <= VOCABULARY


def test_nobody_imports_a_router() -> None:
    assert len(ROUTERS) >= 7
    for module in SOURCES:
        routers = {name for name in own(module) if name.startswith("routers")}
        assert not routers, f"{module} imports {routers}"


@pytest.mark.parametrize("package", HOMES)
def test_packages_stay_in_their_homes(package: str) -> None:
    for module in SOURCES:
        known = any(name.partition(".")[0] == package for name in imported(module))
        at_home = any(
            f"{module}.".startswith(home) if home.endswith(".") else module == home for home in HOMES[package]
        )
        assert at_home or not known, f"{module} imports {package}"


def loaded_after(code: str) -> set[str]:
    """Names of the packages that a fresh Python has loaded after this code."""
    code += "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, check=True, capture_output=True, text=True, cwd=PACKAGE.parent)
    return set(result.stdout.split())


def test_the_package_alone_loads_nothing_heavy() -> None:
    heavy = {"torch", "timm", "numpy", "pandas", "scipy", "hydra", "omegaconf", "wandb", "rich", "jaxtyping"}
    assert not loaded_after("import routerbench") & heavy
    assert not loaded_after("import routerbench.cli") & heavy
