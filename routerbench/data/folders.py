"""The folders and files that settings name, which are looked at before anything heavy is imported."""

from pathlib import Path

from omegaconf import DictConfig

WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt")
# What `data.path` must hold, by the function that reads it; the hub finds its own.
CONTENTS = {
    "folder": "train/ and val/, each with one folder of images per class",
    "fashion_mnist": "the four original files (train-images-idx3-ubyte.gz, ...)",
    "cifar10": "cifar10's files as torchvision lays them out (data.download=true fetches them)",
    "cifar100": "cifar100's files as torchvision lays them out (data.download=true fetches them)",
    "torchvision": "{dataset} as torchvision lays it out (data.download=true fetches it)",
    "wds": "the shards, such as train-000000.tar and validation-000000.tar",
}


def check_paths(config: DictConfig) -> None:
    """Raise ValueError for a folder or file that a run would read and that is not there."""
    _check_source(config.data.source)
    if config.model.weights not in (None, "pretrained"):
        check_weights(Path(config.model.weights))
    for name, node in config.eval.items():
        if "path" in node:
            evaluated_folder(str(name), node.path)
        if "data" in node:
            _check_source(node.data.source)


def existing_folder(path: str | None, reader: str, dataset: str | None = None) -> Path:
    """The folder of `data.path`; raises ValueError, naming what it must hold, where there is none."""
    folder = named_folder(path, reader, dataset)
    if not folder.is_dir():
        contents = CONTENTS[reader].format(dataset=dataset)
        raise ValueError(f"data.path={path!r} is not a folder: data={reader} needs one that holds {contents}")
    return folder


def named_folder(path: str | None, reader: str, dataset: str | None = None) -> Path:
    """`data.path` as a Path; raises ValueError, naming what the folder must hold, where it is null."""
    if path is None:
        contents = CONTENTS[reader].format(dataset=dataset)
        raise ValueError(f"data.path=null: data={reader} needs the folder that holds {contents}")
    return Path(path).expanduser()


def split_folders(root: Path, train: str, test: str | None) -> tuple[Path, Path]:
    """The folders of the training and the test set, which is val/ or validation/ where none is named.

    Raises ValueError where one of them is missing, or the test set could be either.
    """
    found = [name for name in ("val", "validation") if (root / name).is_dir()]
    if test is None and len(found) > 1:
        raise ValueError(
            f"data.test_split=null: {str(root)!r} has both val/ and validation/: give one of them"
        )
    folders = root / train, root / (test or (found[0] if found else "val"))
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(
                f"data.path={str(root)!r} has no folder {folder.name}/: give one that holds train/ and val/"
            )
    return folders


def evaluated_folder(name: str, path: str | None) -> Path:
    """The folder of a further image set; raises ValueError where there is none."""
    if path is None or not Path(path).expanduser().is_dir():
        raise ValueError(f"eval.{name}.path={path or 'null'} is no folder: give that of its images")
    return Path(path).expanduser()


def check_weights(path: Path, setting: str = "model.weights") -> None:
    """Raise ValueError for what is neither a folder nor a file of weights."""
    if path.is_dir():
        return
    if not path.is_file():
        raise ValueError(
            f"{setting}={path} does not exist: give pretrained, a file ({' '.join(WEIGHTS_SUFFIXES)}) or the "
            "folder of a run"
        )
    if path.suffix not in WEIGHTS_SUFFIXES:
        raise ValueError(f"{setting}={path} is no file of weights: give one of {' '.join(WEIGHTS_SUFFIXES)}")


def _check_source(source: DictConfig) -> None:
    module, _, reader = str(source.get("_target_")).rpartition(".")
    if not module.startswith("routerbench.data.") or reader not in CONTENTS:
        return
    if source.get("dataset", reader) is None:  # which is refused with the names that there are
        return
    look = named_folder if source.get("download") else existing_folder
    root = look(source.path, reader, source.get("dataset"))
    class_map = source.get("class_map")
    if class_map is not None and not any((folder / class_map).is_file() for folder in (Path(), root)):
        raise ValueError(f"data.class_map={class_map} cannot be read: give a .txt or .pkl file of timm's")
    if reader == "folder":
        split_folders(root, source.train_split.partition("[")[0], source.test_split)
