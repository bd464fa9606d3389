"""The names of the modes in which a run was evaluated -> what they change."""

from dataclasses import dataclass

TRAINED, DROPLESS = "trained", "dropless"


@dataclass(frozen=True)
class Evaluated:
    """A mode by its slots (a capacity factor, `dropless`, or as `trained`) and by what else it changes."""

    slots: str
    rest: str

    @property
    def factor(self) -> float | None:
        """The capacity factor, None where the slots are given otherwise."""
        try:
            return float(self.slots)
        except ValueError:
            return None

    @property
    def order(self) -> tuple[int, float, str]:
        """As trained, then by capacity, then dropless."""
        place = {TRAINED: 0, DROPLESS: 2}.get(self.slots, 1)
        return place, self.factor or 0.0, self.slots


def read_mode(name: str) -> Evaluated | None:
    """The mode of a name such as `capacity_factor=0.25 batch_priority=true`, None for one of another form."""
    words = [] if name == TRAINED else name.split()
    changes = dict(word.split("=", 1) for word in words if "=" in word)
    if len(changes) < len(words):
        return None
    slots = changes.pop("capacity_factor", TRAINED)
    if changes.get("dropless") == "true":
        slots, _ = DROPLESS, changes.pop("dropless")
    return Evaluated(slots, " ".join(f"{key}={value}" for key, value in changes.items()))
