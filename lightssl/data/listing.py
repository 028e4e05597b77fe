"""Listings of large collections, kept on disk so that opening one again does not look at every file.

They lie in ``$LIGHTSSL_CACHE``, else in ``$XDG_CACHE_HOME/lightssl``, else in ``~/.cache/lightssl``, and may be deleted
at any time. Where nothing can be written there (``LIGHTSSL_CACHE=/dev/null`` sees to that), or what is there is
damaged, a collection is listed each time it is opened.

A listing counts for as long as all that it was made from has the same times: every folder, at any depth, or every tar
file. A folder's change when a name is added to it, removed or changed. Only some mounts of object storage do not keep
such times; there, the cache must be turned off as above.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lightssl.data.paths import Paths
from lightssl.errors import LightSSLError
from lightssl.files import atomic_path, cache_folder

MIN_IMAGES = 20_000  # fewer are soon listed, and leave nothing behind
_TICK_NS = 2 * 10**9  # no file system's clock is coarser: FAT counts in two seconds
_FORMAT = 1  # of the files; part of their names


class Listing(NamedTuple):
    """The images of a collection."""

    paths: Paths
    places: np.ndarray  # int64 [N, K], where the bytes of each image are; K is 0 where the path says it all


class _State(NamedTuple):
    inode: int
    size: int
    modified_ns: int
    changed_ns: int  # unlike the time before, no program can set it back


class Watch:
    """The files and folders that a listing is made from, each as it was just before it was read."""

    def __init__(self) -> None:
        self._started_ns = time.time_ns()
        self.paths: list[str] = []
        self.states: list[_State | None] = []

    def add(self, path: Path) -> None:
        """Note a file or a folder by its absolute path; also one that is not there but would count if it were."""
        self.paths.append(str(path))
        self.states.append(_state(path))

    def settled(self) -> bool:
        """Whether every later change will show.

        What had changed within the tick of the clock in which it was read may change once more in that tick, and its
        time stays the same. And a time of zero is none.
        """
        return all(0 < state.modified_ns < self._started_ns - _TICK_NS for state in self.states if state)


def kept_listing(kind: str, places: Sequence[Path], make: Callable[[Watch], Listing]) -> Listing:
    """Take a listing from the cache if it is there and still true; else make it, and keep it if it is large.

    Args:
        kind: What is listed, in a word: part of the file's name.
        places: The absolute paths of what is listed.
        make: Makes the listing. It adds to the watch whatever it reads, before it reads it.
    """
    file = _file(kind, places)
    listing = _recall(file) if file else None
    if listing is None:
        watch = Watch()
        listing = make(watch)
        if file and len(listing.paths) >= MIN_IMAGES and watch.settled():
            _keep(file, listing, watch)
    return listing


def _file(kind: str, places: Sequence[Path]) -> Path | None:
    """Where the listing of these places is kept; None where there is no home to keep it in."""
    name = sha256(os.fsencode("\0".join([str(_FORMAT), kind, *map(str, places)]))).hexdigest()
    folder = cache_folder()
    return folder / f"{kind}-{name[:32]}.npz" if folder else None


def _recall(file: Path) -> Listing | None:
    # There may be none, or a damaged one: numpy and zipfile have many words for it.
    with suppress(Exception), np.load(file, allow_pickle=False) as kept:
        watched = Paths(kept["watched_text"], kept["watched_ends"])
        if np.array_equal(kept["states"], _digest(_state(Path(path)) for path in watched)):
            return Listing(Paths(kept["text"], kept["ends"]), kept["places"])
    return None


def _keep(file: Path, listing: Listing, watch: Watch) -> None:
    watched = Paths.of(watch.paths)
    with suppress(LightSSLError), atomic_path(file) as aside, aside.open("wb") as out:
        np.savez_compressed(
            out,
            text=listing.paths.text,
            ends=listing.paths.ends,
            places=listing.places,
            watched_text=watched.text,
            watched_ends=watched.ends,
            states=_digest(watch.states),
        )


def _state(path: Path) -> _State | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return _State(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _digest(states: Iterable[_State | None]) -> np.ndarray:
    """One uint8 [32] for all: inode numbers may be too large for an array."""
    return np.frombuffer(sha256(repr(list(states)).encode()).digest(), np.uint8)
