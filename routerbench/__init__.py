"""Compare Mixture-of-Experts routers for vision head to head, at equal cost."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routerbench.build import build_router, sparsify
    from routerbench.inspection.routing_of import LayerRouting, routing_of
    from routerbench.load import FinishedRun, load_run, open_run
    from routerbench.modes import Mode, evaluated_in
    from routerbench.moe.experts import Experts
    from routerbench.moe.layer import MoE
    from routerbench.moe.plan import Plan, SoftPlan, SparsePlan
    from routerbench.moe.router import Router, Routing
    from routerbench.moe.surgery import moe_layers
    from routerbench.records import read_records

__all__ = [
    "Experts",
    "FinishedRun",
    "LayerRouting",
    "MoE",
    "Mode",
    "Plan",
    "Router",
    "Routing",
    "SoftPlan",
    "SparsePlan",
    "build_router",
    "evaluated_in",
    "load_run",
    "moe_layers",
    "open_run",
    "read_records",
    "routing_of",
    "sparsify",
]

_HOME = {
    "Experts": "moe.experts",
    "FinishedRun": "load",
    "LayerRouting": "inspection.routing_of",
    "MoE": "moe.layer",
    "Mode": "modes",
    "Plan": "moe.plan",
    "Router": "moe.router",
    "Routing": "moe.router",
    "SoftPlan": "moe.plan",
    "SparsePlan": "moe.plan",
    "build_router": "build",
    "evaluated_in": "modes",
    "load_run": "load",
    "moe_layers": "moe.surgery",
    "open_run": "load",
    "read_records": "records",
    "routing_of": "inspection.routing_of",
    "sparsify": "build",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes seconds, and `--help` should not."""
    if name not in _HOME:
        raise AttributeError(f"module 'routerbench' has no attribute {name!r}")
    return getattr(import_module(f"routerbench.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
