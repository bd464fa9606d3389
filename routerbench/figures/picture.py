"""A drawing with the words that stand for it."""

from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure, its title, and in a sentence or two what it shows, for those who do not see it."""

    title: str
    description: str
    figure: Figure
