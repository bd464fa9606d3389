"""The names that the words of `routerbench eval` may have: studies, and what may replace a trained router."""

STUDIES = ("capacity", "compute", "batches", "routers", "images")
WITHOUT_PICTURES = ("images",)
CONTROLS = ("uniform", "soft_identity", "hash", "random")
OF_ANOTHER_RUN = ("other_seed", "other_seed_matched", "other_seed_scores", "other_seed_scores_matched")
REPLACEMENTS = (*CONTROLS, "drop_first", "frozen", "shuffled", "other_layer", *OF_ANOTHER_RUN)
