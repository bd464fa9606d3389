"""Why a study has nothing to ask of a run."""

from routerbench.load import FinishedRun
from routerbench.modes import changeable
from routerbench.moe.surgery import moe_layers


def why_nothing(run: FinishedRun, study: str) -> str:
    """The reason, in a few words, why `study` measures nothing of this run."""
    if study == "images":
        return "say which images, such as +eval=imagenet_v2 (docs/eval.md)"
    if not moe_layers(run.model):
        return "a dense run has no routers"
    if study == "compute" and "capacity_factor" not in changeable(run.model):
        return "its routers have no capacity that could be less"
    return "no mode of it is for this run"
