"""The claims of the studies, and what a results folder says of them."""

from routerbench.report.claims.found import claims_found
from routerbench.report.claims.section import claims_section

__all__ = ["claims_found", "claims_section"]
