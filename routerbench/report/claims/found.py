"""Runs -> what they say of the claims."""

from collections.abc import Sequence

from routerbench.report.claims.catalogue import all_claims
from routerbench.report.claims.setups import setups_of
from routerbench.report.claims.verdicts import Finding, findings_of
from routerbench.report.runs.metric import Metric
from routerbench.report.runs.run import Run


def claims_found(runs: Sequence[Run], metric: Metric, delta: float) -> list[Finding]:
    """The verdict of these runs on every claim of the studies, by this accuracy; `delta` as a fraction.

    A contrast pairs runs that are equal in seed and all settings but those that the claim is about; in a cell
    each seed gives one difference. Cells are fixed and the seeds in them the replication.
    """
    setups = setups_of(runs, metric)
    return findings_of([(claim, claim.parts(setups)) for claim in all_claims()], delta)
