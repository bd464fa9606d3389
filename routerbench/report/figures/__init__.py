"""Boards and runs -> pictures of the page."""

from routerbench.report.figures.picture import Picture

__all__ = ["Picture"]
