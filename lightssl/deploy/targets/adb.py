"""An Android phone that adb reaches: ONNX Runtime on its CPU."""

import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Annotated

from annotated_types import Ge
from torch import nn

from lightssl.deploy.board import Board, bench_board, hold_board
from lightssl.deploy.latency import Measurement
from lightssl.errors import TargetError
from lightssl.types import NonNegative, Positive, PositiveInt


def bench_adb(
    model: Path,
    *,
    network: nn.Module | None = None,
    serial: str | None,
    server_port: PositiveInt,
    library: Path | None,
    folder: str,
    pin_to_large_cores: bool,
    threads: Sequence[PositiveInt],
    batch: PositiveInt,
    warmup: Annotated[int, Ge(0)],
    min_samples: PositiveInt,
    min_seconds: NonNegative,
    max_seconds: Positive,
    cooldown_seconds: NonNegative,
    connect_seconds: PositiveInt,
    grace_seconds: Positive,
) -> list[Measurement]:
    """Time an ONNX model on a phone. What is not explained here is in :func:`~lightssl.deploy.board.bench_board`.

    It runs in adb's shell, not in an app: the scheduler may treat those differently.

    Args:
        model: ONNX file with one float32 image input.
        serial: As ``adb devices`` lists it; None where there is only one.
        server_port: Port of adb's server on this machine.
        folder: Folder on the phone to make the fresh one in.
        connect_seconds: What connecting may take.
    """
    adb = ["adb", "-P", str(server_port)]
    return bench_board(
        model,
        partial(_connect, adb, serial, folder, connect_seconds, grace_seconds),
        network=network,
        python=None,
        library=library,
        pin_to_large_cores=pin_to_large_cores,
        threads=threads,
        batch=batch,
        warmup=warmup,
        min_samples=min_samples,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        cooldown_seconds=cooldown_seconds,
        grace_seconds=grace_seconds,
    )


def _connect(
    adb: Sequence[str], serial: str | None, folder: str, connect_seconds: int, grace_seconds: float
) -> AbstractContextManager[Board]:
    found = _choose(adb, serial, connect_seconds)
    shell = [*adb, "-s", found, "shell"]
    return hold_board(
        found,
        opening=shell,
        shell=shell,
        folder=folder,
        connect_seconds=connect_seconds,
        grace_seconds=grace_seconds,
        hint=f"This must work: adb -s {found} shell mktemp -d {folder}/XXXXXX",
    )


def _choose(adb: Sequence[str], serial: str | None, connect_seconds: int) -> str:
    """Return the serial number of the phone that is meant.

    Raises:
        TargetError: There is no adb here, no such phone, more than one, or it allows nothing.
    """
    try:
        listing = subprocess.run(
            [*adb, "devices"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=connect_seconds,
            check=True,
        ).stdout
    except FileNotFoundError as error:
        raise TargetError("There is no adb on this machine.", "Install it: apt install adb") from error
    except subprocess.TimeoutExpired as error:
        raise TargetError(f"adb gave no answer within {connect_seconds} s.", "Try: adb kill-server") from error
    except subprocess.CalledProcessError as error:
        raise TargetError(f"adb does not work: {' '.join(error.stderr.split())}") from error
    states = dict(line.split("\t", 1) for line in listing.splitlines() if "\t" in line)
    connected = f"Connected: {', '.join(states) or 'none'}."
    if serial is None and len(states) != 1:
        problem = "There is more than one phone." if states else "There is no phone."
        raise TargetError(problem, f"{connected} --target adb:SERIAL names one; `adb devices` lists them.")
    chosen = serial or next(iter(states))
    if chosen not in states:
        raise TargetError(f"There is no phone {chosen}.", connected)
    if states[chosen] != "device":
        raise TargetError(
            f"The phone {chosen} is {states[chosen]}.", "Unlock it and allow debugging from this machine."
        )
    return chosen
