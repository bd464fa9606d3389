"""The settings that an evaluation may add: further image sets, and probes."""

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from routerbench.compose import compose_sweep
from routerbench.compose.words import parsed


def eval_settings(words: Sequence[str]) -> DictConfig:
    """What `eval` of a configuration is by these words, resolved; raises ValueError for any other setting."""
    for word, override in zip(words, parsed(words), strict=True):
        place = override.package or override.key_or_group
        if place.split(".")[0] != "eval":
            raise ValueError(
                f"{word}: a finished run has its settings; give those of eval alone, as +eval=imagenet_v2"
            )
    if not words:
        return OmegaConf.create({})
    config = compose_sweep(words, None, multirun=False).configs[0]
    OmegaConf.resolve(config)
    return config.eval
