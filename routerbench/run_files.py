"""The folder of a run: whole, of this version, with the weights that were written, or refused in one line."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError

from routerbench.identity import group_id
from routerbench.records import SCHEMA, is_of, own_record, read_record

MOST_BYTES = {"config.yaml": 2**17, "record.json": 2**27}  # far above those of any run


@contextmanager
def refusing(folder: Path) -> Iterator[None]:
    """Inside, whatever fails for what is in the folder is a ValueError of one line."""
    try:
        yield
    except ValueError as error:
        if "\n" not in str(error):
            raise
        raise ValueError(f"path={folder}: {_one_line(error)}") from error
    except OSError as error:
        place = error.filename or folder
        raise ValueError(f"path={place} cannot be read: {error.strerror or error}") from error
    except ConfigAttributeError as error:
        raise ValueError(
            f"path={folder} has a config.yaml without {error.full_key}: give the folder of a finished run"
        ) from None
    except Exception as error:  # of timm or torch, for settings that no run has
        raise ValueError(
            f"path={folder} has a config.yaml of which nothing can be made ({type(error).__name__}: "
            f"{_one_line(error)}): give another run"
        ) from error


def by_configuration(folders: Iterable[Path]) -> list[list[Path]]:
    """The folders in their order, each once, those whose runs differ by their seed alone together."""
    groups: dict[str, list[Path]] = {}
    for folder in {folder.resolve(): folder for folder in folders}.values():
        groups.setdefault(_configuration(folder), []).append(folder)
    return list(groups.values())


def has_file(folder: Path, name: str) -> bool:
    """Whether the file is there; raises ValueError for one that no run has written."""
    path = folder / name
    if path.exists() and not path.is_file():  # such as a pipe, on which a reader would wait
        raise ValueError(f"path={folder} has a {name} that is no file: give the folder of a finished run")
    if path.exists() and path.stat().st_size > MOST_BYTES[name]:
        raise ValueError(
            f"path={folder} has a {name} of more than {MOST_BYTES[name]} bytes, which no run has: give "
            "another run"
        )
    return path.exists()


def read_known(folder: Path) -> dict[str, Any] | None:
    """The record in the folder, None where there is none; raises ValueError for a damaged or later one."""
    if not has_file(folder, "record.json"):
        return None
    try:
        record = read_record(folder) or {}
    except ValueError:
        record = {}
    if record and record["schema"] > SCHEMA:
        raise ValueError(
            f"path={folder} has a record of version {record['schema']}, and this program knows up to "
            f"{SCHEMA}: take the program that wrote it, or a later one"
        )
    if not record or not _is_sound(record):
        raise ValueError(
            f"path={folder} has a record.json that is damaged: bring it back, or give another run"
        )
    return record


def read_done(folder: Path, config: DictConfig) -> dict[str, Any]:
    """The record of a run that is done, of this folder and this configuration; else raises ValueError."""
    record = read_known(folder)
    if record is None:
        raise ValueError(f"path={folder} has no record.json: the run is not over, train it to its end first")
    if not is_of(record, folder):
        raise ValueError(
            f"path={folder} has the record of run {record['run_id']}: name the folder so, or bring its own "
            "record.json back"
        )
    if record["status"] != "done":
        raise ValueError(
            f"path={folder} is of a run that has {_ended(record['status'])}: give one that is done"
        )
    if OmegaConf.to_container(config) != record["config"]:
        raise ValueError(f"path={folder} has a config.yaml that is not that of its record: bring it back")
    return record


def _configuration(folder: Path) -> str:
    try:
        record = own_record(folder)
        return str(folder) if record is None else group_id(record["config"])
    except (ValueError, OSError, KeyError, TypeError):  # what is wrong with it is said when it is opened
        return str(folder)


def _is_sound(record: dict[str, Any]) -> bool:
    """Whether what is looked up in a record can be."""
    parts = [record.get(name, {}) for name in ("metrics", "cost", "evaluation", "evaluations", "provenance")]
    nested = parts[-1].get("weights_sha256", {}) if isinstance(parts[-1], dict) else None
    return all(isinstance(part, dict) for part in (*parts, nested))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _ended(status: str) -> str:
    """The status of a record, as the end of a sentence."""
    return {"oom": "run out of memory"}.get(status, status)
