"""A folder of image files, however nested."""

import os
from functools import partial
from pathlib import Path

import numpy as np

from lightssl.data.listing import Listing, Watch, kept_listing
from lightssl.data.paths import Paths, first_level_labels, is_image, shown
from lightssl.errors import DataError


class Folder:
    """The image files below a folder, sorted by path. First-level folders are labels.

    Links are followed; hidden files and folders are not looked at. The listing of a large folder is kept, see
    :mod:`lightssl.data.listing`.

    Raises:
        DataError: There are no images, or a folder cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._root = folder.absolute()
        self._paths = kept_listing("folder", [self._root], partial(_list_images, self._root)).paths
        if not len(self._paths):
            raise _no_images(folder)
        self.name = str(folder)
        self.labels: np.ndarray | None
        self.classes: list[str] | None
        self.labels, self.classes = first_level_labels(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def item_name(self, index: int) -> str:
        """Return the path of an image below the folder."""
        return shown(self._paths[index])

    def read(self, index: int) -> bytes:
        """Return the file's bytes. Raises OSError if it is gone since the folder was listed."""
        return (self._root / self._paths[index]).read_bytes()


def _list_images(root: Path, watch: Watch) -> Listing:
    found = []
    try:
        watch.add(root)
        # With each folder goes the trail of those it lies in: a link back to one of them would never end.
        waiting = [("", frozenset({_identity(root)}))]
        while waiting:
            folder, trail = waiting.pop()
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    path = folder + entry.name
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        watch.add(Path(entry.path))
                        identity = _identity(Path(entry.path))
                        if identity not in trail:
                            waiting.append((f"{path}/", trail | {identity}))
                    elif is_image(entry.name) and entry.is_file():
                        found.append(path)
                    elif entry.is_symlink():
                        watch.add(Path(entry.path))  # it may come to lead somewhere, as to a disk not mounted yet
    except OSError as error:
        raise DataError(f"Cannot list the images in {root}: {error}.") from error
    return Listing(Paths.of(sorted(found)), np.empty((len(found), 0), np.int64))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _no_images(folder: Path) -> DataError:
    if any(folder.glob("*.tar")):
        return DataError(
            f"{folder} holds tar files, not images.", f"Name the files themselves: --data '{folder}/*.tar'"
        )
    if not any(folder.iterdir()):
        return DataError(f"{folder} is empty.", "Put images into it, or choose another folder with --data.")
    return DataError(
        f"There are no images in {folder} or the folders below it.",
        "Looked for jpg, jpeg, png, webp, bmp, tif and tiff files that are not hidden.",
    )
