"""Many configurations by Hydra's own steps, of which the slow one is done once for equal choices of files."""

import copy
import pickle
from collections.abc import Sequence
from pathlib import Path

from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from routerbench.compose.errors import one_line
from routerbench.compose.words import parsed

# Where Hydra keeps what is its own, and the program what a sweep is made of.
NOT_OF_A_RUN = ("hydra", "union")


class KeptFiles(ConfigRepository):
    """Files that are read once, where Hydra would read all of them again for each configuration."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        self._read: dict[tuple[str, ...], bytes] = {}  # as bytes, for Hydra changes what it was given
        super().__init__(config_search_path)

    def load_config(self, config_path: str) -> ConfigResult | None:
        """What the first source that has the file says."""
        key = (config_path, *(source.full_path() for source in self.sources))
        if key not in self._read:
            self._read[key] = pickle.dumps(super().load_config(config_path))
        return pickle.loads(self._read[key])

    def __deepcopy__(self, memo: dict[int, object]) -> "KeptFiles":
        """With sources of its own, for Hydra gives a copy those of the user, and what was read in common."""
        return copy.copy(self)


class Composer:
    """Composes cells while Hydra knows the folder of configurations.

    `further` are the words for Hydra itself, which all cells have; `config_dir` is the user's folder.
    """

    def __init__(self, further: Sequence[str], config_dir: str | None) -> None:
        self._further = tuple(further)
        self._config_dir = config_dir
        self._groups: dict[str, bool] = {}
        self._of_files: dict[tuple[str, ...], bytes] = {}
        self._understood: dict[str, tuple[Override, bool]] = {}
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, ConfigLoaderImpl)
        loader.repository = KeptFiles(loader.config_search_path)

    def chooses_files(self, override: Override) -> bool:
        """Whether the word says which files are read, and not what a setting is."""
        if override.package is not None:
            return True
        if isinstance(override.value(), dict):  # it is merged into what is there
            return False
        return self._is_group(override.key_or_group)

    def whole(self, words: Sequence[str]) -> DictConfig:
        """The configuration with Hydra's own node; raises ValueError for words that give none."""
        words = [*words, *self._further]
        try:
            return compose("train", words, return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(one_line(error, words)) from error

    def program(self, words: Sequence[str]) -> DictConfig:
        """The configuration of one run, as `whole` has it; raises ValueError for words that give none."""
        understood = [self._understand(word) for word in words]
        files = tuple(word for word, (_, chooses) in zip(words, understood, strict=True) if chooses)
        settings = [override for override, chooses in understood if not chooses]
        try:
            config = self._chosen(files)
            ConfigLoaderImpl._apply_overrides_to_config(settings, config)
        except (HydraException, OmegaConfBaseException, ValueError):
            return of_program(self.whole(words))  # all of it by Hydra, so that the error is Hydra's
        return config

    def _is_group(self, key: str) -> bool:
        if key not in self._groups:
            options = GlobalHydra.instance().config_loader().get_group_options(key)
            of_user = self._config_dir is not None and Path(self._config_dir, key).is_dir()
            self._groups[key] = bool(options) or of_user
        return self._groups[key]

    def _chosen(self, files: tuple[str, ...]) -> DictConfig:
        """What the files say, for the caller alone."""
        if files not in self._of_files:  # as bytes, of which a copy is made several times faster
            self._of_files[files] = pickle.dumps(of_program(self.whole(files)))
        return pickle.loads(self._of_files[files])

    def _understand(self, word: str) -> tuple[Override, bool]:
        """The word, and whether it chooses files; each is looked at once."""
        if word not in self._understood:
            (override,) = parsed([word])
            self._understood[word] = override, self.chooses_files(override)
        return self._understood[word]


def of_program(composed: DictConfig) -> DictConfig:
    """What a run is configured by, of what was composed."""
    config = copy.copy(composed)
    OmegaConf.set_readonly(config, False)
    with open_dict(config):
        for key in NOT_OF_A_RUN:
            del config[key]
    return config
