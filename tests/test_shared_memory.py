"""Exchanges through shared memory: many, of any kind, between real processes, one of which may end."""

import os
import signal
import time
from pathlib import Path
from random import Random

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from lightssl import shared_memory as module
from lightssl.errors import TrainingError
from lightssl.shared_memory import CAPACITY, shared_memory

PROCESSES = 3
EXCHANGES = 400
KINDS = (torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool)

needs_memory = pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="this system has no memory to share")


def part(exchange: int, rank: int) -> Tensor:
    """What a process puts into an exchange: any kind, any shape, a scalar and nothing among them."""
    random = Random(exchange)
    shape = [random.choice((0, 1, 2, 7, 30)) for _ in range(random.randrange(4))]
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(1000 * exchange + rank))
    value = (100 * numbers).to(random.choice(KINDS))
    return value.transpose(0, 1) if len(shape) > 1 and random.random() < 0.5 else value


def join(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=PROCESSES)


def exchange_everything(rank: int, folder: str) -> None:
    join(rank, folder)
    memory = shared_memory()
    assert memory is not None
    late = Random(rank)
    for exchange in range(EXCHANGES):
        if late.random() < 0.05:
            time.sleep(0.005)  # each process is the last one sometimes
        found = memory.gather(part(exchange, rank))
        expected = torch.stack([part(exchange, peer) for peer in range(PROCESSES)])
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected), exchange
    whole = torch.full((CAPACITY,), rank, dtype=torch.uint8)
    assert torch.equal(memory.gather(whole)[:, -1], torch.arange(PROCESSES, dtype=torch.uint8))
    dist.destroy_process_group()


@needs_memory
@pytest.mark.slow
def test_every_process_sees_what_all_put_in(tmp_path: Path) -> None:
    before = set(Path("/dev/shm").glob("lightssl-*"))
    mp.spawn(exchange_everything, args=(str(tmp_path),), nprocs=PROCESSES)
    assert set(Path("/dev/shm").glob("lightssl-*")) == before  # nothing is left behind


def lose_a_process(rank: int, folder: str) -> None:
    join(rank, folder)
    memory = shared_memory()
    assert memory is not None
    memory.gather(torch.zeros(3))
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(TrainingError, match="Process 1 of 3 has ended"):
        memory.gather(torch.zeros(3))
    Path(folder, f"{rank} noticed").touch()


@needs_memory
@pytest.mark.slow
def test_a_killed_process_does_not_leave_the_others_waiting(tmp_path: Path) -> None:
    processes = mp.spawn(lose_a_process, args=(str(tmp_path),), nprocs=PROCESSES, join=False).processes
    processes[1].join(timeout=60)  # which ends it for good: until somebody asked how it ended, the system keeps it
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, -signal.SIGKILL, 0]
    assert {path.name for path in tmp_path.glob("* noticed")} == {"0 noticed", "2 noticed"}


def find_no_memory(rank: int, folder: str, broken: str) -> None:
    join(rank, folder)
    if broken == "no such folder":
        module._IN_MEMORY = "/nonexistent"
    elif broken == "full":
        module.SharedMemory.size = staticmethod(lambda world_size: 1 << 60)  # type: ignore[method-assign]
    elif rank == 2:  # on another machine
        module._map = lambda path, size: None  # type: ignore[assignment]
    assert shared_memory() is None
    dist.destroy_process_group()


@needs_memory
@pytest.mark.slow
@pytest.mark.parametrize("broken", ["no such folder", "full", "another machine"])
def test_without_memory_all_processes_know(tmp_path: Path, broken: str) -> None:
    before = set(Path("/dev/shm").glob("lightssl-*"))
    mp.spawn(find_no_memory, args=(str(tmp_path), broken), nprocs=PROCESSES)
    assert set(Path("/dev/shm").glob("lightssl-*")) == before
