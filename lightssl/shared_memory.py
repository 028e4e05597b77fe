"""Small exchanges between the processes of one machine, through memory that all of them see.

Over gloo's sockets an exchange takes some half a millisecond, however small: several threads wake one another up. Batch
norm over two processes needs one in every layer and direction, hundreds a step. Through shared memory each takes some
ten microseconds.
"""

import mmap
import os
import tempfile
import threading
import time
from itertools import count
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from lightssl.errors import TrainingError

_IN_MEMORY = "/dev/shm"  # of Linux
CAPACITY = 1 << 20  # bytes that a process can put in at once
_LINE = 64  # bytes; a process's numbers lie in a cache line of their own, which only it writes
_SPINS = 1000  # looks at a peer's number before the core is offered to others, ...
_YIELDS = 5000  # ... and before this process sleeps between looks: the peer may be evaluating for minutes
_SLEEP = 0.001  # seconds


class SharedMemory:
    """An all-gather of tensors of up to :data:`CAPACITY` bytes.

    Every process counts its exchanges in memory. It puts its part down, raises its number, waits until all numbers are
    as high, and takes the parts. There are two places for parts, used in turns: whoever writes into one knows from the
    exchange in between that everybody has read it.

    Args:
        memory: Of :meth:`size` bytes, zero at first.
        rank: Which process this is.
        world_size: How many there are.
    """

    def __init__(self, memory: mmap.mmap, rank: int, world_size: int) -> None:
        self._rank = rank
        self._numbers = memoryview(memory).cast("q")
        self._places = torch.frombuffer(memory, dtype=torch.uint8, offset=world_size * _LINE).view(
            2, world_size, CAPACITY
        )
        self._done = 0
        self._fence = threading.Lock()
        self._fence.acquire()
        self._numbers[self._line(rank) + 1] = os.getpid()

    @staticmethod
    def size(world_size: int) -> int:
        """Return how many bytes so many processes need."""
        return world_size * (_LINE + 2 * CAPACITY)

    def gather(self, value: Tensor) -> Tensor:
        """Return the tensors [...] of all processes, [W, ...]. They must agree in shape and dtype.

        The result lies in the shared memory, and is there until the next exchange.

        Raises:
            TrainingError: Another process has ended.
        """
        self._done += 1
        place = self._places[self._done % 2]
        size = value.numel() * value.itemsize
        place[self._rank, :size] = value.reshape(-1).view(torch.uint8)
        self._order_memory()
        self._numbers[self._line(self._rank)] = self._done
        for peer in range(len(place)):
            self._wait_for(peer)
        self._order_memory()
        return place[:, :size].view(value.dtype).view(len(place), *value.shape)

    def _wait_for(self, peer: int) -> None:
        number = self._line(peer)
        for looks in count(1):
            if self._numbers[number] >= self._done:
                return
            if looks > _YIELDS:
                if not _runs(self._numbers[number + 1]):
                    raise TrainingError(
                        f"Process {peer} of {len(self._places[0])} has ended, and this one cannot go on alone.",
                        "Look for its error above. The last checkpoint is kept.",
                    )
                time.sleep(_SLEEP)
            elif looks > _SPINS:
                os.sched_yield()

    def _order_memory(self) -> None:
        """Finish reads and writes before later ones: some processors, such as ARM's, would change their order."""
        self._fence.release()
        self._fence.acquire()

    @staticmethod
    def _line(rank: int) -> int:
        return rank * _LINE // 8


def shared_memory() -> SharedMemory | None:
    """Set memory up between the processes of the default group; all of them must call this together.

    Returns:
        None if they run on several machines, or where the system offers no such memory.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    size = SharedMemory.size(world_size)
    agreed = [_reserve(size) if rank == 0 else None]
    dist.broadcast_object_list(agreed)
    mapped = _map(agreed[0], size)
    missing = torch.tensor(int(mapped is None))
    dist.all_reduce(missing)
    if rank == 0 and agreed[0] is not None:
        agreed[0].unlink()  # all have it open; it goes when the last process does
    return SharedMemory(mapped, rank, world_size) if mapped is not None and not missing else None


def _reserve(size: int) -> Path | None:
    """Make a file in memory, zeros only, and return its path."""
    try:
        with tempfile.NamedTemporaryFile(prefix="lightssl-", dir=_IN_MEMORY, delete=False) as file:
            try:
                os.posix_fallocate(file.fileno(), 0, size)  # writing what memory cannot hold would end the process
            except OSError:
                Path(file.name).unlink()
                return None
    except OSError:
        return None
    return Path(file.name)


def _map(path: Path | None, size: int) -> mmap.mmap | None:
    if path is None:
        return None
    try:
        with path.open("r+b") as file:
            return mmap.mmap(file.fileno(), size)
    except OSError:  # it was made on another machine
        return None


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
