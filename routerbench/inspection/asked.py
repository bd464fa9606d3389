"""What the words of `routerbench inspect` ask for."""

from dataclasses import dataclass, field

from routerbench.inspection.chosen import Choice


@dataclass(frozen=True)
class Asked:
    """How runs are measured, and what of them is drawn."""

    choice: Choice = field(default_factory=Choice)
    layers: tuple[str, ...] = ()
    """Names of the MoE layers that are drawn; without any, all."""
    formats: tuple[str, ...] = ()
    """Of the pictures, beside SVG."""
    weights: str | None = None
    device: str = "auto"
    batch_size: int | None = None
    data_path: str | None = None
    permutations: int = 200
    seed: int = 0
    again: bool = False
    """Whether what was measured before is measured once more."""
