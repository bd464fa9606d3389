"""`routerbench train`: check every configuration, then give what is not done to Hydra's launcher."""

import gc
import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from routerbench.commands.refusal import refuse, say
from routerbench.signals import EXIT_CODE, RequeueError, Warned, heeded


def train(words: list[str]) -> int:
    """`routerbench train`: check every configuration, then give the command to Hydra."""
    from hydra._internal.utils import get_args_parser

    arguments = get_args_parser().parse_intermixed_args(words)
    # Hydra's own parser wants the overrides together, at the end.
    words = [word for word in words if word not in arguments.overrides] + arguments.overrides
    for option in ("config_name", "config_path", "experimental_rerun"):
        if getattr(arguments, option):
            return refuse(f"--{option.replace('_', '-')} is not taken: add files of yours by --config-dir")
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from routerbench import compose

    if arguments.config_dir:  # a router of the user stands beside its yaml
        sys.path.insert(0, str(Path(arguments.config_dir).resolve()))
    shown = ("help", "hydra_help", "cfg", "info", "shell_completion")
    try:
        if any(getattr(arguments, option) for option in shown):
            # The shell completes `routerbench train ...`; Hydra knows its own words only.
            os.environ["COMP_LINE"] = os.environ.get("COMP_LINE", "").replace(" train", "", 1)
            return _hydra(words, lambda config: None)
        sweep = compose.compose_sweep(arguments.overrides, arguments.config_dir, arguments.multirun)
        with heeded() as warned:
            return _train_cells_together(words, sweep.configs, warned)
    except (HydraException, OmegaConfBaseException) as error:
        return refuse(compose.one_line(error, arguments.overrides))
    except (ValueError, OSError) as error:
        return refuse(error)
    except KeyboardInterrupt:
        print("stopped: the same command goes on with what is not done", file=sys.stderr)
        return 130


def _train_cells_together(words: list[str], configs: Sequence[Any], warned: Warned) -> int:
    """With the other processes that `torchrun` started, if there are any."""
    from routerbench.config import check
    from routerbench.ranks import agreed, checked_by_all, joined

    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    for config in configs:
        check(config, num_processes)
    with joined(configs[0].runtime.timeout_seconds, configs[0].runtime.device):
        checked_by_all(lambda: _check_parts(configs))
        code = _train_cells(words, configs, warned)
        return agreed(lambda: _summary(configs)) if code is None else code


def _check_parts(configs: Sequence[Any]) -> None:
    """Raise ValueError for what this machine, the data or the weights do not allow."""
    from routerbench import parts
    from routerbench.identity import data_id, group_id, identity

    for config in {group_id(identity(config)): config for config in configs}.values():
        parts.verify(config)
    missing = [config for config, status in _statuses(configs) if status != "done"]
    by_data: dict[str, list[Any]] = {}
    for config in missing:
        by_data.setdefault(data_id(identity(config)), []).append(config)
    for of_data in by_data.values():
        data = parts.load_data(of_data[0])
        for config in {group_id(identity(config)): config for config in of_data}.values():
            parts.check_schedule(config, len(data.train))
            parts.load_extra(config, data.class_names)
            parts.load_fewshot(config, data)
        for config in {str(identity(config)["model"]): config for config in of_data}.values():
            parts.load_weights(config, data.num_classes)


def _train_cells(words: list[str], configs: Sequence[Any], warned: Warned) -> int | None:
    """Train one cell after the other; an exit code where a scheduler asked to stop."""
    from hydra._internal.utils import get_args_parser
    from hydra.core.hydra_config import HydraConfig
    from rich.console import Console

    from routerbench import experiment
    from routerbench.compose import repeating
    from routerbench.identity import identity, run_id

    gc.freeze()  # what is imported stays: to look at it again takes each collection a fifth of a second
    console = Console(quiet=_rank() > 0)
    number = {
        run_id(identity(config)): index for index, config in reversed(list(enumerate(configs, start=1)))
    }

    config_dir = get_args_parser().parse_intermixed_args(words).config_dir
    refused: list[ValueError] = []
    requeued: list[RequeueError] = []

    def run(config: Any) -> None:
        if refused or requeued:
            return
        settings = identity(config)
        title = f"[{number[run_id(settings)]}/{len(configs)}] {_title(settings)}"
        command = f"routerbench train {shlex.join(words)}"
        repeat = repeating(HydraConfig.get().overrides.task, config_dir)
        try:
            experiment.run(
                config, command=command, repeat=repeat, console=console, title=title, warned=warned
            )
        except ValueError as error:  # Hydra would go on to the next cell, and print a line of its own
            refused.append(error)
        except RequeueError as error:
            requeued.append(error)

    _hydra(words, run)
    if refused:
        raise refused[0]
    if requeued:
        say(f"{requeued[0]}: the same command goes on from there")
        return EXIT_CODE
    return None


def _hydra(words: list[str], run: Any) -> int:
    """Run a function of the configuration by Hydra, which reads `sys.argv`."""
    import hydra

    from routerbench.compose import quoted
    from routerbench.config import conf_dir
    from routerbench.schema import register_schema

    register_schema()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach our own line instead of Hydra's
    sys.argv = ["routerbench train", *quoted(words)]
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(run)()
    return 0


def _statuses(configs: Sequence[Any]) -> list[tuple[Any, str]]:
    """Each configuration with what its record says of it."""
    from routerbench.identity import identity, run_id
    from routerbench.records import read_record, run_folder

    statuses = []
    for config in configs:
        folder = run_folder(Path(config.runtime.results), run_id(identity(config)))
        try:
            record = read_record(folder)
        except ValueError:
            if not config.runtime.retry:
                raise
            record = None
        statuses.append((config, record["status"] if record else "not finished"))
    return statuses


def _summary(configs: Sequence[Any]) -> int:
    """Say what became of all runs, by their records; 1 unless all are done."""
    from rich.console import Console

    from routerbench.identity import identity, run_id
    from routerbench.records import run_folder

    folders = {
        run_folder(Path(config.runtime.results), run_id(identity(config))): status
        for config, status in _statuses(configs)
    }
    console, counts = Console(), Counter(folders.values())
    console.print(", ".join(f"{count} {status}" for status, count in counts.items()), highlight=False)
    for folder, status in folders.items():
        if status != "done":
            console.print(f"{status}: {folder}", markup=False, highlight=False)
    return 0 if set(counts) == {"done"} else 1


def _title(settings: dict[str, Any]) -> str:
    placement = "" if settings["router"]["name"] == "dense" else f" {settings['placement']}"
    return f"{settings['model']['name']} {settings['router']['name']}{placement} seed {settings['seed']}"


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))
