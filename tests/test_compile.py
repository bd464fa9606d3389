"""Compilation, in a process of its own: the checks of shapes that the other tests run with do not compile."""

import os
from pathlib import Path

import pytest
from fork_server import ForkServer


@pytest.mark.parametrize("chosen", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_sparsified_models_compile(chosen: str, fork_server: ForkServer) -> None:
    tests = Path(__file__).with_name("compiled_models.py")
    words = ("-m", "pytest", "--noconftest", "-p", "no:cacheprovider", "-m", chosen, tests)
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    result = fork_server.run(*words, cwd=tests.parent.parent, env=environment)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
