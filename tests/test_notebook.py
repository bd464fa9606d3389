"""docs/inspect.ipynb runs from its first cell to its last, and finds what it says."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

nbformat: Any = pytest.importorskip("nbformat")
nbclient: Any = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOK = Path(__file__).parents[1] / "docs" / "inspect.ipynb"
# What the cells left behind, for this test alone.
FOUND = """
import json
print(json.dumps({
    "routers": sorted(frame.index),
    "status": sorted(set(frame.status)),
    "gates": [list(layer.gates.shape) for layer in routing.values()],
    "grids": [list(layer.grid) for layer in routing.values()],
    "dropped": [[float(dropped[priority, factor]) for factor in factors] for priority in (False, True)],
    "accuracy": [[float(accuracy[priority, factor]) for factor in factors] for priority in (False, True)],
    "shares": {block: {name: one.share for name, one in of.items()} for block, of in found.items()},
    "by_class": share.tolist(),
    "slots": layer.dispatch.sum(1).ravel().tolist(),
}))
"""


pytestmark = pytest.mark.slow  # it starts a kernel, which imports all there is


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The notebook after it was run in a folder of its own, with a cell that prints what it found."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(FOUND))
    with pytest.MonkeyPatch.context() as patch:
        # The kernel of this Python, with this package, its temporary files and pictures without a screen.
        kernel = folder / "jupyter" / "kernels" / "python3"
        kernel.mkdir(parents=True)
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        described = {"argv": command, "display_name": "Python 3", "language": "python"}
        (kernel / "kernel.json").write_text(json.dumps(described))
        patch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("TMPDIR", str(folder))
        patch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
        nbclient.NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        ).execute()
    return notebook


@pytest.fixture(scope="module")
def found(executed: Any) -> dict[str, Any]:
    return json.loads(executed.cells[-1].outputs[-1].text)


def test_it_is_stored_without_what_a_run_leaves() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])


def test_every_cell_runs_in_order_and_without_a_warning(executed: Any) -> None:
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    said = [output.text for output in outputs if output.get("name") == "stderr"]
    assert [text for text in said if "TqdmWarning" not in text] == []  # of timm's import, without ipywidgets
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 4


def test_it_finds_what_it_says(found: dict[str, Any]) -> None:
    assert found["routers"] == ["soft", "token_choice"]
    assert found["status"] == ["done"]
    assert found["gates"] == [[64, 17, 4]] * 2  # a class token and 4 x 4 patches
    assert found["grids"] == [[4, 4]] * 2
    for dropped in found["dropped"]:  # the more slots, the fewer tokens are dropped
        assert dropped == sorted(dropped, reverse=True)
        assert dropped[0] > dropped[-1]
    assert min(min(found["accuracy"])) > 0.1  # chance
    for of_layer in found["shares"].values():
        assert {"class", "position"} <= of_layer.keys()
        assert all(-0.05 <= share <= 1 for share in of_layer.values())
    by_class = np.array(found["by_class"])
    assert by_class.shape == (4, 10)
    assert by_class.min() >= 0
    assert by_class.sum(0).max() <= 1 + 1e-6
    np.testing.assert_allclose(found["slots"], 1, rtol=1e-4)  # each slot is a mixture
