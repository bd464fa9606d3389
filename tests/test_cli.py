"""The command: what is refused in one line with exit code 2, and what its exit code says."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fork_server import ForkServer

from routerbench import cli, measure
from routerbench.commands import train
from routerbench.config import conf_dir

VIT = "+model.arguments={depth:2,embed_dim:16,num_heads:2}"
TINY = ("data=digits", "augment=none", "epochs=1", VIT, "num_experts=4", "runtime.threads=1")
ROUTERS = ", ".join(sorted(path.stem for path in (conf_dir() / "router").glob("*.yaml")))
PLACEMENTS = "last_2, every_2, last_half, stage, none"
EXTENSIONS = ".jpg .jpeg .png .ppm .bmp .pgm .tif .tiff .webp"
FOLDER = (
    "data.path=null: data=folder needs the folder that holds train/ and val/, each with one folder of images "
    "per class"
)
COUNT = "must be a whole number of at least 1"

# The command, and all that it says.
REFUSED = [
    (
        ["router=expert_choise"],
        f"router=expert_choise is not one of: {ROUTERS} (did you mean expert_choice?)",
    ),
    (["model.name=pocket_vitt"], "model.name=pocket_vitt is not a timm model (did you mean pocket_vit?)"),
    (["model.name=zzz"], "model.name=zzz is not a timm model"),
    (["placement=last_3"], f"placement=last_3 is not one of: {PLACEMENTS} (did you mean last_2?)"),
    (["placement=[6]"], "placement=[6] names block 6: the blocks are 0 to 5"),
    (["placement=[1,1]"], "placement=[1, 1] names a block twice"),
    (["placement=[true]"], "placement=[True] names block True: the blocks are 0 to 5"),
    (["router=soft", "router.name=dense"], "router.name=dense is not what this router is: say router=dense"),
    (["num_experts=10000000000000"], "num_experts=10000000000000 is more than 1e+12: give at most that"),
    (["placement=null"], "placement=None is neither a name nor a list of blocks"),
    (
        ["placement=stage"],
        "placement=stage needs a model in stages, such as a ConvNeXt: this one has none",
    ),
    (
        ["runtime.devise=cpu"],
        "runtime.devise=cpu is not a setting (did you mean device?); runtime has: results, device, workers, "
        "decoded_cache_gib, threads, backend, compile, channels_last, activation_checkpointing, "
        "deterministic, wandb, log_every_steps, retry, retry_oom, checkpoint_every_steps, "
        "checkpoint_every_minutes, keep_checkpoints, timeout_seconds",
    ),
    (["runtime.results="], "runtime.results= is empty: give a folder, such as results"),
    (["+epoch=3"], "+epoch=3: epoch is not a setting"),
    (["epochs=abc"], "epochs=abc: Value 'abc' of type 'str' could not be converted to Integer"),
    (["seed=${sed}"], "seed=${sed}: Interpolation key 'sed' not found"),
    (
        ["router=token_choice", "router.top_k=9"],
        "router.top_k=9 is more than num_experts=8: give at most that",
    ),
    (
        ["router=hash", "num_experts=2", "router.top_k=3"],
        "router.top_k=3 is more than num_experts=2: give at most that",
    ),
    (["num_experts=0"], f"num_experts=0 {COUNT}"),
    (["capacity_factor=0"], "capacity_factor=0.0 must be a number above 0"),
    (["router.capacity=0"], f"router.capacity=0 {COUNT}"),
    (["router=soft", "router.slots_per_expert=0"], f"router.slots_per_expert=0 {COUNT}"),
    (["group=7"], "group=7 does not tile the batch: batch_size=64 is no multiple of it"),
    (["group=0"], "group=0 is neither image nor a number of images"),
    (["group=picture"], "group=picture is neither image nor a number of images"),
    (["router=soft", "group=8"], "group=8 would mix images: Soft routes each alone, group=image"),
    (
        ["model.name=resnet18"],
        "model.name=resnet18 has no block with an MLP to replace: take a ViT, a ConvNeXt, a Swin ..., "
        "or router=dense",
    ),
    (
        ["+model.arguments.dept=2"],
        "model.name=pocket_vit with {'img_size': 32, 'dept': 2} cannot be built: "
        "VisionTransformer.__init__() got an unexpected keyword argument 'dept'",
    ),
    (
        ["data.image_size=33"],
        "model.name=pocket_vit cannot take data.image_size=33: its patches are 8 x 8, "
        "so give a multiple of that",
    ),
    (
        ["model=pocket_convnext_iso", "data.image_size=30"],
        "model.name=pocket_convnext_iso cannot take data.image_size=30: its patches are 4 x 4, "
        "so give a multiple of that",
    ),
    (
        ["expert_init=shard"],
        "expert_init=shard is not one of: shared, independent, upcycle (did you mean shared?)",
    ),
    (
        ["expert_init=null"],
        "expert_init=None is not one of: shared, independent, upcycle",
    ),
    (
        ["router=dense", "expert_init=none"],
        "expert_init=none is not one of: shared, independent, upcycle",
    ),
    (["expert_mlp_ratio=0"], "expert_mlp_ratio=0.0 must be a number above 0"),
    (
        ["expert_mlp_ratio=0.001"],
        "expert_mlp_ratio=0.001 leaves no hidden feature at a width of 64: give more",
    ),
    (["expert_dropout=1"], "expert_dropout=1.0 must be a number below 1"),
    (["expert_dropout=-0.5"], "expert_dropout=-0.5 must be a number of at least 0"),
    (
        ["expert_init=upcycle", "expert_mlp_ratio=2", "model.weights=pretrained"],
        "expert_mlp_ratio=2.0 gives 128 hidden features, and expert_init=upcycle needs the 256 of the dense "
        "MLP: leave it out",
    ),
    (
        ["extra_skip=true"],
        "extra_skip=true: blocks.3 has no depthwise convolution that keeps the shape of its input: take a "
        "ConvNeXt, or extra_skip=false",
    ),
    (
        ["router=dense", "data=digits", "model.weights=a.pth"],
        "model.weights=a.pth does not exist: give pretrained, a file (.safetensors .pth .pt) or the folder "
        "of a run",
    ),
    (
        ["-m", "router=dense", "data=digits", "model.weights=null,pyproject.toml"],  # no run has begun
        "cell 2 of 2 (model.weights=pyproject.toml): model.weights=pyproject.toml does not exist: give "
        "pretrained, a file (.safetensors .pth .pt) or the folder of a run",
    ),
    (
        ["model.name=pvt_v2_b0"],
        "stages.2.blocks.1: experts cannot replace an MLP of class MlpWithDepthwiseConv: its convolution "
        "dwconv mixes positions",
    ),
    (["data=folder"], FOLDER),
    (["data.path=/tmp"], "data.path=/tmp means nothing to data=landcover32: leave it out"),
    (["precision=f16"], "precision=f16 is not one of: fp32, bf16, fp16 (did you mean fp16?)"),
    (
        ["runtime.wandb=offlin"],
        "runtime.wandb=offlin is not one of: offline, online, disabled (did you mean offline?)",
    ),
    (
        ["runtime.backend=fast"],
        "runtime.backend=fast is not one of: auto, bmm, loop, grouped, one_hot",
    ),
    (
        ["model.name=convnextv2_atto", "placement=stage", "runtime.backend=loop"],
        "runtime.backend=loop knows no norm between the layers of experts, and these have ResponseNorm: "
        "take auto or bmm",
    ),
    (["runtime.device=gpu"], "runtime.device=gpu is no device: cpu, cuda, cuda:1 ... or auto"),
    (
        ["runtime.device=cuda:99"],
        f"runtime.device=cuda:99 is not here: this machine has {torch.cuda.device_count()} GPUs",
    ),
    (["runtime.device=meta"], "runtime.device=meta cannot be used on this machine: take cpu or auto"),
    (["optim.name=adamww"], "optim.name=adamww is not a timm optimizer (did you mean adamw?)"),
    (
        ["optim.schedule=cosin"],
        "optim.schedule=cosin is not one of: cosine, tanh, poly, step, multistep, constant, wsd, rsqrt, "
        "warmup_linear_decay, warmup_cosine_decay, warmup_polynomial_decay, warmup_exponential_decay, "
        "big_vision_rsqrt (did you mean cosine?)",
    ),
    (["augment.hflip=2.0"], "augment.hflip=2.0 is a probability: give 0 to 1"),
    (
        ["augment=imagenet"],
        "augment=imagenet is for image files, and this data set is held in memory: "
        "give augment=none, crop_flip or dihedral",
    ),
    (["batch_size=9000"], "batch_size=9000 is more than the 6866 training images: give at most that"),
    (["seed=0,1"], "seed=0,1 gives several values: add -m to run them all"),
    (["-m", "router=soft,sotf"], f"router=sotf is not one of: {ROUTERS} (did you mean soft?)"),
    (
        ["-m", "router=soft,hash", "placement=last_2,lats_2"],
        f"cell 2 of 4 (router=soft placement=lats_2): placement=lats_2 is not one of: {PLACEMENTS} (did you "
        "mean last_2?)",
    ),
    (
        ["-m", "router=soft,hash", "group=image,8"],
        "cell 2 of 4 (router=soft group=8): group=8 would mix images: Soft routes each alone, group=image",
    ),
    (["-m", "seed=-1,0"], "cell 1 of 2 (seed=-1): seed=-1 must be a number of at least 0"),
    (["-m", "data=digits,folder"], f"cell 2 of 2 (data=folder): {FOLDER}"),
    (
        ["-m", "+sweep=routers", "sed=4"],
        "sed=4 is not a setting (did you mean seed?); settings are: router, model, placement, num_experts, "
        "slots_per_token, capacity_factor, group, expert_init, expert_mlp_ratio, expert_dropout, extra_skip, "
        "seed, data, augment, epochs, batch_size, optim, precision, eval_every, loss, mix, ema, eval, "
        "runtime, parallel, union",
    ),
]


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A command reads `sys.argv`, writes below the working folder, and sets the threads of its process."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setenv("COMP_LINE", "")
    monkeypatch.chdir(tmp_path)
    yield
    torch.set_num_threads(threads)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize(("words", "text"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_bad_input_is_one_line_and_code_2_and_nothing_is_written(
    words: list[str], text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.train(words) == 2
    shown = capfd.readouterr()
    assert (shown.err, shown.out) == (f"routerbench: {text}\n", "")
    assert files(tmp_path) == []


def test_missing_and_empty_folders_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["data=folder", "data.image_size=32", "augment=none", f"data.path={tmp_path}/images"]

    def refused() -> str:
        for flags in ([], ["-m", "seed=0,1"]):
            assert train.train([*flags, *words]) == 2
        first, second = capfd.readouterr().err.splitlines()
        reason = first.removeprefix("routerbench: ")
        assert second == f"routerbench: cell 1 of 2 (seed=0): {reason}"
        return reason

    images = tmp_path / "images"
    assert refused() == (
        f"data.path='{images}' is not a folder: data=folder needs one that holds train/ and val/, each with "
        "one folder of images per class"
    )
    images.mkdir()
    assert refused() == f"data.path='{images}' has no folder train/: give one that holds train/ and val/"
    (images / "train" / "cat").mkdir(parents=True)
    (images / "val" / "cat").mkdir(parents=True)
    assert refused() == (
        f"{images}/train/cat is an empty class: remove it or put images there ({EXTENSIONS})"
    )
    assert files(tmp_path) == ["images", "images/train", "images/train/cat", "images/val", "images/val/cat"]


@pytest.mark.parametrize(
    ("flags", "titles"),
    [
        ([], ["[1/1] pocket_vit expert_choice last_2 seed 0"]),
        (["-m", "seed=0,1"], ["[1/2] seed=0", "[2/2] seed=1"]),
    ],
)
def test_a_corrupt_image_is_one_line_and_no_outcome(
    flags: list[str], titles: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for part in ("train", "val"):
        (tmp_path / "images" / part / "cat").mkdir(parents=True)
        (tmp_path / "images" / part / "cat" / "1.png").write_text("no image")
    words = [*TINY[1:], "data=folder", f"data.path={tmp_path}/images", "data.image_size=32", "batch_size=1"]
    assert train.train([*flags, *words, "runtime.workers=0", "runtime.wandb=disabled"]) == 1
    reason = (
        f"{tmp_path}/images/train/cat/1.png cannot be read as an image (UnidentifiedImageError): replace or "
        "remove it"
    )
    shown = capfd.readouterr()
    assert shown.err.splitlines() == [f"{title}  {reason}" for title in titles]
    first, *lines = shown.out.splitlines()
    assert first == f"{len(titles)} interrupted"
    assert [line.partition("  ")[2] for line in lines] == [reason] * len(titles)
    assert not list(tmp_path.rglob("record.json"))


# Without the checks of types, which the tests put before those of the program.
WRONG_TYPES = {
    "router.noise_std=abc": "router.noise_std=abc must be a number of at least 0",
    "router.noise_std=-1": "router.noise_std=-1 must be a number of at least 0",
    "router.capacity=abc": f"router.capacity=abc {COUNT}",
    "router.capacity_factor=abc": "router.capacity_factor=abc must be a number above 0",
    "router.capacity_rounding=up": "router.capacity_rounding=up is not one of: ceil, round",
    "router=token_choice router.top_k=abc": f"router.top_k=abc {COUNT}",
    "router=token_choice router.top_k=1.5": f"router.top_k=1.5 {COUNT}",
    "router=token_choice router.batch_priority=1": "router.batch_priority=1 must be true or false",
    "router=token_choice router.load_weight=x": "router.load_weight=x must be a number of at least 0",
    "router=sinkhorn_token_choice router.num_iterations=0": f"router.num_iterations=0 {COUNT}",
    "router=soft router.slots_per_expert=a": f"router.slots_per_expert=a {COUNT}",
    "router=sigmoid_bias router.dropless=2": "router.dropless=2 must be true or false",
    "router=expert_choice router.scorer=null": "router.scorer=None is not one of: linear, cosine, l2",
    "placement=[a]": "placement=['a'] names block 'a': the blocks are 0 to 5",
    "group=1.5": "group=1.5 is neither image nor a number of images",
}


def test_wrong_types_of_a_routers_settings_are_one_line(tmp_path: Path, fork_server: ForkServer) -> None:
    loop = (
        "import sys; from routerbench.commands.train import train; [train(w.split()) for w in sys.argv[1:]]"
    )
    done = fork_server.run("-c", loop, *WRONG_TYPES, cwd=tmp_path)
    assert done.stderr.splitlines() == [f"routerbench: {text}" for text in WRONG_TYPES.values()]
    assert files(tmp_path) == []


def test_done_is_code_0_and_a_second_time_nothing_is_left_to_do(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["-m", *TINY, "runtime.wandb=disabled", "router=soft,dense", "placement=last_2,none"]
    assert train.train(words) == 0
    shown = capfd.readouterr()
    assert shown.err == ""
    # Three of the four combinations are the dense run.
    assert [line.split("  ")[0] for line in shown.out.splitlines()] == [
        "[1/2] router=soft placement=last_2",
        "[2/2] router=soft placement=none",
        "2 done",
    ]
    (record, _) = map(Path.read_text, sorted(tmp_path.glob("results/runs/*/record.json"), reverse=True))
    again = ["routerbench", "train", "router=soft", "placement=last_2", *TINY, "runtime.wandb=disabled"]
    assert sorted(shlex.split(json.loads(record)["provenance"]["repeat"])) == sorted(again)
    assert train.train(words) == 0
    assert capfd.readouterr().out == "2 done\n"


def test_a_run_that_fails_is_code_1_and_is_named_and_the_others_go_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure.train

    def fail_once(*args: Any, **settings: Any) -> Any:
        monkeypatch.setattr(measure, "train", whole)
        raise RuntimeError("boom")

    monkeypatch.setattr(measure, "train", fail_once)
    words = [*TINY, "runtime.wandb=disabled", "router=dense"]
    assert train.train(["-m", *words, "seed=0,1"]) == 1
    lines = capfd.readouterr().out.splitlines()
    (failed,) = [path.parent for path in tmp_path.glob("results/runs/*s0*/record.json")]
    assert lines[-2:] == [
        "1 done, 1 failed",
        f"failed: {failed.relative_to(tmp_path)}  RuntimeError: boom",
    ]
    assert train.train(words) == 1
    assert train.train([*words, "seed=1"]) == 0
    assert train.train([*words, "runtime.retry=all"]) == 0


def test_a_folder_of_the_user_is_trained_from(tmp_path: Path) -> None:
    (tmp_path / "mine" / "router").mkdir(parents=True)
    (tmp_path / "mine" / "router" / "twice.yaml").write_text("defaults: [hash]\nname: twice\ntop_k: 2\n")
    words = [*TINY, "runtime.wandb=disabled", "router=twice", "--config-dir", "mine"]
    assert train.train(words) == 0
    assert len(list(tmp_path.glob("results/runs/digits-pocket_vit-twice-s0-*/record.json"))) == 1


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["train", "-m", "seed=0", "--config-dir", "train"], ["-m", "seed=0", "--config-dir", "train"]),
        (["-sc", "query=bash"], ["-sc", "query=bash"]),
    ],
)
def test_the_words_after_train_are_given_on(
    words: list[str], given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(sys, "argv", ["routerbench", *words])
    monkeypatch.setattr(train, "train", lambda words: seen.append(words) or 3)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert (caught.value.code, seen) == (3, [given])


@pytest.mark.parametrize("option", ["--config-name", "--config-path", "--experimental-rerun"])
def test_another_primary_configuration_is_not_taken(option: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert train.train([option, "mine"]) == 2
    text = f"routerbench: {option} is not taken: add files of yours by --config-dir\n"
    assert capfd.readouterr().err == text


def test_the_console_command_refuses_with_code_2(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("routerbench"), "train", "router=sofd"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    text = f"routerbench: router=sofd is not one of: {ROUTERS} (did you mean soft?)\n"
    assert (done.returncode, done.stderr, done.stdout) == (2, text, "")
    assert files(tmp_path) == []


def test_an_empty_results_folder_has_no_report(tmp_path: Path, fork_server: ForkServer) -> None:
    done = fork_server.routerbench("report", "--results", "none", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "routerbench: results='none' holds no finished run: give the folder that holds "
        "runs/<run_id>/record.json\n"
    )
    assert files(tmp_path) == []


def test_help_names_the_commands_and_every_setting(tmp_path: Path, fork_server: ForkServer) -> None:
    done = fork_server.routerbench("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "routerbench train router=expert_choice" in done.stdout
    done = fork_server.routerbench("train", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"router: {ROUTERS}\n" in done.stdout
    assert "capacity_factor: 1.0" in done.stdout
    assert files(tmp_path) == []


def test_the_composed_configuration_can_be_looked_at(tmp_path: Path, fork_server: ForkServer) -> None:
    done = fork_server.routerbench("train", "router=soft", "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0
    assert "_target_: routerbench.routers.soft.Soft" in done.stdout
    assert files(tmp_path) == []


AT_ONCE = [
    "train router=expert_choise",
    "train runtime.devise=cpu",
    "train placement=last_3",
    "train expert_init=shard",
    "train runtime.backend=fast",
    "train loss.name=soft",
    "train group=7",
    "train data=folder data.path=nowhere",
    "train data=cifar10",
    "train data=wds data.path=. data.class_map=nowhere.txt",
    "train data=wds data.path=nowhere",
    "train model.weights=nowhere.pth expert_init=upcycle",
    "train +eval=imagenet_v2",
    "train runtime.results=/dev/null/results",
    "train -m seed=0,1 data=fashion_mnist data.path=nowhere",
    "plan +sweep=nothing",
    "status --results nowhere",
    "report --results nowhere",
    "eval nowhere",
    "inspect nowhere",
    "sync --results nowhere",
]


def test_what_is_wrong_with_words_and_paths_is_said_before_torch_is_imported(tmp_path: Path) -> None:
    program = """
import sys
from routerbench import cli
for line in sys.argv[1:]:
    sys.argv = ["routerbench", *line.split()]
    try:
        cli.main()
    except SystemExit as refused:
        assert refused.code == 2, line
    assert not {"torch", "torchvision", "timm", "wandb"} & sys.modules.keys(), line
"""
    command = [sys.executable, "-c", program, *AT_ONCE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (0, len(AT_ONCE)), done.stderr
    assert files(tmp_path) == []


def test_ctrl_c_before_anything_has_begun(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("routerbench.compose.compose_sweep", stop)
    assert train.train([]) == 130
    assert capsys.readouterr().err == "stopped: nothing had begun\n"
