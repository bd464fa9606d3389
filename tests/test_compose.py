"""The cells of a command are those that Hydra runs, and its errors become one line."""

import shlex
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra._internal.config_repository import ConfigRepository
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from routerbench.compose import compose_sweep, import_from, quoted, repeating
from routerbench.config import conf_dir
from routerbench.identity import identity, run_id
from routerbench.schema import register_schema

OPTIM_HAS = (
    "optim has: name, arguments, lr, weight_decay, expert_weight_decay, head_weight_decay, layer_decay, "
    "clip_grad, accumulation_steps, schedule, schedule_arguments, warmup_epochs, warmup_steps, warmup_lr, "
    "min_lr"
)
SETTINGS = (
    "settings are: router, model, placement, num_experts, slots_per_token, capacity_factor, group, "
    "expert_init, expert_mlp_ratio, expert_dropout, extra_skip, seed, data, augment, epochs, batch_size, "
    "optim, precision, eval_every, loss, mix, ema, eval, runtime, parallel, union"
)
ROUTERS = ", ".join(sorted(path.stem for path in (conf_dir() / "router").glob("*.yaml")))
SWEEPS = ", ".join(sorted(path.stem for path in (conf_dir() / "sweep").glob("*.yaml")))
SOFT_HAS = (
    "router has: name, _target_, slots_per_expert, noise_std, capacity_factor, capacity_rounding, "
    "capacity_multiple_of"
)


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hydra reads the command from `sys.argv`, and a multirun leaves a file."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.chdir(tmp_path)


def composed(*words: str, multirun: bool = False, config_dir: Path | None = None) -> list[DictConfig]:
    return compose_sweep(words, None if config_dir is None else str(config_dir), multirun).configs


def by_hydra(words: Sequence[str], run: Callable[[DictConfig], None]) -> None:
    """Hydra's own command line, which knows neither of us nor of a union."""
    register_schema()
    sys.argv = ["routerbench train", *quoted(words)]
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(run)()


def refused(*words: str, multirun: bool = False) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the caller looks at the whole text
        composed(*words, multirun=multirun)
    return str(caught.value)


@pytest.mark.parametrize(
    ("flags", "words", "num_cells"),
    [
        ([], [], 1),
        ([], ["router=soft", "seed=3", "optim.lr=0.1", "+model.arguments.depth=2", "placement=[1,3]"], 1),
        (["-m"], ["seed=3"], 1),
        (["-m"], ["router=soft,hash", "seed=0,1", "epochs=2"], 4),
        (["--multirun"], ["seed=range(0,2)", "placement=[0],[1,2]", "hydra.job.name=x"], 4),
        ([], ["hydra.mode=MULTIRUN", "seed=0,1"], 2),
        (["-m"], ["+sweep=pocket_scales", "seed=4", "router=soft"], 3),
        (["-m"], ["+sweep=demo", "seed=0,1", "router=soft", "epochs=2"], 2),
        ([], ["+sweep=pocket_group_size", "group=8,image", "seed=7", "router=soft"], 2),
    ],
)
def test_cells_are_those_that_hydra_runs(flags: list[str], words: list[str], num_cells: int) -> None:
    ran: list[Any] = []
    by_hydra([*flags, *words], lambda config: ran.append(OmegaConf.to_container(config, resolve=True)))
    assert all(config.pop("union") is None for config in ran)
    found = [OmegaConf.to_container(c, resolve=True) for c in composed(*words, multirun=bool(flags))]
    assert len(found) == num_cells
    assert found == ran


def test_a_cell_among_others_has_a_name() -> None:
    sweep = compose_sweep(["router=soft,hash", "seed=0,1", "epochs=2"], None, multirun=True)
    assert [sweep.name_of(cell) for cell in sweep.cells] == [
        "cell 1 of 4 (router=soft seed=0)",
        "cell 2 of 4 (router=soft seed=1)",
        "cell 3 of 4 (router=hash seed=0)",
        "cell 4 of 4 (router=hash seed=1)",
    ]
    (alone,) = compose_sweep(["router=soft"], None, multirun=True).cells
    assert compose_sweep(["router=soft"], None, multirun=True).name_of(alone) == ""


def test_the_command_line_wins_over_a_sweep() -> None:
    found = composed("+sweep=demo", "seed=5", "router=soft,hash", "epochs=2", multirun=True)
    assert [(c.router.name, c.seed, c.epochs) for c in found] == [("soft", 5, 2), ("hash", 5, 2)]


def test_a_folder_of_the_user_adds_choices(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("defaults: [digits]\nname: mine\nimage_size: 16\n")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "small.yaml").write_text("# @package _global_\nepochs: 2\n")
    (config,) = composed("data=mine", "+study=small", config_dir=tmp_path)
    assert (config.data.name, config.data.image_size, config.epochs) == ("mine", 16, 2)
    assert config.data.source._target_ == "routerbench.data.sources.digits"


def test_a_sweep_of_the_user_is_never_run_without_its_cells(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    file = tmp_path / "sweep" / "mine.yaml"
    for text, setting in (
        ("hydra: {sweeper: {params: {seed: '0,1'}}}", "hydra.sweeper.params"),
        ("union: [{seed: 0}]", "union"),
    ):
        file.write_text(f"# @package _global_\n{text}\n")
        with pytest.raises(ValueError, match=f"^{setting} gives several runs: add -m to run them all$"):
            compose_sweep(["+sweep=mine"], str(tmp_path), multirun=False)
        compose_sweep(["+sweep=mine"], str(tmp_path), multirun=True)
        (alone,) = compose_sweep(["+sweep=mine", "seed=5", "hydra.mode=RUN"], str(tmp_path), False).cells
        assert alone.settings["seed"] == 5


def test_a_configuration_is_without_hydra_and_whole() -> None:
    (config,) = composed()
    assert "hydra" not in config
    assert OmegaConf.missing_keys(config) == set()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["router=sofd"], f"router=sofd is not one of: {ROUTERS} (did you mean soft?)"),
        (["router=zzz"], f"router=zzz is not one of: {ROUTERS}"),
        (["optim=adamm"], "optim=adamm is not one of: adamw, lamb, sgd (did you mean adamw?)"),
        (["+sweep=router"], f"sweep=router is not one of: {SWEEPS} (did you mean routers?)"),
        (["epoch=3"], f"epoch=3 is not a setting (did you mean epochs?); {SETTINGS}"),
        (["optim.lrr=1"], f"optim.lrr=1 is not a setting (did you mean lr?); {OPTIM_HAS}"),
        (["modle.name=x"], f"modle.name=x is not a setting (did you mean model?); {SETTINGS}"),
        (
            ["router=soft", "router.slot_per_expert=2"],
            f"router.slot_per_expert=2 is not a setting (did you mean slots_per_expert?); {SOFT_HAS}",
        ),
        (
            ["router=soft", "router.batch_priority=true"],
            f"router.batch_priority=true is not a setting; {SOFT_HAS}",
        ),
        (["+epoch=3"], "+epoch=3: epoch is not a setting"),
        (
            ["+sweep=pocket_gates,pocket_scales"],
            "+sweep=pocket_gates,pocket_scales are several sweeps: give each a command of its own",
        ),
        (
            ["runtime.retry=failed,oom"],
            "runtime.retry=failed,oom are several values for the same runs, each of which is run once: "
            "give one",
        ),
        (["union=[]"], "union=[]: union is for files of sweeps: write one, see docs/sweeps.md"),
        (["+router.topk=3"], "+router.topk=3: router.topk is not a setting"),
        (["epochs=abc"], "epochs=abc: Value 'abc' of type 'str' could not be converted to Integer"),
        (
            ["epochs=3", "epochs=1.5"],
            "epochs=1.5: Value '1.5' of type 'float' could not be converted to Integer",
        ),
        (["seed=null"], "seed=null: field 'seed' is not Optional"),
        (["optim.lr=x"], "optim.lr=x: Value 'x' of type 'str' could not be converted to Float"),
        (["runtime.retry_oom=x"], "runtime.retry_oom=x: Value 'x' is not a valid bool (type str)"),
        (["ema=0.9"], "ema=0.9 is one value for several settings: name one of them, as ema.decay=0.9"),
        (["model.arguments=3"], "model.arguments=3: Cannot assign int to Dict[str, Any]"),
        (["seed=0,1"], "seed=0,1 gives several values: add -m to run them all"),
        (["seed"], "seed is not a setting with its value: write setting=value"),
        (
            ["router=soft", "seed=1,"],
            """seed=1, cannot be read: where that is one value, write "seed='1,'", with both quotes""",
        ),
        (
            ["data.path=/a=b"],
            """data.path=/a=b cannot be read: where that is one value, write "data.path='/a=b'", with """
            "both quotes",
        ),
        (
            ["data.path=/it's é"],
            """data.path=/it's é cannot be read: where that is one value, write "data.path='/it\\'s é'", """
            "with both quotes",
        ),
        (
            ["sweep=demo"],
            "sweep=demo: nothing is chosen there that it could replace: write +sweep=demo",
        ),
    ],
)
def test_an_error_is_one_line(words: list[str], text: str) -> None:
    assert refused(*words) == text


def test_what_is_wrong_by_itself_is_the_same_line_in_many_cells() -> None:
    text = f"router=sofd is not one of: {ROUTERS} (did you mean soft?)"
    assert refused("router=soft,sofd", "seed=0,1", multirun=True) == text
    assert refused("epoch=3", "seed=0,1", multirun=True).startswith("epoch=3 is not a setting (did you mean")
    text = f"router.capacity=2 is not a setting (did you mean capacity_factor?); {SOFT_HAS}"
    assert refused("router=soft", "router.capacity=2", "seed=0,1", multirun=True) == text


def test_what_is_wrong_in_one_of_many_cells_names_it() -> None:
    text = f"router.capacity=2 is not a setting (did you mean capacity_factor?); {SOFT_HAS}"
    assert refused("router=expert_choice,soft", "router.capacity=2,3", multirun=True) == (
        f"cell 3 of 4 (router=soft router.capacity=2): {text}"
    )
    # Of what all cells have, where the default router has it.
    assert refused("router=expert_choice,soft", "router.capacity=2", multirun=True) == (
        f"cell 2 of 2 (router=soft): {text}"
    )


def test_what_cannot_be_resolved_names_its_cell() -> None:
    line = refused("router=soft,hash", "capacity_factor=${router.noise_std}", multirun=True)
    assert line.startswith("cell 2 of 2 (router=hash): router.capacity_factor: ")
    assert line.endswith(": Interpolation key 'router.noise_std' not found")


def test_a_setting_of_the_swept_routers_need_not_be_of_the_default_one() -> None:
    configs = composed("router=token_choice,hash", "router.top_k=2", multirun=True)
    assert [(config.router.name, config.router.top_k) for config in configs] == [
        ("token_choice", 2),
        ("hash", 2),
    ]


def test_a_part_of_a_split_needs_no_quotes() -> None:
    for value in ("train[:90%]", "train[90%:]", "train[10:99.5%]"):
        for word in (f"data.train_split={value}", f"data.train_split='{value}'"):
            assert compose_sweep([word], None, False).configs[0].data.train_split == value


def repeated(flags: list[str], words: list[str], config_dir: str | None = None) -> list[tuple[str, str, str]]:
    """For every job that Hydra runs: its run, how to repeat it, and the run that this is."""
    found = []

    def run(config: DictConfig) -> None:
        found.append((run_id(identity(config)), repeating(HydraConfig.get().overrides.task, config_dir)))

    by_hydra([*flags, *words], run)
    triples = []
    for name, command in found:
        program, train, *again = shlex.split(command)
        assert (program, train) == ("routerbench", "train")
        if config_dir is not None:
            assert again[:2] == ["--config-dir", config_dir]
        (config,) = compose_sweep(again[2:] if config_dir else again, config_dir, multirun=False).configs
        triples.append((name, command, run_id(identity(config))))
    return triples


@pytest.mark.parametrize(
    ("flags", "words", "num_runs"),
    [
        ([], [], 1),
        ([], ["router=soft", "seed=3", "+model.arguments={depth:2,embed_dim:16}", "placement=[1,3]"], 1),
        ([], ["+recipe=pocket_vit", "router=hash", "data.train_split=train[:90%]"], 1),
        (["-m"], ["router=soft,hash", "seed=range(0,2)", "placement=[0],[1,2]", "hydra.job.name=x"], 8),
        (["-m"], ["+sweep=demo", "seed=5,6", "router=soft,hash"], 4),
        ([], ["+sweep=pocket_scales", "router=soft", "seed=7"], 3),
    ],
)
def test_every_job_of_a_command_can_be_repeated_alone(
    flags: list[str], words: list[str], num_runs: int
) -> None:
    triples = repeated(flags, words)
    assert len(triples) == num_runs
    for name, command, again in triples:
        assert name == again
        assert "+sweep" not in command


def test_a_command_to_repeat_is_what_one_would_type() -> None:
    ((_, command, _),) = repeated(
        [], ["data.train_split=train[:90%]", "router=soft", "+model.arguments={depth:2}"]
    )
    assert command == (
        "routerbench train 'data.train_split=train[:90%]' router=soft '+model.arguments={depth:2}'"
    )
    (first, *_) = repeated(["-m"], ["+sweep=demo", "seed=4", "router=dense,hash"])
    assert first[1] == "routerbench train seed=4 router=dense"


def test_a_folder_of_the_user_is_kept_and_a_sweep_of_his_that_sets_something(tmp_path: Path) -> None:
    for group, name, lines in (
        ("data", "mine", "defaults: [digits]\nname: mine\n"),
        (
            "sweep",
            "short",
            "# @package _global_\nepochs: 2\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '0,1'}}}\n",
        ),
    ):
        (tmp_path / group).mkdir()
        (tmp_path / group / f"{name}.yaml").write_text(lines)
    flags = ["--config-dir", str(tmp_path)]
    triples = repeated(flags, ["data=mine", "+sweep=short"], str(tmp_path))
    assert len(triples) == 2
    for name, command, again in triples:
        assert name == again
        assert "+sweep=short" in command


def test_what_stands_beside_the_yaml_of_the_user_can_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["a"])
    for folder in (None, str(tmp_path), str(tmp_path)):
        import_from(folder)
    assert sys.path == [str(tmp_path.resolve()), "a"]


def union(folder: Path) -> tuple[str, ...]:
    """The flag for a sweep of the user: a ViT beside a ConvNeXt, and dense ones."""
    (folder / "sweep").mkdir()
    (folder / "sweep" / "both.yaml").write_text(
        "# @package _global_\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {seed: '0,1'}}}\n"
        "union:\n"
        "- {model: pocket_vit, placement: 'last_2,[3]'}\n"
        "- {model: pocket_convnext, placement: 'last_2,stage'}\n"
        "- {router: dense, model: 'pocket_vit,pocket_convnext', placement: none}\n"
    )
    return ("+sweep=both",)


def seen(configs: Sequence[DictConfig]) -> list[tuple[str, str, str]]:
    return [(config.model.name, config.router.name, str(config.placement)) for config in configs]


VIT, CONVNEXT = "pocket_vit", "pocket_convnext"
OF_VIT = [(VIT, "expert_choice", "last_2"), (VIT, "expert_choice", "[3]")]
OF_CONVNEXT = [(CONVNEXT, "expert_choice", "last_2"), (CONVNEXT, "expert_choice", "stage")]
DENSE = [(VIT, "dense", "none"), (CONVNEXT, "dense", "none")]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], OF_VIT + OF_CONVNEXT + DENSE),
        ([f"model={VIT}"], [*OF_VIT, DENSE[0]]),
        (["placement=stage"], [OF_CONVNEXT[1]]),
        (["router=dense", "placement=none"], DENSE),
        ([f"model={CONVNEXT}", "placement=last_2,stage"], OF_CONVNEXT),
        (
            ["placement=every_2", f"model={VIT}"],
            [(VIT, "expert_choice", "every_2"), (VIT, "dense", "every_2")],
        ),
        (["model=pocket_convnext_iso", "placement=last_2"], [(f"{CONVNEXT}_iso", "expert_choice", "last_2")]),
    ],
)
def test_the_command_line_chooses_among_the_parts_of_a_union(
    words: list[str], found: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    sweep = [*union(tmp_path), "seed=3", *words]
    configs = composed(*sweep, multirun=True, config_dir=tmp_path)
    assert all("union" not in config and config.seed == 3 for config in configs)
    assert seen(configs) == found


def test_the_words_that_leave_no_part_of_a_union_are_refused(tmp_path: Path) -> None:
    words = [*union(tmp_path), f"model={VIT}", "placement=stage", "seed=3"]
    text = "^model=pocket_vit placement=stage: no part of the sweep's union has all of these$"
    with pytest.raises(ValueError, match=text):
        composed(*words, multirun=True, config_dir=tmp_path)


def test_the_parts_of_a_union_are_runs_that_can_be_repeated_alone(tmp_path: Path) -> None:
    sweep = compose_sweep([*union(tmp_path), "seed=0"], str(tmp_path), multirun=True)
    for cell in sweep.cells:
        flag, folder, *words = shlex.split(repeating(cell.words, str(tmp_path)))[2:]
        assert (flag, folder) == ("--config-dir", str(tmp_path))
        (again,) = compose_sweep(words, folder, multirun=False).cells
        assert again.run_id == cell.run_id


HARD = [
    *["placement=[1,3]", "placement=null", "data.train_split='train[:50%]'", "model.weights='a b,c'"],
    *["capacity_factor=${num_experts}", "optim.lr=1e-3", "group=8", "slots_per_token=2"],
    *["+model.arguments={depth:2,act:{name:gelu}}", "++model.arguments.depth=4", "~expert_dropout"],
    *["model={drop_path_rate:0.1}", "~augment", "~data.mean", "optim.betas=[0.9,0.99]", "union=[{seed:3}]"],
    *["+eval=fewshot", "eval.fewshot.shots=[5]", "optim=sgd", "model.name=x", "runtime.results=a/b"],
]


def plainly(words: Sequence[str]) -> object:
    """What Hydra says of the words by itself: the configuration, or that there is none."""
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        try:
            config = hydra.compose("train", quoted(words))
            found = OmegaConf.to_container(config, resolve=False)
            assert isinstance(found, dict)
            found.pop("union")
            identity(config)
        except (HydraException, OmegaConfBaseException):
            return "refused"
    return found


def quickly(words: Sequence[str]) -> object:
    try:
        (cell,) = compose_sweep([*words, "hydra.job.name=x"], None, multirun=True).cells
    except ValueError:
        return "refused"
    assert OmegaConf.is_struct(cell.config)
    return OmegaConf.to_container(cell.config, resolve=False)


@given(st.lists(st.sampled_from(HARD), max_size=5, unique=True))
@settings(max_examples=10)
def test_composing_by_files_and_settings_is_what_hydra_does_with_all_words(words: list[str]) -> None:
    register_schema()
    assert quickly(words) == plainly(words)


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("demo", "scales", "pocket_upcycling") else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(path.stem for path in (conf_dir() / "sweep").glob("*.yaml"))
    ],
)
def test_the_cells_of_a_sweep_are_those_that_hydra_composes(name: str) -> None:
    cells = compose_sweep([f"+sweep={name}", "seed=1"], None, multirun=True).cells
    for cell in (cells[0], cells[len(cells) // 2], cells[-1]):
        assert OmegaConf.to_container(cell.config, resolve=False) == plainly(cell.words)


def test_each_file_is_read_once_for_all_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    read, load = Counter[str](), ConfigRepository.load_config

    def counted(self: ConfigRepository, config_path: str) -> ConfigResult | None:
        read[config_path] += 1
        return load(self, config_path)

    monkeypatch.setattr(ConfigRepository, "load_config", counted)
    routers = ("dense", "soft", "token_choice")
    cells = compose_sweep([f"router={','.join(routers)}", "seed=0,1"], None, multirun=True).cells
    assert len(cells) == 6
    assert {f"router/{router}" for router in routers} < set(read)
    assert set(read.values()) == {1}
