"""Another device with a Linux shell: what timing a model there takes, whatever the way to it."""

import io
import select
import shlex
import subprocess
import tarfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, cast

import numpy as np
from torch import nn

from lightssl.deploy.latency import Conditions, Measurement
from lightssl.deploy.native import build_native_runner
from lightssl.deploy.reference import HostReference
from lightssl.deploy.runner import (
    SEED,
    describe_for_timing,
    measured_fields,
    model_fields,
    read_answer,
    runner_options,
    runner_path,
    threads_that_fit,
)
from lightssl.errors import LightSSLWarning, TargetError
from lightssl.resources import resource

# Every command on the board runs like this: in sh rather than the login shell, and without the telemetry that official
# builds of ONNX Runtime send.
_IN_SH = "env ORT_DISABLE_TELEMETRY=1 sh -c {}"

# Says last of all that the script came to an end, since adb calls a connection that was lost a success.
_ENDED = b"ended\n"
_UNTIL_ITS_END = """(
{}
)
status=$?
echo ended >&2
exit $status
"""

# Makes the folder, and holds it until standard input ends: at the end of the timing, but also when the connection drops
# and when the process that times is killed. Then the board itself ends the runner and removes the folder.
_HOLD_FOLDER = """
folder=$(mktemp -d {}/lightssl.XXXXXX) || exit
trap 'kill -9 $(cat "$folder/pid" 2>/dev/null) 2>/dev/null; rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM PIPE
echo "$folder"
cat >/dev/null
exit
"""

# Runs a command in the folder, its process id beside it for as long as it runs.
_RUN_IN_FOLDER = """
cd {} || exit
{} &
echo $! >pid
wait $!
status=$?
rm -f pid
exit $status
"""


@dataclass(frozen=True)
class State:
    """What a board says of itself."""

    name: str
    machine: str  # as uname has it: aarch64, x86_64
    cores: int
    large_cores: list[int]  # numbers of those with the fastest clock; empty where it does not tell
    conditions: Conditions


@dataclass(frozen=True)
class Board:
    """A connection to a board, and a folder there: see :func:`hold_board`."""

    name: str  # for messages
    shell: Sequence[str]  # runs the command that follows on the board
    folder: str
    grace_seconds: float

    def run(self, script: str, timeout: float, sent: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Run ``script`` in the board's shell with ``sent`` as its input; its status is negative if a signal ended it.

        Raises:
            TargetError: The connection was lost, or the script did not end in time.
        """
        command = [*self.shell, _IN_SH.format(shlex.quote(_UNTIL_ITS_END.format(script)))]
        try:
            process = subprocess.run(command, input=sent, capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            raise TargetError(
                f"{self.name} gave no answer within {timeout:g} s.", "Raise grace_seconds, or take a smaller network."
            ) from error
        if not process.stderr.endswith(_ENDED):
            raise TargetError(
                f"The connection to {self.name} was lost: {_last_line(process.stderr)}",
                "Try again when it is there. It removes what was copied by itself.",
            )
        process.stderr = process.stderr.removesuffix(_ENDED)
        if process.returncode > 128:  # how a shell says that it was a signal
            process.returncode = 128 - process.returncode
        return process

    def run_in_folder(self, command: Sequence[str], timeout: float) -> "subprocess.CompletedProcess[bytes]":
        """Run a command that the board ends by itself when the connection drops or is given up."""
        return self.run(_RUN_IN_FOLDER.format(shlex.quote(self.folder), shlex.join(command)), timeout)

    def copy(self, files: Mapping[str, Path]) -> None:
        """Copy files into the folder under the given names.

        Raises:
            TargetError: The board has no space for them.
        """
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for name, path in files.items():
                archive.add(path.resolve(), arcname=name)
        process = self.run(f"tar -x -f - -C {shlex.quote(self.folder)}", self.grace_seconds, packed.getvalue())
        if process.returncode != 0:
            reason = " ".join(process.stderr.decode(errors="replace").split())
            raise TargetError(
                f"Cannot copy {packed.tell() / 1e6:.1f} MB to {self.folder} on {self.name}: {reason}",
                "Free some space there, or name another place as `folder` in a profile of your own.",
            )

    def has_onnxruntime(self, python: str) -> bool:
        """Whether there is such a Python on the board, and it can import what the runner needs."""
        return self.run(f"{shlex.quote(python)} -c 'import numpy, onnxruntime'", self.grace_seconds).returncode == 0

    def state(self) -> State:
        """Ask the board what it is and how it is."""
        script = resource("export", "runner", "describe_board.sh").read_bytes()
        lines = self.run("sh -s", self.grace_seconds, script).stdout.decode(errors="replace").splitlines()
        told = {key: value.strip() for key, _, value in (line.partition("=") for line in lines)}
        temperature, cores = told.get("temperature", ""), told.get("cores", "")
        if not cores.isdecimal():
            raise TargetError(f"{self.name} does not tell how many cores it has.", "Boards must run Linux or Android.")
        return State(
            name=told["name"] or told["machine"],
            machine=told["machine"],
            cores=int(cores),
            large_cores=[int(core) for core in told["large_cores"].split()],
            conditions=Conditions(
                governor=told["governor"] or None,
                celsius=int(temperature) / 1000 if temperature.removeprefix("-").isdecimal() else None,
                throttled=told["throttled"] or None,
            ),
        )


@contextmanager
def hold_board(
    name: str,
    *,
    opening: Sequence[str],
    shell: Sequence[str],
    folder: str,
    connect_seconds: float,
    grace_seconds: float,
    hint: str,
) -> Iterator[Board]:
    """Hold a connection and a fresh folder on the board for as long as the block lasts.

    Args:
        name: The board's, for messages.
        opening: What opens the connection, followed by the board's command that holds the folder.
        shell: The same for every other command.
        folder: Folder on the board to make the fresh one in.
        connect_seconds: What connecting may take.
        grace_seconds: What a command that computes nothing may take.
        hint: What to try when there is no connection.

    Raises:
        TargetError: The program is not installed here; there is no such board, it lets nobody in, or it has no space.
    """
    hold = _IN_SH.format(shlex.quote(_HOLD_FOLDER.format(shlex.quote(folder))))
    with TemporaryFile() as errors:
        try:
            holder = subprocess.Popen([*opening, hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        except FileNotFoundError as error:
            raise TargetError(f"There is no {opening[0]} on this machine.", "Install it.") from error
        try:
            made = _first_line(holder, connect_seconds + grace_seconds)
            if not made.startswith("/"):
                errors.seek(0)
                raise TargetError(f"Cannot use {name}: {made or _last_line(errors.read())}", hint)
            yield Board(name, shell, made, grace_seconds)
        finally:
            _end(holder)


def bench_board(
    model: Path,
    connect: Callable[[], AbstractContextManager[Board]],
    *,
    network: nn.Module | None,
    python: str | None,
    library: Path | None,
    pin_to_large_cores: bool,
    threads: Sequence[int],
    batch: int,
    warmup: int,
    min_samples: int,
    min_seconds: float,
    max_seconds: float,
    cooldown_seconds: float,
    grace_seconds: float,
) -> list[Measurement]:
    """Time an ONNX model on a board's CPU, once for each number of threads.

    The model and ``export/runner/run_onnx.py`` go into the board's folder; where its Python lacks onnxruntime, a C
    program instead, with all it needs. A row says how far the board's output is from
    this machine's, and what the board told of its clock and heat before and after.

    Args:
        model: ONNX file with one float32 image input.
        connect: Gives the board.
        network: The torch network it was exported from, mapping normalised float32 [B, 3, S, S] to [B, D]. Given it,
            rows say how far the board's features are from torch's, too.
        python: Python on the board, with numpy and onnxruntime; None for the C program.
        library: ONNX Runtime's library for the C program, instead of the one of the version installed here.
        pin_to_large_cores: Keep to the cores with the fastest clock.
        threads: Numbers of threads to time with. Those above the board's cores are left out with a warning.
        batch: Images in one run.
        warmup: Runs before the timed ones.
        min_samples, min_seconds: Sampling goes on until both are reached.
        max_seconds: Sampling ends here in any case.
        cooldown_seconds: Rest before each number of threads after the first.
        grace_seconds: What the board may need beyond warm-up and sampling before it is taken for hung.

    Raises:
        TargetError: There is no such file, ONNX Runtime refuses it here or there, or ``network`` is not what is in it;
            the board cannot be reached, lacks space, does not answer, or no number of threads fits it; the connection
            drops; or the board has no onnxruntime and no runner can be made for it here. What goes wrong after the
            first row is a warning instead.
    """
    description = describe_for_timing(model)
    loop = {"warmup": warmup, "min_samples": min_samples, "min_seconds": min_seconds, "max_seconds": max_seconds}
    reference = HostReference(model, description, network, batch=batch, timeout=grace_seconds)
    rows: list[Measurement] = []
    with TemporaryDirectory() as local, connect() as board:
        state = board.state()
        pinned = state.large_cores if pin_to_large_cores else []
        cores = len(pinned) or state.cores
        counts = threads_that_fit(threads, cores, f"on {board.name}")
        if python is not None and board.has_onnxruntime(python):
            command = [python, "run_onnx.py", f"--seed={SEED}"]
            files = {"run_onnx.py": runner_path()}
        else:
            command, files = _native_runner(board.name, state.machine, library, reference.images, Path(local))
        if pinned:
            command = ["taskset", f"{sum(1 << core for core in pinned):x}", *command]
        board.copy({**files, "model.onnx": model})
        for count in counts:
            options = runner_options({"threads": count, "batch": batch, **loop})
            try:
                if rows:
                    time.sleep(cooldown_seconds)
                before = board.state().conditions
                process = board.run_in_folder([*command, "model.onnx", *options], 2 * max_seconds + grace_seconds)
                answer = read_answer(process, f"ONNX Runtime could not time {model} on {board.name}")
                after = board.state().conditions
            except TargetError as error:
                if not rows:
                    raise
                warnings.warn(f"Nothing from {count} threads on. {error}", LightSSLWarning, stacklevel=3)
                break
            rows.append(
                Measurement(
                    kind="measured",
                    device=state.name,
                    cores=cores,
                    **measured_fields(answer),
                    **model_fields(description),
                    **reference.errors_of(answer),
                    conditions_before=before,
                    conditions_after=after,
                )
            )
    return rows


def _native_runner(
    name: str, machine: str, library: Path | None, images: np.ndarray, folder: Path
) -> tuple[list[str], dict[str, Path]]:
    """Return the command of the C program, and the files that it needs beside the model: some lie in ``folder``."""
    try:
        runner = build_native_runner(machine, folder, library=library)
    except TargetError as error:
        raise TargetError(
            f"{name} has no Python with onnxruntime, and no runner can be made for it. {error.message}",
            error.hint,
        ) from error
    given = folder / "input.bin"
    images.tofile(given)
    return [*runner.command, f"--input={given.name}"], {**runner.files, given.name: given}


def _first_line(process: "subprocess.Popen[bytes]", timeout: float) -> str:
    """Return the first line that a process prints, without its end; empty if there is none in time."""
    stream = cast(IO[bytes], process.stdout)  # it has one
    ready, _, _ = select.select([stream], [], [], timeout)
    return stream.readline().decode(errors="replace").strip() if ready else ""


def _end(holder: "subprocess.Popen[bytes]") -> None:
    """End the connection once the board has cleaned up; at once if that takes too long."""
    try:
        holder.communicate(timeout=10)  # closes its input
    except subprocess.TimeoutExpired:
        holder.kill()
        holder.communicate()


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "no reason given"
