"""`routerbench train`: the words of Hydra, the sweep that they are, and its end."""

import os
import sys
from argparse import Namespace

from routerbench.refusal import refuse

NOT_TAKEN = ("config_name", "config_path", "experimental_rerun")
SHOWN = ("help", "hydra_help", "cfg", "info", "shell_completion")


def train(words: list[str]) -> int:
    """Train what the words say, or show what Hydra is asked to show; gives back the exit code."""
    from hydra._internal.utils import get_args_parser

    arguments = get_args_parser().parse_intermixed_args(words)
    for option in NOT_TAKEN:
        if getattr(arguments, option):
            return refuse(f"--{option.replace('_', '-')} is not taken: add files of yours by --config-dir")
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from routerbench.compose import one_line

    try:
        if any(getattr(arguments, option) for option in SHOWN):
            return _show(words, arguments)
        return _train(words, arguments)
    except (HydraException, OmegaConfBaseException) as error:
        return refuse(one_line(error, arguments.overrides))
    except (ValueError, OSError) as error:
        return refuse(error)
    except KeyboardInterrupt:
        print("stopped: nothing had begun", file=sys.stderr)
        return 130


def _train(words: list[str], arguments: Namespace) -> int:
    from routerbench.compose import compose_sweep, import_from
    from routerbench.sweep.launchers import check_extras
    from routerbench.sweep.run import run_sweep

    check_extras(arguments.overrides)
    import_from(arguments.config_dir)
    sweep = compose_sweep(arguments.overrides, arguments.config_dir, arguments.multirun)
    return run_sweep(sweep, words, arguments.overrides, arguments.config_dir)


def _show(words: list[str], arguments: Namespace) -> int:
    """Have Hydra, which reads `sys.argv`, show a configuration, itself or what the shell completes."""
    import hydra

    from routerbench.compose import quoted
    from routerbench.config import conf_dir
    from routerbench.schema import register_schema

    register_schema()
    # Hydra's own parser wants the overrides together, at the end.
    words = [word for word in words if word not in arguments.overrides] + arguments.overrides
    # The shell completes `routerbench train ...`; Hydra knows its own words only.
    os.environ["COMP_LINE"] = os.environ.get("COMP_LINE", "").replace(" train", "", 1)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach our own line instead of Hydra's
    sys.argv = ["routerbench train", *quoted(words)]
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(lambda config: None)()
    return 0
