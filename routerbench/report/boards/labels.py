"""The names of a board's rows: what they are, and in what they differ from their file and their namesakes."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from routerbench.config import conf_dir
from routerbench.report.boards.cells import DENSE, OF_MOE, belongs
from routerbench.report.runs.run import Settings, key_of, text_of

OF_EVALUATION = ("capacity_factor_eval", "top_k_eval", "dropless")  # of a router, where not as in training
NAMED = ("router", "model", "data", "augment", "optim")  # groups that are called by their name


def label_of(row: Settings, rows: Sequence[Settings], by: Sequence[str]) -> str:
    """A row's compared settings in a few words; `rows` are those of the whole board."""
    dense = row.get("router.name") == DENSE
    names = [name for name in by if not (dense and belongs(name, OF_MOE))]
    parts = [part for name in names if (part := _part(name, row, rows))] or ["all alike"] * (not dense)
    return " ".join([DENSE, *parts] if dense else parts)


def differing(settings: Sequence[Settings]) -> list[str]:
    """The names whose value is not the same in all settings."""
    names = sorted({name for one in settings for name in one})
    return [name for name in names if len({key_of({name: one.get(name)}) for one in settings}) > 1]


def evaluated_otherwise(router: Settings) -> list[str]:
    """The settings by which a router is evaluated otherwise than it is trained."""
    return [name for name in OF_EVALUATION if router.get(name) not in (None, False)]


def as_in_its_file(row: Settings) -> bool:
    """Whether the row's router has the settings that `conf/router` gives it."""
    return not _not_of_its_file(_within("router", row))


def _part(name: str, row: Settings, rows: Sequence[Settings]) -> str:
    if name in NAMED:
        return _named(name, row, rows)
    if name in row:
        return f"{name}={text_of(row[name])}"
    # A setting that this row has not is none of its own; a group says in what its rows differ.
    group = any(path.startswith(f"{name}.") for other in rows for path in other)
    own = [path for path in differing(rows) if belongs(path, [name])] if group else [name]
    return " ".join(f"{path}={text_of(row.get(path))}" for path in own)


def _named(group: str, row: Settings, rows: Sequence[Settings]) -> str:
    own, others = _within(group, row), [_within(group, other) for other in rows]
    namesakes = [other for other in others if other.get("name") == own.get("name")]
    return " ".join(
        [str(own.get("name")), *(f"{name}={text_of(own.get(name))}" for name in _told(own, namesakes))]
    )


def _told(own: Settings, namesakes: Sequence[Settings]) -> list[str]:
    """What to say beside the name: what its file does not say, where that tells all namesakes apart."""
    unusual = _not_of_its_file(own)
    texts = {key_of({name: other[name] for name in _not_of_its_file(other)}) for other in namesakes}
    distinct = {key_of(other) for other in namesakes}
    return unusual if len(texts) == len(distinct) else sorted({*differing(namesakes), *unusual})


def _within(group: str, settings: Settings) -> dict[str, Any]:
    prefix = f"{group}."
    return {path.removeprefix(prefix): settings[path] for path in settings if path.startswith(prefix)}


def _not_of_its_file(router: Settings) -> list[str]:
    """The settings with another value than in `conf/router`, where the files of other people are not."""
    own = _settings_of_files().get(str(router.get("name")))
    if own is None:
        return evaluated_otherwise(router)
    return sorted(name for name in router if name in own and router[name] != own[name])


@cache
def _settings_of_files() -> dict[str, dict[str, Any]]:
    """By router what its file sets itself; what it passes on from all routers' settings is in the title."""
    shared = {"${slots_per_token}": OmegaConf.load(conf_dir() / "train.yaml").slots_per_token}
    files = {}
    for file in sorted((conf_dir() / "router").glob("*.yaml")):
        usual = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        assert isinstance(usual, dict)
        own = {str(name): shared.get(str(value), value) for name, value in usual.items()}
        files[file.stem] = {name: value for name, value in own.items() if not str(value).startswith("${")}
    return files
