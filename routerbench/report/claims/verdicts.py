"""What may be said of claims: tests of their parts, corrected for all claims of the table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from routerbench.report.claims.claim import Claim, Part
from routerbench.stats import Effect, Estimate, effect_over_cells, holm, holm_levels

Verdict = Literal["supported", "contradicted", "undecided", "not tested"]
ALPHA = 0.05


@dataclass(frozen=True)
class Judged:
    """A part with its effect, and the interval of the level at which its claim was held."""

    part: Part
    effect: Effect
    interval: Estimate


@dataclass(frozen=True)
class Finding:
    """A claim with its verdict; `deciding` is the part that it hangs on, None where nothing speaks to it.

    `p`: two-sided, corrected by Holm for all claims that could be tested; nan where it could not.
    """

    claim: Claim
    verdict: Verdict
    p: float
    parts: Sequence[Judged]
    deciding: Judged | None


@dataclass(frozen=True)
class _Tested:
    """One claim before the correction: the two one-sided p of all its parts together."""

    claim: Claim
    parts: Sequence[Part]
    effects: Sequence[Effect]
    bound: float

    @property
    def p_for(self) -> float:
        """Every part must hold, so the weakest decides (intersection-union); untested ones do not."""
        return max((effect.p_above(self.bound) for effect in self.effects), default=1.0)

    @property
    def p_against(self) -> float:
        """Any part may break it, so the strongest decides, times their number (Bonferroni)."""
        p_values = [effect.p_below(self.bound) for effect in self.effects if effect.testable]
        return min([1.0, *(len(p_values) * p for p in p_values)])

    @property
    def num_tested(self) -> int:
        return sum(effect.testable for effect in self.effects)

    @property
    def p(self) -> float:
        return min(1.0, 2 * min(self.p_for, self.p_against))


def findings_of(claims: Sequence[tuple[Claim, Sequence[Part]]], delta: float) -> list[Finding]:
    """The verdict on each claim with its parts; `delta`, a fraction: what is as good as equal.

    A part holds where its effect is above the bound: 0, or -delta of a claim of "at least as good". The claim
    is supported where all its parts hold, contradicted where one of them is below the bound: in both cases at
    the claim's level of Holm's procedure over all claims of which at least one part can be tested, two-sided
    (half of it on either side), and for a contradiction divided by the number of its parts that can be
    tested. It is undecided where neither is so, and not tested where no run speaks to it.
    So in at most 5 % of tables any claim is called supported or contradicted that is not.
    """
    tested = [_tested(claim, parts, delta) for claim, parts in claims]
    family = [place for place, one in enumerate(tested) if one.num_tested]
    levels = dict(zip(family, holm_levels([tested[place].p for place in family], ALPHA), strict=True))
    corrected = holm(np.array([one.p if one.num_tested else math.nan for one in tested]))
    return [
        _finding(one, levels.get(place, ALPHA), float(corrected[place])) for place, one in enumerate(tested)
    ]


def _tested(claim: Claim, parts: Sequence[Part], delta: float) -> _Tested:
    effects = [effect_over_cells(part.differences) for part in parts]
    return _Tested(claim, parts, effects, -delta if claim.at_least_as_good else 0.0)


def _finding(one: _Tested, level: float, p: float) -> Finding:
    verdict = _verdict(one, level)
    # The interval whose lower end (or, against the claim, whose upper end) the verdict is read from.
    confidence = 1 - (level / one.num_tested if verdict == "contradicted" else level)
    pairs = zip(one.parts, one.effects, strict=True)
    judged = [Judged(part, effect, effect.interval(confidence)) for part, effect in pairs]
    return Finding(one.claim, verdict, p, judged, _deciding(judged, one.bound, verdict))


def _verdict(one: _Tested, level: float) -> Verdict:
    if not any(effect.n for effect in one.effects):
        return "not tested"
    if one.p > level:
        return "undecided"
    return "supported" if one.p_for <= one.p_against else "contradicted"


def _deciding(parts: Sequence[Judged], bound: float, verdict: Verdict) -> Judged | None:
    """The part that speaks most against a contradicted claim, least for any other; a tested one if any is."""
    some = [judged for judged in parts if judged.effect.n]
    some = [judged for judged in some if judged.effect.testable] or some
    if verdict == "contradicted":
        return min(some, key=lambda judged: judged.effect.p_below(bound))
    return max(some, key=lambda judged: judged.effect.p_above(bound), default=None)
