"""How jobs hear that they are to end, and what cannot keep them from it."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from routerbench.signals import Warned
from routerbench.sweep import torchrun
from routerbench.sweep.launch import Ended, ended_in_order
from routerbench.sweep.stop import Stop, stop_of_the_outer_command, stop_of_this_command


def number_of_a_dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_end_of_the_command_is_heard() -> None:
    with stop_of_this_command() as stop:
        assert stop.said() is None
        (stop.folder / "command").rename(stop.folder / "locked")
        (stop.folder / "command").touch()
        assert stop.said() == "the end of its command"


def test_a_folder_that_is_cleaned_away_ends_nothing(tmp_path: Path) -> None:
    stop = Stop(tmp_path / "gone", os.getpid())
    assert stop.said() is None
    with stop.heard(warned := Warned()):
        pass
    assert warned.by is None
    stop.say("SIGTERM")
    assert stop.said() == "SIGTERM"


def test_without_folder_and_process_the_command_is_over(tmp_path: Path) -> None:
    assert Stop(tmp_path / "gone", number_of_a_dead_process()).said() == "the end of its command"


def test_a_second_signal_does_not_wait_for_the_job_that_it_interrupts() -> None:
    with stop_of_this_command() as stop, stop.heard(Warned(by="SIGINT")):
        stop.say("SIGINT")


def test_the_commands_of_a_job_hear_of_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stop_of_the_outer_command() is None
    with stop_of_this_command() as stop:
        for name, value in stop.environment().items():
            monkeypatch.setenv(name, value)
        assert stop_of_the_outer_command() == stop


def wait_as_ray_does() -> None:
    """What a signal raises is lost, but that it was a KeyboardInterrupt."""
    interrupted = False
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        interrupted = True
    except BaseException:
        pass
    if interrupted:
        raise KeyboardInterrupt


def test_a_signal_ends_also_a_launcher_that_knows_ctrl_c_alone() -> None:
    with pytest.raises(Ended, match=r"^SIGTERM$"), stop_of_this_command() as stop, ended_in_order(stop):
        wait_as_ray_does()


def test_a_ctrl_c_that_nobody_has_noted_is_passed_on() -> None:
    with stop_of_this_command() as stop:
        interrupted = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt) as passed, ended_in_order(stop):
            raise interrupted
        assert passed.value is interrupted


def test_a_second_ctrl_c_kills_a_torchrun_that_does_not_end() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    deaf = ["sh", "-c", "trap '' TERM; echo; while :; do sleep 0.1; done"]
    process = subprocess.Popen(deaf, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    main = threading.main_thread().ident
    assert main is not None
    again = threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT))
    again.start()
    with process.stdout, pytest.raises(KeyboardInterrupt):
        torchrun._wait_for(process, Warned(by="SIGINT"))
    signal.signal(signal.SIGINT, before)
    assert process.wait(60) == -signal.SIGKILL
