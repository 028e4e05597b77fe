"""The program in the background, to be waited for and killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def start(arguments: list[str], folder: Path, *, launcher: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start ``lightssl ARGUMENTS`` in a folder: one thread, and a process group of its own; by a launcher if needed."""
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "lightssl", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Wait for a condition that the process brings about."""
    deadline = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "it never got there"
        time.sleep(0.02)


def kill_when(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Kill the process, and what it has started, as soon as a condition holds."""
    wait_until(process, condition)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
