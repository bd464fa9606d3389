"""Launchers and sweepers of Hydra that are extras of this package."""

from collections.abc import Sequence
from importlib.util import find_spec

PLUGINS = {
    "joblib": "hydra_joblib_launcher",
    "submitit": "hydra_submitit_launcher",
    "ray": "hydra_ray_launcher",
    "optuna": "hydra_optuna_sweeper",
}


def check_extras(overrides: Sequence[str]) -> None:
    """Raise ValueError for a launcher or sweeper that is asked for and not installed."""
    for word in overrides:
        group, _, name = word.partition("=")
        extra = name.partition("_")[0]
        if (
            group in ("hydra/launcher", "hydra/sweeper")
            and extra in PLUGINS
            and not _is_there(PLUGINS[extra])
        ):
            raise ValueError(f"{word} is an extra that is not installed: pip install 'routerbench[{extra}]'")


def _is_there(plugin: str) -> bool:
    try:
        return find_spec(f"hydra_plugins.{plugin}") is not None
    except ModuleNotFoundError:  # there is no plugin at all
        return False
