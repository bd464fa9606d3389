"""What every test stands on: checked shapes, fixed seeds, and the numbers of the published code."""

import gc
import json
import os
import pickle
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from changed import Changed
from costs import Costs
from fork_server import ForkServer
from hypothesis import settings
from jaxtyping import install_import_hook
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from selenium.webdriver import Chrome

    from routerbench.moe.experts import Experts
    from routerbench.moe.layer import MoE

ROOT = Path(__file__).parents[1]
# Where shapes are written they are checked; to check all other types too takes a third of the tests' time.
SHAPED = [path for path in (ROOT / "routerbench").rglob("*.py") if "jaxtyping" in path.read_text()]
install_import_hook(
    [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SHAPED], "beartype.beartype"
)
torch.set_num_threads(1)  # the tests are small, and may run beside something else
settings.register_profile("routerbench", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("routerbench")

BROWSER_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
)
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-9}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--changed-since", metavar="REV", help="only tests that a change since can break")


def pytest_configure(config: pytest.Config) -> None:
    since = config.getoption("changed_since")
    if since is not None:
        config.pluginmanager.register(Changed(since))
    # beartype warns of the type hints that OmegaConf's classes inherit.
    ignored = "ignore::beartype.roar.BeartypeDecorHintPep585DeprecationWarning"
    config.addinivalue_line("filterwarnings", ignored)
    config.pluginmanager.register(Costs())


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # what the tests are made of stays: each run, which collects, would look at all of it


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@dataclass(frozen=True)
class Golden:
    """The inputs and outputs of one run of the published code, in one precision."""

    meta: dict[str, Any]
    dtype: torch.dtype
    arrays: dict[str, np.ndarray] = field(repr=False)

    def input(self, name: str) -> Tensor:
        """An input, which was stored in float32."""
        return torch.from_numpy(self.arrays[name]).to(self.dtype)

    def output(self, name: str) -> Tensor:
        """An output: of this precision, or an integer, which both have in common."""
        double = f"{name}_f64"
        stored = double if self.dtype == torch.float64 and double in self.arrays else name
        output = torch.from_numpy(self.arrays[stored])
        assert not output.is_floating_point() or output.dtype == self.dtype, f"{name} is not in {self.dtype}"
        return output

    def check(self, name: str, actual: Tensor, tolerance: float | None = None) -> None:
        """Hold `actual` against the output: a float within the tolerance of its precision, others exactly."""
        expected = self.output(name)
        if not expected.is_floating_point():
            assert torch.equal(actual.to(expected.dtype), expected), name
            return
        tolerance = TOLERANCE[self.dtype] if tolerance is None else tolerance
        assert actual.dtype == expected.dtype, name
        assert_close(actual, expected, atol=tolerance, rtol=tolerance, msg=lambda text: f"{name}: {text}")

    def experts(self) -> "Experts":
        """The experts of the run, with V-MoE's approximate GELU."""
        from routerbench.moe.experts import Experts

        weights = {name: self.input(name) for name in ("w1", "b1", "w2", "b2")}
        num_experts, width, hidden = weights["w1"].shape
        experts = Experts(num_experts, width, hidden, act_layer=partial(nn.GELU, approximate="tanh"))
        experts.to(self.dtype).load_state_dict(weights)
        return experts

    def check_layer(self, layer: "MoE") -> None:
        """The layer's output and, where they are stored, the loss and the gradients of input and experts."""
        x = self.input("x").requires_grad_()
        y = layer(x)
        self.check("y", y)
        if not self.has_gradients:
            return
        assert layer.routing is not None
        loss = (y * self.input("cot")).sum() + sum(layer.routing.losses.values())
        self.check("loss", loss)
        loss.backward()
        for name, parameter in {"x": x, **dict(layer.experts.named_parameters())}.items():
            assert parameter.grad is not None, name
            self.check(f"grad_{name}", parameter.grad)

    @property
    def has_gradients(self) -> bool:
        return self.meta["has_grads"] and self.dtype == torch.float64


class CastWeights(TorchDispatchMode):
    """Inside, `casts` counts how often each parameter of the model is copied to bfloat16."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.casts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = self.names.get(id(args[0])) if args else None
        if func is torch.ops.aten._to_copy.default and name and (kwargs or {})["dtype"] == torch.bfloat16:
            self.casts[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def cast_weights() -> type[CastWeights]:
    """The context that counts casts."""
    return CastWeights


ReadGolden = Callable[[str, torch.dtype], Golden]


@pytest.fixture
def golden() -> ReadGolden:
    """A function that reads a file of tests/golden."""

    def read(name: str, dtype: torch.dtype) -> Golden:
        with np.load(Path(__file__).parent / "golden" / f"{name}.npz") as file:
            arrays = dict(file)
        meta = json.loads(str(arrays.pop("meta"))) if "meta" in arrays else {}
        return Golden(meta, dtype, arrays)

    return read


@pytest.fixture(scope="session")
def composed_once() -> "Callable[..., DictConfig]":
    """A function of a folder of results and words to their configuration, which is composed once."""
    from routerbench.compose import compose_sweep

    @cache
    def composed(*words: str) -> bytes:
        return pickle.dumps(compose_sweep(words, None, multirun=False).configs[0])

    def of_results(results: Path, *words: str) -> "DictConfig":
        config = pickle.loads(composed(*words))
        config.runtime.results = str(results)
        return config

    return of_results


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """What starts the program without its imports; see `ForkServer`."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def browser() -> "Iterator[Chrome]":
    """One browser for all tests of this file."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    driver = shutil.which("chromedriver")
    chromium = shutil.which("chromium")
    if driver is None or chromium is None:
        pytest.skip("chromium and chromedriver are not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in BROWSER_OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def shown(browser: "Chrome") -> Callable[..., "Chrome"]:
    """A function that opens an address in a window of this width and colour scheme, its logs empty before."""

    def shown(address: str, width: int, scheme: str) -> "Chrome":
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get("about:blank")
        for log in ("browser", "performance"):
            browser.get_log(log)
        browser.get(address)
        return browser

    return shown


@pytest.fixture(scope="module")
def wandb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A stand-in for W&B's server, to which the W&B of this module speaks; see `wandb_server.StandIn`."""
    import wandb_server

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB")]:
            patch.delenv(name)
        home = tmp_path_factory.mktemp("home")
        for name in ("NETRC", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
            patch.setenv(name, str(home / name))
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("WANDB_API_KEY", wandb_server.KEY)
        with wandb_server.served() as server:
            patch.setenv("WANDB_BASE_URL", server.url)
            yield server
            import wandb

            wandb.teardown()  # its process, which later tests would inherit
