"""Runs that were trained for an epoch, to be asked further questions."""

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from routerbench.load import FinishedRun

TINY = (
    "data=digits",
    "epochs=1",
    "batch_size=64",
    "num_experts=4",
    "augment=none",
    "placement=[0,1]",
    "+model.arguments.depth=2",
    "+model.arguments.embed_dim=16",
    "+model.arguments.num_heads=2",
    "runtime.wandb=disabled",
    "runtime.device=cpu",
    "runtime.backend=bmm",
)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> "Callable[..., FinishedRun]":
    """A function that opens the run of these settings, which is trained once; later words win."""
    from rich.console import Console

    from routerbench import experiment, records
    from routerbench.compose import compose_sweep
    from routerbench.identity import identity, run_id
    from routerbench.load import open_run
    from routerbench.signals import Warned

    results = tmp_path_factory.mktemp("results")

    @cache
    def folder(*words: str) -> Path:
        (config,) = compose_sweep([*TINY, f"runtime.results={results}", *words], None, False).configs
        console = Console(file=io.StringIO())
        status = experiment.run(config, command="", repeat="", console=console, title="", warned=Warned())
        assert status == "done"
        return records.run_folder(results, run_id(identity(config)))

    return lambda *words: open_run(folder(*words), device="cpu")
