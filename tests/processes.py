"""The program as a process: to its end, or in the background, to be waited for and killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]

# One thread: a fork has no pool of threads, whatever the process had that it was forked from.
_PLAIN = {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}


class Forks:
    """Runs ``lightssl ARGUMENTS`` to its end, as forks of a process that has imported all there is to import."""

    def __init__(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.forked"],
            cwd=ROOT,
            env={**os.environ, **_PLAIN},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, arguments: Sequence[str], folder: Path, timeout: float, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the program; one that takes longer than ``timeout`` s ends with the status of an alarm, -14."""
        with TemporaryDirectory() as written:
            output, error = Path(written) / "output", Path(written) / "error"
            output.touch()
            error.touch()
            request = {"arguments": arguments, "folder": str(folder), "environment": {**os.environ, **_PLAIN, **env}}
            request |= {"output": str(output), "error": str(error), "timeout": int(timeout)}
            assert self.server.stdin
            assert self.server.stdout
            self.server.stdin.write(json.dumps(request) + "\n")
            self.server.stdin.flush()
            status = int(self.server.stdout.readline())
            return subprocess.CompletedProcess(list(arguments), status, output.read_text(), error.read_text())

    def end(self) -> None:
        """End the process that forks."""
        self.server.kill()
        self.server.communicate()


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
