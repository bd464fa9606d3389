"""Scores between the scales of one configuration, along the logarithm of what they cost."""

import numpy as np
from jaxtyping import Float


def scores_at(
    cost: float, costs: Float[np.ndarray, "scales"], scores: Float[np.ndarray, "scales seeds"]
) -> Float[np.ndarray, "seeds"]:
    """Each seed's score at a cost, between its neighbours linearly in the logarithm; nothing is extrapolated.

    The costs are positive and rising; a score is nan where a seed has no run. The result is nan outside the
    costs, and where a seed lacks one of the two scales around the cost: every seed goes by the same two
    scales, so that differences between curves keep their pairing.
    """
    assert costs[0] > 0, costs
    assert (np.diff(costs) > 0).all(), costs
    if not costs[0] <= cost <= costs[-1]:
        return np.full(scores.shape[1], np.nan)
    upper = int(np.searchsorted(costs, cost))
    if costs[upper] == cost:  # the scale itself, whatever its neighbours lack
        return scores[upper]
    share = np.log(cost / costs[upper - 1]) / np.log(costs[upper] / costs[upper - 1])
    return (1 - share) * scores[upper - 1] + share * scores[upper]
