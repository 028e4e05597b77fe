"""Images inside tar files, read in place: nothing is unpacked."""

import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

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


class Tars:
    """The images in some tar files (shards), in their order there.

    Labels are the first-level folders, once the folders that all images have in common are cut off:
    ``cifar10/train/airplane/0001.jpg`` beside ``cifar10/train/bird/0001.jpg`` is an ``airplane``. Where ``train`` and
    ``test`` (or ``val``) are what is then first, one of them is chosen, and the labels are below it.

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
        self._shards = list(shards)
        members, places = _index(shards)
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
        self._members, self._places = Paths(members), places

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


def _index(shards: Sequence[Path]) -> tuple[list[str], np.ndarray]:
    """Return the images' member names, and int64 [N, 3] of (shard, offset, size)."""
    members: list[str] = []
    places: list[tuple[int, int, int]] = []
    for number, shard in enumerate(shards):
        for name, offset, size in _images(shard):
            members.append(name)
            places.append((number, offset, size))
    return members, np.array(places, np.int64).reshape(-1, 3)


def _read(shard: Path, offset: int, size: int) -> bytes:
    # Opened anew each time: a handle kept open would be shared by forked workers, and its position with it.
    with shard.open("rb", buffering=0) as file:
        file.seek(offset)
        return file.read(size)


def _images(shard: Path) -> list[tuple[str, int, int]]:
    found = []
    try:
        length = shard.stat().st_size
        with tarfile.open(shard, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # or it keeps every header: a kilobyte an image
                name = member.name.removeprefix("./").lstrip("/")
                if not member.isreg() or member.issparse() or not is_image(name):
                    continue
                if member.offset_data + member.size > length:
                    raise tarfile.ReadError(f"{shown(name)} is cut short")
                found.append((name, member.offset_data, member.size))
            # tarfile takes a broken header for the end, unless it is the first: the true end is a block of zeros.
            if _read(shard, archive.offset, tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("what follows is no member, or was cut off")
    except tarfile.TarError as error:
        raise _unreadable(shard, found, error) from error
    except OSError as error:
        raise DataError(f"Cannot read {shard}: {error.strerror or error}.") from error
    return found


def _unreadable(shard: Path, found: list[tuple[str, int, int]], error: tarfile.TarError) -> DataError:
    if found:
        return DataError(
            f"{shard} is damaged after {len(found):,} images: {error}.",
            "Most often a copy that did not finish. Copy it again, or leave it out.",
        )
    if tarfile.is_tarfile(shard):
        return DataError(
            f"{shard} is a compressed or damaged tar file.", "Images are read in place: decompress it once."
        )
    return DataError(
        f"{shard} is not a tar file.", "Give a folder of images, a tar file, or a quoted pattern: 'DIR/*.tar'"
    )
