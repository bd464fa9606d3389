"""docs/new-router.md, followed to the letter in an empty folder."""

import os
import re
from pathlib import Path

import pandas as pd
import pytest
from fork_server import ForkServer

PAGE = (Path(__file__).parents[1] / "docs" / "new-router.md").read_text(encoding="utf-8")
FILES = re.findall(r"^`(mine/[\w/.]+)`\n\n```\w+\n(.*?)```", PAGE, flags=re.DOTALL | re.MULTILINE)
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [line for language, block in BLOCKS if language == "" for line in block.splitlines()]
# What makes it fast, and what the page leaves to the reader's machine.
QUICK = (
    "runtime.threads=1 runtime.wandb=disabled batch_size=32 optim.lr=0.003 "
    "+model.arguments={patch_size:16,depth:2,embed_dim:32,num_heads:2} num_experts=2"
)
# Its folder is not on the import path, as for the console command.
READERS = {**os.environ, "PYTHONSAFEPATH": "1"}


@pytest.fixture(scope="module")
def folder(fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every step of the page was done."""
    folder = tmp_path_factory.mktemp("reader")
    for name, text in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for command in COMMANDS:
        program, _, words = command.partition(" ")
        assert program == "routerbench"
        quick = QUICK.split() if words.startswith("train") else []
        done = fork_server.routerbench(*words.split(), *quick, cwd=folder, env=READERS)
        assert (done.returncode, done.stderr) == (0, ""), command
    return folder


def test_the_page_is_one_file_and_one_yaml() -> None:
    assert [name for name, _ in FILES] == ["mine/first_come.py", "mine/router/first_come.yaml"]
    assert [command.split()[1] for command in COMMANDS] == ["train", "train", "report"]


def test_the_router_is_on_the_board(folder: Path) -> None:
    board = pd.read_csv(folder / "results" / "leaderboard.csv").set_index("router")
    assert set(board.index) == {"dense", "hash", "expert_choice", "first_come"}
    assert set(board["done"]) == {2}
    assert board.loc["first_come", "slots_per_token"] == board.loc["expert_choice", "slots_per_token"]
    assert board["score_mean"].min() > 0.2  # chance is 0.1


def test_it_seats_as_the_page_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder / "mine"))
    import torch
    from omegaconf import OmegaConf

    from routerbench.build import configured_router
    from routerbench.compose import compose_sweep

    (config,) = compose_sweep(["router=first_come"], str(folder / "mine"), multirun=False).configs
    OmegaConf.resolve(config)
    router = configured_router(config.router, width=4, num_experts=2)
    # Four tokens, two experts with two slots: the first takes tokens 0 and 1, the second 2 and 3.
    dispatch, _ = router(torch.randn(1, 4, 4)).plan.dense()
    assert dispatch.argmax(1).tolist() == [[[0, 1], [2, 3]]]


def test_a_finished_run_of_it_is_opened_where_its_file_is_trusted(
    fork_server: ForkServer, folder: Path
) -> None:
    run = next((folder / "results" / "runs").glob("*-first_come-s0-*"))
    asked = ("eval", str(run), "--only", "capacity")
    refused = fork_server.routerbench(*asked, cwd=folder, env=READERS)
    assert refused.returncode == 2
    assert "import first_come first (eval and inspect: --import FILE)" in refused.stderr
    opened = fork_server.routerbench(*asked, "--import", "mine/first_come.py", cwd=folder, env=READERS)
    assert (opened.returncode, opened.stderr) == (0, "")
    assert "capacity  trained  top1" in opened.stdout
    (folder / "mine" / "types.py").touch()
    problems = {
        "mine": "is no file of Python",
        "router.py": "is no file of Python",
        "mine/types.py": "has the name of a module that is imported already, types: give ",
    }
    for wrong, problem in problems.items():
        refused = fork_server.routerbench(*asked, "--import", wrong, cwd=folder, env=READERS)
        assert (refused.returncode, problem in refused.stderr) == (2, True)
