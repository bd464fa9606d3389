"""What is refused in one line, with exit code 2, before anything is measured."""

import sys
from pathlib import Path

import pytest

from routerbench import cli
from routerbench.bench import command
from routerbench.build import router_names

COUNT = "must be a whole number of at least 1"
ROUTERS = ", ".join(router_names())
# The command, and all that it says.
REFUSED = [
    ("layr", "bench=layr is not one of: layer, router, model, memory (did you mean layer?)"),
    ("--sizes ti,xl", "sizes=xl is not one of: ti, s, b"),
    ("--precision bf61", "precision=bf61 is not one of: fp32, bf16, fp16 (did you mean bf16?)"),
    ("--group images", "group=images is not one of: batch, image (did you mean image?)"),
    ("--tokens 100", "tokens=100 is no multiple of 196, the tokens of an image: give 196"),
    ("--tokens 1000", "tokens=1000 is no multiple of 196, the tokens of an image: give 980"),
    ("--tokens 0", f"tokens=0 {COUNT}"),
    ("--tokens 196,x", "argument --tokens: 'x' is not a whole number"),
    ("--experts 0", f"experts=0 {COUNT}"),
    ("--repeats 0", f"repeats=0 {COUNT}"),
    ("--threads -1", f"threads=-1 {COUNT}"),
    ("--batch-size 0", f"batch_size=0 {COUNT}"),
    ("--size", "argument --sizes: expected one argument"),
    ("--speed=3", "unrecognized arguments: --speed=3"),
    ("--routers sofd", f"routers=sofd is not one of: {ROUTERS} (did you mean soft?)"),
    ("--backends bnm", "backends=bnm is not one of: {backends} (did you mean bmm?)"),
    ("--device gpu", "device=gpu is no device: cpu, cuda, cuda:1 ... or auto"),
    (
        "model --routers soft --group batch",
        "group=batch would mix images: router=soft routes each alone, group=image",
    ),
    ("model --model vitt", "model.name=vitt is not a timm model"),
    (
        "model --placements last_3",
        "placement=last_3 is not one of: last_2, every_2, last_half, stage, none (did you mean last_2?)",
    ),
    ("model --sizes ti", "--sizes means nothing to bench model: leave it out"),
    ("router --backends bmm", "--backends means nothing to bench router: leave it out"),
    ("memory --repeats 3", "--repeats means nothing to bench memory: leave it out"),
    ("layer router --batch-size 2", "--batch-size means nothing to bench layer router: leave it out"),
    ("--json no/b.json", "json='no/b.json' cannot be written: no is no folder that can be written to"),
    ("--json .", "json='.' is a folder: give a file"),
    ("layer layer", "layer stands there twice: leave it out once"),
    ("--plot b.pdf", "suffix of plot=.pdf is not one of: .png, .svg"),
    ("--from no.json", "from='no.json' is not a file"),
    ("--references no.csv", "references='no.csv' is not a file"),
    ("--paste no.md", "paste='no.md' is not a file"),
    (
        "--paste no_markers.md",
        "paste='no_markers.md' does not hold the lines <!-- benchmark:begin --> and <!-- benchmark:end --> "
        "once each, in this order: add them",
    ),
    (
        "--from no_markers.md --tokens 196",
        "--from=no_markers.md shows an earlier measurement: leave out --tokens",
    ),
    ("layer --from no_markers.md", "--from=no_markers.md shows all that was measured: leave out layer"),
    (
        "--from no_markers.md",
        "from='no_markers.md' is no measurement of this program: give what --json has written",
    ),
    ("--peer numpy", "peer=numpy is not of the form module:callable"),
    (
        "--peer no_such:layer",
        "peer=no_such:layer cannot be imported: ModuleNotFoundError: No module named 'no_such'",
    ),
    (
        "--peer peers:none",
        "peer=peers:none cannot be imported: AttributeError: module 'peers' has no attribute 'none'",
    ),
    ("--peer broken:x", "peer=broken:x cannot be imported: RuntimeError: it needs a licence"),
    ("--peer peers:NUMBER", "peer=peers:NUMBER is a int: it must be callable"),
    ("--peer peers:number", "peer=peers:number gives a int: it must give an nn.Module"),
    (
        "--peer peers:picky",
        "peer=peers:picky cannot be made for ti 196 tokens E2 fp32: ValueError: 2 experts are too few",
    ),
    ("--peer peers:fails", "peer=peers:fails fails for ti 196 tokens E2 fp32: RuntimeError: boom"),
    (
        "--peer peers:detached",
        "peer=peers:detached gives an output without gradient: it has no backward pass",
    ),
    ("--peer peers:narrow", "peer=peers:narrow gives (1, 196, 1) for tokens (1, 196, 192)"),
    ("--peer peers:nothing", "peer=peers:nothing gives a NoneType for tokens (1, 196, 192)"),
]
PEERS = """
from torch import nn

NUMBER = 3

class Of(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
    def forward(self, x):
        return self.function(x)

def number(**settings):
    return 3

def picky(num_experts, **settings):
    raise ValueError(f"{num_experts} experts are too few\\nand more")

def boom(x):
    raise RuntimeError("boom")

def fails(**settings):
    return Of(boom)

def detached(**settings):
    return Of(lambda x: x.detach())

def narrow(**settings):
    return Of(lambda x: (x[..., :1], 0.0))

def nothing(**settings):
    return Of(lambda x: None)
"""


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[words for words, _ in REFUSED])
def test_refused(
    words: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("no_markers.md").write_text("# Title\n")
    Path("peers.py").write_text(PEERS)
    Path("broken.py").write_text('raise RuntimeError("it needs a licence")')
    monkeypatch.delitem(sys.modules, "peers", raising=False)
    if words.startswith("--peer"):
        words = f"layer --sizes ti --tokens 196 --experts 2 {words}"
    monkeypatch.setattr(sys, "argv", ["routerbench", "bench", *words.split()])
    monkeypatch.setattr(command, "measure", lambda *_: pytest.fail("something was measured"))
    with pytest.raises(SystemExit) as caught:
        cli.main()
    text = message.replace("{backends}", ", ".join(command.BACKENDS))
    assert (caught.value.code, capfd.readouterr()) == (2, ("", f"routerbench: {text}\n"))
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {
        "no_markers.md",
        "peers.py",
        "broken.py",
    }
