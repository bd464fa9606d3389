"""The names of the modes in which a run was evaluated -> what they change."""

from dataclasses import dataclass

TRAINED, DROPLESS = "trained", "dropless"
OTHER_WEIGHTS = "weights="  # begins the modes of weights that the board does not rank


@dataclass(frozen=True)
class Evaluated:
    """A mode by its slots (a capacity factor, `dropless`, or as `trained`) and by what else it changes."""

    slots: str
    rest: str

    @property
    def order(self) -> tuple[int, float, str]:
        """As trained, then by capacity, then dropless."""
        return {TRAINED: 0, DROPLESS: 2}.get(self.slots, 1), _number(self.slots), self.slots


@dataclass(frozen=True)
class Replaced:
    """Routers that stand in for the trained ones; `layer` where they do so in one layer alone."""

    name: str
    layer: str | None


def read_mode(name: str) -> Evaluated | None:
    """The mode of a name such as `capacity_factor=0.25 batch_priority=true`, None for one of another form."""
    words = [word for word in name.split() if word != TRAINED]
    changes = dict(word.split("=", 1) for word in words if "=" in word)
    if len(changes) < len(words):
        return None
    slots = changes.pop("capacity_factor", TRAINED)
    if changes.get("dropless") == "true":
        slots, _ = DROPLESS, changes.pop("dropless")
    return Evaluated(slots, " ".join(f"{key}={value}" for key, value in changes.items()))


def read_replacement(name: str) -> Replaced | None:
    """What `random`, `random blocks.5` or `other_seed=1 seed=3` replaces; None for other weights.

    Which other seed it was, and by which draw, is not told: they stand for one another.
    """
    words = name.split()
    if not words or words[0].startswith(OTHER_WEIGHTS):
        return None
    layers = [word for word in words[1:] if "=" not in word]
    return Replaced(words[0].partition("=")[0], layers[0] if layers else None)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
