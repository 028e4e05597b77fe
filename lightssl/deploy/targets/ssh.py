"""A board that ssh reaches: ONNX Runtime on its CPU."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from annotated_types import Ge
from torch import nn

from lightssl.deploy.board import Board, bench_board, hold_board
from lightssl.deploy.latency import Measurement
from lightssl.types import NonNegative, Positive, PositiveInt


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
    """Time an ONNX model on a board. What is not explained here is in :func:`~lightssl.deploy.board.bench_board`.

    Args:
        model: ONNX file with one float32 image input.
        host: As ssh takes it. Logging in must need no password.
        config: ssh configuration, instead of one's own.
        folder: Folder on the board to make the fresh one in.
        connect_seconds: What connecting may take.
    """
    return bench_board(
        model,
        partial(_connect, host, config, folder, connect_seconds, grace_seconds),
        network=network,
        python=python,
        library=library,
        pin_to_large_cores=False,
        threads=threads,
        batch=batch,
        warmup=warmup,
        min_samples=min_samples,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        cooldown_seconds=0,
        grace_seconds=grace_seconds,
    )


@contextmanager
def _connect(
    host: str, config: Path | None, folder: str, connect_seconds: int, grace_seconds: float
) -> Iterator[Board]:
    """Hold one connection, which all commands share, and a folder on the board for as long as the block lasts."""
    with TemporaryDirectory(prefix="lightssl-") as local:
        options = ["BatchMode=yes", "LogLevel=ERROR", "ClearAllForwardings=yes", "ControlPersist=no"]
        # A connection that has silently gone is noticed after three questions without an answer.
        options += [f"ConnectTimeout={connect_seconds}", "ServerAliveInterval=5", f"ControlPath={local}/connection"]
        ssh = ["ssh", "-T", *(["-F", str(config)] if config else []), *(f"-o{option}" for option in options)]
        with hold_board(
            host,
            opening=[*ssh, "-oControlMaster=yes", "--", host],
            # Without the shared connection, ssh would make one of its own.
            shell=[*ssh, "-oControlMaster=no", "-oProxyCommand=false", "--", host],
            folder=folder,
            connect_seconds=connect_seconds,
            grace_seconds=grace_seconds,
            hint=f"Without a question or other output, this must work: ssh {host} mktemp -d {folder}/XXXXXX",
        ) as board:
            yield board
