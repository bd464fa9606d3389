"""What is wrong with a command, in one line."""

from collections.abc import Sequence

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from routerbench.checks import did_you_mean

TO_ADD = "To append to your default list use "  # what Hydra says of a group without a choice


def one_line(error: Exception, overrides: Sequence[str]) -> str:
    """What is wrong with the command, naming the setting, its value and what would do."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        options = sorted(error.options)
        return f"{group}={name} is not one of: {', '.join(options)}{did_you_mean(name, options)}"
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        key = cause.full_key
        words = [word for word in overrides if word.lstrip("+~").startswith((f"{key}=", f"{key}."))]
        word = words[-1] if words else key
        if isinstance(cause, ConfigKeyError | ConfigAttributeError):
            return f"{word} is not a setting{_known_beside(key, overrides)}"
        if parts := _known_in(key, [other for other in overrides if other != word]):
            value = word.partition("=")[2]
            return f"{word} is one value for several settings: name one of them, as {key}.{parts[0]}={value}"
        return f"{word}: {str(cause).splitlines()[0]}"
    first, *more = str(error).strip().splitlines()
    if more and first.endswith(":"):
        return f"{first.removesuffix(':')}: {more[0]}"
    if more and more[0].startswith(TO_ADD):
        added = more[0].removeprefix(TO_ADD)
        return f"{added.removeprefix('+')}: nothing is chosen there that it could replace: write {added}"
    return first


def _unreadable(word: str) -> str:
    """A word that Hydra's grammar has no meaning for: most often one value with signs in it."""
    key, equals, value = word.partition("=")
    if not equals:
        return f"{word} is not a setting with its value: write setting=value"
    escaped = value.replace("'", "\\'")
    return f"""{word} cannot be read: where that is one value, write "{key}='{escaped}'", with both quotes"""


def _known_beside(key: str, overrides: Sequence[str]) -> str:
    """What would do: the nearest setting, and those that stand where the key would."""
    parent, _, name = key.rpartition(".")
    siblings = _known_in(parent, [word for word in overrides if not word.startswith((f"{key}=", f"{key}."))])
    if not siblings:
        return ""
    place = f"{parent} has" if parent else "settings are"
    return f"{did_you_mean(name, siblings)}; {place}: {', '.join(siblings)}"


def _known_in(key: str, overrides: Sequence[str]) -> list[str]:
    """The settings in a group of them; none where the key is no group, or that cannot be told now."""
    if not GlobalHydra.instance().is_initialized():
        return []  # not while composing
    try:
        node = compose("train", list(overrides))
        group = OmegaConf.select(node, key) if key else node
    except (HydraException, OmegaConfBaseException):
        return []  # something else is wrong too; this is what is said first
    return [str(name) for name in group] if isinstance(group, DictConfig) else []
