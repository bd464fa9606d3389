"""The words of a command, and the command that repeats one of its runs."""

import re
import shlex
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from routerbench.compose.errors import one_line
from routerbench.config import conf_dir

PART_OF_A_SPLIT = re.compile(r"^([\w.+]+=)([\w./-]+\[[\d.%]*:[\d.%]*\])$")
QUOTED_PART = re.compile(r"^([\w.+]+=)'([\w./-]+\[[\d.%]*:[\d.%]*\])'$")


def parsed(words: Sequence[str]) -> list[Override]:
    """The words as Hydra understands them; raises ValueError for one that it does not."""
    try:
        return OverridesParser.create().parse_overrides(quoted(words))
    except HydraException as error:
        raise ValueError(one_line(error, words)) from error


def quoted(words: Sequence[str]) -> list[str]:
    """The words as Hydra wants them: with quotes around train[:99%], of which the shell leaves none."""
    return [PART_OF_A_SPLIT.sub(r"\1'\2'", word) for word in words]


def is_swept(override: Override) -> bool:
    """Whether the word gives several values for a setting of the program."""
    return override.is_sweep_override() and not override.is_hydra_override()


def repeating(overrides: Sequence[str], config_dir: str | None) -> str:
    """The command that runs one job alone, by the words of the task that Hydra gave to it.

    A sweep of ours says which runs there are and no setting of them; one of the user may say both.
    """
    sweeps = [word for word in overrides if word.startswith("+sweep=")]
    of_user = [word for word in sweeps if not (conf_dir() / "sweep" / f"{word[7:]}.yaml").exists()]
    words = ["--config-dir", config_dir] if config_dir is not None else []
    # Without the quotes that `quoted` gave them, for which the shell would want further ones.
    words += [QUOTED_PART.sub(r"\1\2", word) for word in overrides if word not in sweeps or word in of_user]
    return shlex.join(["routerbench", "train", *words, *["hydra.mode=RUN"] * bool(of_user)])
