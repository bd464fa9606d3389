"""Hydra, as its launchers and sweepers want to find it."""

from collections.abc import Iterator
from contextlib import contextmanager

from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext

from routerbench.compose import Sweep
from routerbench.config import conf_dir


@contextmanager
def hydra_context(sweep: Sweep) -> Iterator[HydraContext]:
    """Inside, Hydra runs the sweep, of whose beginning and end its callbacks are told."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        callbacks = Callbacks(sweep.hydra)
        callbacks.on_multirun_start(config=sweep.hydra, config_name="train")
        yield HydraContext(GlobalHydra.instance().config_loader(), callbacks)
        callbacks.on_multirun_end(config=sweep.hydra, config_name="train")
