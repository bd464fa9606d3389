"""Numbers of published papers, as reference columns and marks; README.md has their tables and misprints."""

from routerbench.report.published.differences import PublishedDifference, published_difference
from routerbench.report.published.scores import PublishedScore, published_score

__all__ = ["PublishedDifference", "PublishedScore", "published_difference", "published_score"]
