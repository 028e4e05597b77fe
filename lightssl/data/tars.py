"""Images inside tar files, read in place: nothing is unpacked."""

import os
import struct
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from lightssl.data.listing import Listing, Watch, kept_listing
from lightssl.data.paths import (
    NoTestSplitError,
    Paths,
    first_level_labels,
    is_image,
    shown,
    test_folder,
    without_common_folders,
)
from lightssl.errors import DataError

_HEADER = struct.Struct("100s 24x 12s 12x 8s c 188x 155s 12x")  # name, size, checksum, kind, prefix of the name


class Tars:
    """The images in some tar files (shards), in their order there.

    Labels are the first-level folders, once the folders that all images have in common are cut off:
    ``cifar10/train/airplane/0001.jpg`` beside ``cifar10/train/bird/0001.jpg`` is an ``airplane``. Where ``train`` and
    ``test`` (or ``val``) are what is then first, one of them is chosen, and the labels are below it. The index of large
    shards is kept, see :mod:`lightssl.data.listing`.

    Args:
        shards: The files.
        name: What the user called them.
        split: Which half to take where the shards hold both; None takes ``train``.

    Raises:
        DataError: A file is no tar file, is compressed or cut short; there are no images; or ``split="test"`` and the
            shards hold no such split.
    """

    def __init__(self, shards: Sequence[Path], *, name: str, split: Literal["train", "test"] | None = None) -> None:
        self.name = name
        self._shards = [shard.absolute() for shard in shards]
        listing = kept_listing("tars", self._shards, partial(_index, self._shards))
        members, places = list(listing.paths), listing.places
        if not members:
            raise DataError(
                f"There are no images in {name}.", "Looked for jpg, jpeg, png, webp, bmp, tif and tiff members."
            )
        paths = without_common_folders(members)
        test = test_folder({path.partition("/")[0] for path in paths if "/" in path})
        if test:
            chosen = test if split == "test" else "train"
            keep = [i for i, path in enumerate(paths) if path.startswith(f"{chosen}/")]
            paths = [paths[i].partition("/")[2] for i in keep]
            members, places = [members[i] for i in keep], places[keep]
            self.name = f"{name} ({chosen}/)"
        elif split == "test":
            raise NoTestSplitError(f"{name} holds no train/ and test/ folders.")
        self.labels: np.ndarray | None
        self.classes: list[str] | None
        self.labels, self.classes = first_level_labels(paths)
        self._members, self._places = Paths.of(members), places

    def __len__(self) -> int:
        return len(self._members)

    def item_name(self, index: int) -> str:
        """Return the name of an image's shard, and its path there."""
        shard = self._shards[self._places[index, 0]]
        return f"{shard.name}/{shown(self._members[index])}"

    def read(self, index: int) -> bytes:
        """Return the member's bytes. Raises OSError if the shard is gone since it was listed."""
        shard, offset, size = self._places[index].tolist()
        return _read(self._shards[shard], offset, size)


def _index(shards: Sequence[Path], watch: Watch) -> Listing:
    """List the images; their places are (shard, offset, size)."""
    members: list[str] = []
    places = []
    for number, shard in enumerate(shards):
        watch.add(shard)
        names, spans = _images(shard)
        members += names
        places.append(np.insert(spans, 0, number, axis=1))
    return Listing(Paths.of(members), np.concatenate(places))


def _read(shard: Path, offset: int, size: int) -> bytes:
    # Opened anew each time: a handle kept open would be shared by forked workers, and its position with it.
    with shard.open("rb", buffering=0) as file:
        file.seek(offset)
        return file.read(size)


def _images(shard: Path) -> tuple[list[str], np.ndarray]:
    """Return the names of a shard's images, and int64 [N, 2] of (offset, size)."""
    names: list[str] = []
    spans = []
    try:
        length = shard.stat().st_size
        for member, offset, size in _regular_members(shard):
            name = member.removeprefix("./").lstrip("/")
            if not 0 <= size <= length - offset:
                raise tarfile.ReadError(f"{shown(name)} is cut short")
            if is_image(name):
                names.append(name)
                spans.append((offset, size))
    except tarfile.TarError as error:
        raise _unreadable(shard, len(names), error) from error
    except OSError as error:
        raise DataError(f"Cannot read {shard}: {error.strerror or error}.") from error
    return names, np.array(spans, np.int64).reshape(-1, 2)


def _regular_members(shard: Path) -> Iterator[tuple[str, int, int]]:
    """Yield the name of each regular file in a tar file, the offset of its bytes, and their number."""
    with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # or it keeps every header: a kilobyte an image
            if member.isreg() and not member.issparse():
                yield member.name, member.offset_data, member.size
            # From here on as far as headers are plain: tarfile takes five times as long for each.
            while not archive.pax_headers and (plain := _plain_header(_read_at(file, archive.offset))):
                name, size = plain
                data = archive.offset + tarfile.BLOCKSIZE
                yield name, data, size
                archive.offset = data + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        # tarfile takes a broken header for the end, unless it is the first: the true end is a block of zeros.
        if _read_at(file, archive.offset) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("what follows is no member, or was cut off")


def _read_at(file: BinaryIO, offset: int) -> bytes:
    file.seek(offset)
    return file.read(tarfile.BLOCKSIZE)


def _plain_header(header: bytes) -> tuple[str, int] | None:
    """Return name and size of a regular file whose header says no more than that, as nearly all do; else None."""
    if len(header) < tarfile.BLOCKSIZE:
        return None
    name, size, checksum, kind, prefix = _HEADER.unpack(header)
    size = size.strip(b" \0")
    if kind != tarfile.REGTYPE or prefix.strip(b"\0") or size.strip(b"01234567"):
        return None
    total = sum(header) - sum(checksum) + len(checksum) * ord(" ")  # the checksum itself counts as spaces
    if checksum.strip(b" \0").lstrip(b"0") != b"%o" % total:
        return None
    return os.fsdecode(name.partition(b"\0")[0]), int(size or b"0", 8)


def _unreadable(shard: Path, found: int, error: tarfile.TarError) -> DataError:
    if found:
        return DataError(
            f"{shard} is damaged after {found:,} images: {error}.",
            "Most often a copy that did not finish. Copy it again, or leave it out.",
        )
    if tarfile.is_tarfile(shard):
        return DataError(
            f"{shard} is a compressed or damaged tar file.", "Images are read in place: decompress it once."
        )
    return DataError(
        f"{shard} is not a tar file.", "Give a folder of images, a tar file, or a quoted pattern: 'DIR/*.tar'"
    )
