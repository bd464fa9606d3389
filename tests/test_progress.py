"""What a user sees while a run trains."""

import io

from rich.console import Console

from routerbench.progress import display, news

TRAIN = {"step": 3, "epoch": 1, "train/loss": 2.30259}
TEST = {"step": 4, "epoch": 1, "test/top1": 0.6543, "test/loss": 1.0}


def shown(terminal: bool) -> str:
    output = io.StringIO()
    console = Console(
        file=output, force_terminal=terminal, width=120, color_system=None, legacy_windows=False
    )
    with display(console, "[1/9] vit [red]", epochs=2, num_steps=8) as show:
        show(TRAIN)
        show(TEST)
        show({**TRAIN, "step": 8, "epoch": 2, "train/loss": 1.5})
    return output.getvalue()


def test_without_a_terminal_there_is_a_plain_line_for_each_evaluation() -> None:
    assert shown(terminal=False) == "[1/9] vit [red]  epoch 1/2  top-1 65.4%\n"


def test_on_a_terminal_a_bar_moves_and_keeps_the_latest_news() -> None:
    output = shown(terminal=True)
    assert "[1/9] vit [red]" in output
    assert "epoch 2/2  loss 1.500  top-1 65.4%" in output


def test_news_say_what_a_row_has() -> None:
    assert news({"step": 1, "epoch": 1}, 5) == "epoch 1/5"
    assert news(dict(TRAIN), 5) == "epoch 1/5  loss 2.303"
    assert news({**TRAIN, **TEST}, 5) == "epoch 1/5  loss 2.303  top-1 65.4%"
