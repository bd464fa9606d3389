"""Compilation, in a process of its own: the checks of shapes that the other tests run with do not compile."""

import subprocess
import sys
from pathlib import Path


def test_sparsified_models_compile() -> None:
    tests = Path(__file__).with_name("compiled_models.py")
    command = [sys.executable, "-m", "pytest", "--noconftest", "-p", "no:cacheprovider", str(tests)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tests.parent.parent)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
