"""A board that ssh reaches: ONNX Runtime on its CPU."""

import io
import select
import shlex
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Annotated, cast

import numpy as np
from annotated_types import Ge
from torch import nn

from lightssl.deploy.latency import Conditions, Measurement
from lightssl.deploy.native import build_native_runner
from lightssl.deploy.runner import (
    SEED,
    describe_for_timing,
    measured_fields,
    model_fields,
    read_answer,
    run_here,
    runner_functions,
    runner_options,
    runner_path,
    threads_that_fit,
)
from lightssl.errors import TargetError
from lightssl.resources import resource
from lightssl.types import NonNegative, Positive, PositiveInt

# Every command on the board runs like this: in sh rather than the login shell, and without the telemetry that official
# builds of ONNX Runtime send.
_IN_SH = "env ORT_DISABLE_TELEMETRY=1 sh -c {}"

# Makes the folder, and holds it until standard input ends: at the end of the timing, but also when the connection drops
# and when the process that times is killed. Then the board itself ends the runner and removes the folder.
_HOLD_FOLDER = """
folder=$(mktemp -d {}/lightssl.XXXXXX) || exit
trap 'kill -9 $(cat "$folder/pid" 2>/dev/null) 2>/dev/null; rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM PIPE
echo "$folder"
cat >/dev/null
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

_SSH_FAILED = 255  # ssh's own exit status, for whatever happens to the connection


def bench_ssh(
    model: Path,
    *,
    network: nn.Module | None = None,
    host: str,
    config: Path | None,
    python: str,
    library: Path | None,
    folder: str,
    threads: Sequence[PositiveInt],
    batch: PositiveInt,
    warmup: Annotated[int, Ge(0)],
    min_samples: PositiveInt,
    min_seconds: NonNegative,
    max_seconds: Positive,
    connect_seconds: PositiveInt,
    grace_seconds: Positive,
) -> list[Measurement]:
    """Time an ONNX model on a board's CPU, once for each number of threads.

    The model and ``export/runner/run_onnx.py`` go into a fresh folder on the board, which the board removes itself,
    also when the connection drops. Where the board's Python lacks onnxruntime, a C program takes its place that brings
    all it needs along. A row says how far the board's output is from this machine's, and what the board told of its
    clock and heat before and after.

    Args:
        model: ONNX file with one float32 image input.
        network: Not used: it is ONNX Runtime on this machine that the board is compared with.
        host: As ssh takes it. Logging in must need no password.
        config: ssh configuration, instead of one's own.
        python: Python on the board, with numpy and onnxruntime.
        library: ONNX Runtime's library for a board without, instead of the one of the version installed here.
        folder: Folder on the board to make the fresh one in.
        threads: Numbers of threads to time with. Those above the board's cores are left out with a warning.
        batch: Images in one run.
        warmup: Runs before the timed ones.
        min_samples, min_seconds: Sampling goes on until both are reached.
        max_seconds: Sampling ends here in any case.
        connect_seconds: What connecting may take.
        grace_seconds: What the board may need beyond warm-up and sampling before it is taken for hung.

    Raises:
        TargetError: There is no such file, ONNX Runtime refuses it here or there, the board cannot be reached, lacks
            space, does not answer, or no number of threads fits it; the connection drops; or the board's Python has no
            onnxruntime and no runner can be made for it here.
    """
    description = describe_for_timing(model)
    loop = {"warmup": warmup, "min_samples": min_samples, "min_seconds": min_seconds, "max_seconds": max_seconds}
    once = {"warmup": 0, "min_samples": 1, "min_seconds": 0, "max_seconds": 0}
    here = run_here(model, {"batch": batch, "seed": SEED, **once}, timeout=grace_seconds)
    rows = []
    with TemporaryDirectory() as local, _connect(host, config, folder, connect_seconds, grace_seconds) as board:
        state = board.state()
        row = partial(
            Measurement,
            kind="measured",
            device=state.name,
            cores=state.cores,
            max_error_vs_torch=None,
            **model_fields(description),
        )
        counts = threads_that_fit(threads, state.cores, f"on {host}")
        if board.has_onnxruntime(python):
            command = [python, "run_onnx.py", f"--seed={SEED}"]
            files = {"run_onnx.py": runner_path()}
        else:
            try:
                native = build_native_runner(state.machine, Path(local), library=library)
            except TargetError as error:
                raise TargetError(
                    f"{python} on {host} has no onnxruntime, and no other runner can be made for it. {error.message}",
                    f"Install onnxruntime there (pip install onnxruntime). {error.hint or ''}".strip(),
                ) from error
            images = Path(local, "input.bin")
            runner_functions()["make_input"](here["input_shape"], batch=batch, seed=SEED).tofile(images)
            command = [*native.command, "--input=input.bin"]
            files = {**native.files, "input.bin": images}
        board.copy({**files, "model.onnx": model})
        for count in counts:
            options = runner_options({"threads": count, "batch": batch, **loop})
            before = board.state().conditions
            answer = read_answer(
                board.run_in_folder([*command, "model.onnx", *options], 2 * max_seconds + grace_seconds),
                f"ONNX Runtime could not time {model} on {host}",
            )
            rows.append(
                row(
                    **measured_fields(answer),
                    max_error_vs_host=float(
                        np.abs(np.subtract(answer["output"], here["output"], dtype=np.float32)).max()
                    ),
                    conditions_before=before,
                    conditions_after=board.state().conditions,
                )
            )
    return rows


@dataclass(frozen=True)
class _State:
    """What a board says of itself."""

    name: str
    machine: str  # as uname has it: aarch64, x86_64
    cores: int
    conditions: Conditions


@dataclass(frozen=True)
class _Board:
    """A connection to a board, and a folder there.

    Args:
        host: Its name, for messages.
        ssh: The command that runs one on the board, through the connection there is.
        folder: On the board; empty at first.
        grace_seconds: What a command that computes nothing may take.
    """

    host: str
    ssh: Sequence[str]
    folder: str
    grace_seconds: float

    def run(self, script: str, timeout: float, sent: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Run ``script`` in the board's shell with ``sent`` as its input; its status is negative if a signal ended it.

        Raises:
            TargetError: The connection was lost, or the script did not end in time.
        """
        command = [*self.ssh, _IN_SH.format(shlex.quote(script))]
        try:
            process = subprocess.run(command, input=sent, capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            raise TargetError(
                f"{self.host} gave no answer within {timeout:g} s.", "Raise grace_seconds, or take a smaller network."
            ) from error
        if process.returncode == _SSH_FAILED:
            raise TargetError(
                f"The connection to {self.host} was lost: {_last_line(process.stderr)}",
                "Try again when it is there. It removes what was copied by itself.",
            )
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
                f"Cannot copy {packed.tell() / 1e6:.1f} MB to {self.folder} on {self.host}: {reason}",
                "Free some space there, or name another place as `folder` in a profile of your own.",
            )

    def has_onnxruntime(self, python: str) -> bool:
        """Whether there is such a Python on the board, and it can import what the runner needs."""
        return self.run(f"{shlex.quote(python)} -c 'import numpy, onnxruntime'", self.grace_seconds).returncode == 0

    def state(self) -> _State:
        """Ask the board what it is and how it is."""
        script = resource("export", "runner", "describe_board.sh").read_bytes()
        lines = self.run("sh -s", self.grace_seconds, script).stdout.decode(errors="replace").splitlines()
        told = {key: value.strip() for key, _, value in (line.partition("=") for line in lines)}
        temperature, cores = told.get("temperature", ""), told.get("cores", "")
        if not cores.isdecimal():
            raise TargetError(f"{self.host} does not tell how many cores it has.", "Boards must run Linux.")
        return _State(
            name=told["name"] or told["machine"],
            machine=told["machine"],
            cores=int(cores),
            conditions=Conditions(
                governor=told["governor"] or None,
                celsius=int(temperature) / 1000 if temperature.removeprefix("-").isdecimal() else None,
                throttled=told["throttled"] or None,
            ),
        )


@contextmanager
def _connect(
    host: str, config: Path | None, folder: str, connect_seconds: int, grace_seconds: float
) -> Iterator[_Board]:
    """Hold one connection, which all commands share, and a folder on the board for as long as the block lasts.

    Raises:
        TargetError: There is no such board, it lets nobody in, or it has no space for a folder.
    """
    with TemporaryDirectory(prefix="lightssl-") as local:
        errors = Path(local) / "errors"
        options = ["BatchMode=yes", "LogLevel=ERROR", "ClearAllForwardings=yes", "ControlPersist=no"]
        # A connection that has silently gone is noticed after three questions without an answer.
        options += [f"ConnectTimeout={connect_seconds}", "ServerAliveInterval=5", f"ControlPath={local}/connection"]
        ssh = ["ssh", "-T", *(["-F", str(config)] if config else []), *(f"-o{option}" for option in options)]
        hold = _IN_SH.format(shlex.quote(_HOLD_FOLDER.format(shlex.quote(folder))))
        try:
            with errors.open("wb") as stderr:
                holder = subprocess.Popen(
                    [*ssh, "-oControlMaster=yes", "--", host, hold],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                )
        except FileNotFoundError as error:
            raise TargetError("There is no ssh on this machine.", "Install it: apt install openssh-client") from error
        try:
            made = _first_line(holder, connect_seconds + grace_seconds)
            if not made.startswith("/"):
                raise TargetError(
                    f"Cannot use {host}: {made or _last_line(errors.read_bytes())}",
                    f"Without a question or other output, this must work: ssh {host} mktemp -d {folder}/XXXXXX",
                )
            # Without the shared connection, ssh would make one of its own.
            yield _Board(host, [*ssh, "-oControlMaster=no", "-oProxyCommand=false", "--", host], made, grace_seconds)
        finally:
            _end(holder)


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
