"""What must be equal on a board, and what its rows compare."""

from collections.abc import Sequence
from typing import Any

from routerbench.printable import printable, some
from routerbench.report.runs.run import Run, Settings, paths_of, settings_of, text_of

DENSE = "dense"
MOE_IN_TITLE = ("placement", "num_experts", "capacity_factor", "group")
OF_EXPERTS = ("expert_init", "expert_mlp_ratio", "expert_dropout", "extra_skip", "optim.expert_weight_decay")
OF_MOE = (*MOE_IN_TITLE, *OF_EXPERTS, "router")  # the settings that a dense run has not, but for its name
IN_TITLE = ("data.name", "model.name", *MOE_IN_TITLE, "epochs")


def is_dense(run: Run) -> bool:
    """Whether a run is the twin without MoE layers."""
    return run["config.router.name"] == DENSE


def cell_of(run: Run, by: Sequence[str]) -> dict[str, Any]:
    """What must be equal on a board whose rows differ in `by`; a dense run has no settings of the MoE."""
    settings = without(settings_of(run), by)
    return without(settings, OF_MOE) if is_dense(run) else settings


def compared(run: Run, by: Sequence[str]) -> dict[str, Any]:
    """The settings in which the rows of a board differ; of a dense run without the MoE's."""
    settings = {name: value for name, value in settings_of(run).items() if belongs(name, by)}
    return without(settings, OF_MOE) | {"router.name": DENSE} if is_dense(run) else settings


def without(settings: Settings, names: Sequence[str]) -> dict[str, Any]:
    """The settings but for these; a group's name stands for all that is in it."""
    return {name: value for name, value in settings.items() if not belongs(name, names)}


def belongs(name: str, names: Sequence[str]) -> bool:
    """Whether a setting is one of these or in one of these groups."""
    return name in names or name.startswith(tuple(f"{one}." for one in names))


def checked_by(by: Sequence[str], runs: Sequence[Run]) -> Sequence[str]:
    """`by` itself; ValueError where one of them is no setting of these runs."""
    names = {path.removeprefix("config.") for path in paths_of(runs) if path.startswith("config.")}
    known = sorted({name.split(".")[0] for name in names} - {"seed"})
    for one in by:
        if one == "seed" or not any(belongs(name, [one]) for name in names):
            raise ValueError(f"--by={one} is no setting of these runs: give one of {printable(some(known))}")
    return by


def title_of(cell: Settings, by: Sequence[str]) -> str:
    """The cell in one line, without what its rows say."""
    names = [text_of(cell[name]) for name in ("data.name", "model.name") if name in cell]
    if cell.get("model.weights") is not None:  # what starts from trained weights had more training
        names.append(f"from {text_of(cell['model.weights'])}")
    names += [str(cell["router.name"])] if "router.name" in cell else []
    dense_only = not any(belongs(name, MOE_IN_TITLE) for name in [*cell, *by])
    moe = ["dense only"] if dense_only else _moe_title(cell)
    return " · ".join([*names, *moe, *([f"{text_of(cell['epochs'])} epochs"] if "epochs" in cell else [])])


def _moe_title(cell: Settings) -> list[str]:
    placement, group = cell.get("placement"), cell.get("group")
    blocks = ", ".join(map(text_of, placement)) if isinstance(placement, list) else None
    texts = {
        "placement": f"placement {text_of(placement)}" if blocks is None else f"blocks {blocks}",
        "num_experts": f"{text_of(cell.get('num_experts'))} experts",
        "capacity_factor": f"capacity factor {text_of(cell.get('capacity_factor'))}",
        "group": "group image" if group == "image" else f"group of {text_of(group)} images",
    }
    return [text for name, text in texts.items() if name in cell]


def order_of(cell: Settings) -> list[tuple[int, float, str]]:
    """Where the cell's board stands among others: numbers by size before texts by alphabet."""
    return [_natural(cell.get(name)) for name in IN_TITLE]


def _natural(value: Any) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, text_of(value))
