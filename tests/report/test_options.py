import argparse
import re
from pathlib import Path

import pytest

from routerbench.report.options import Options, add_options, checked


def options(*words: str) -> Options:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser)
    return checked(parser.parse_args(words))


def test_without_words_the_defaults_are_those_of_the_class() -> None:
    assert options() == Options(Path("results"), Path("results"))


def test_every_word() -> None:
    asked = options(
        *("--results", "a", "--out", "b", "--source", "wandb:team/project", "--by", "model, placement"),
        *("--where", "router=soft,hash", "--where", "placement=[3,5],last_2", "--where", "optim.lr=1e-3"),
        *("--metric", "fewshot/10", "--delta", "0.5", "--sweep", "routers", "--paste", "c.md"),
        "--claims",
    )
    assert asked == Options(
        results=Path("a"),
        out=Path("b"),
        source="wandb:team/project",
        where={"router": ("soft", "hash"), "placement": ("[3,5]", "last_2"), "optim.lr": ("1e-3",)},
        sweep="routers",
        by=("model", "placement"),
        metric="fewshot/10",
        delta=0.5,
        claims=True,
        paste=Path("c.md"),
    )


@pytest.mark.parametrize(
    ("words", "results", "out"),
    [
        (["--results", "a"], Path("a"), Path("a")),
        (["--results", "a", "--out", "b"], Path("a"), Path("b")),
        (["--source", "wandb:team/project"], None, Path("results")),
        (["--source", "wandb:team/project", "--results", "a"], Path("a"), Path("a")),
    ],
)
def test_files_go_beside_the_records(words: list[str], results: Path | None, out: Path) -> None:
    asked = options(*words)
    assert (asked.results, asked.out) == (results, out)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--source", "team/project"], "--source=team/project is no source: give wandb:ENTITY/PROJECT"),
        (["--source", "wandb:team"], "--source=wandb:team is no source: give wandb:ENTITY/PROJECT"),
        (["--delta", "0"], "--delta=0.0 must be a number above 0"),
        (["--delta", "-1"], "--delta=-1.0 must be a number above 0"),
        (["--delta", "nan"], "--delta=nan must be a number above 0"),
        (["--delta", "inf"], "--delta=inf must be a number above 0"),
        (["--by", "a,"], "--by=a, has an empty name: give settings, such as router,placement"),
        (["--where", "router"], "--where router is no KEY=VALUE: give one, such as router=soft"),
        (["--where", "=soft"], "--where =soft is no KEY=VALUE: give one, such as router=soft"),
        (["--where", "router="], "--where router= is no KEY=VALUE: give one, such as router=soft"),
        (
            ["--where", "router=soft", "--where", "router=hash"],
            "--where router stands there twice: give its values once, separated by commas",
        ),
        (["--claims", "--check-null"], "--claims and --check-null are two questions: give one of them"),
        (["--check-null", "--out", "b"], "--check-null writes no files: leave out --out and --paste"),
        (["--check-null", "--paste", "c.md"], "--check-null writes no files: leave out --out and --paste"),
        (["--by", "router,router"], "--by=router,router names a setting twice: give each once"),
        (["--delta", "1e9"], "--delta=1000000000.0 is above 100 points: give some, such as 0.3"),
        (["--out", __file__], f"--out={__file__} is no folder: give one"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        options(*words)


def test_a_delta_that_is_no_number_is_one_line() -> None:
    with pytest.raises(argparse.ArgumentError, match=r"^argument --delta: 'x' is not a number$"):
        options("--delta", "x")


def test_help_has_an_example_of_every_kind() -> None:
    parser = argparse.ArgumentParser(prog="routerbench report")
    add_options(parser)
    text = parser.format_help()
    assert "routerbench report --where router=soft,dense --where seed=0,1,2\n" in text
    assert "--source wandb:ENTITY/PROJECT" in text
