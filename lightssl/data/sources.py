"""Where images come from: the embedded sample, a folder, tar files, or a torchvision data set.

A folder or a set of tar files may hold ``train`` beside ``test`` (or ``val``, ``valid``, ``validation``). Then
pre-training takes ``train``, and an evaluation takes each for what it says. Otherwise all images are one collection, of
which an evaluation sets a fifth aside.
"""

import glob
import os
from hashlib import sha256
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from lightssl.data.embedded import Sample
from lightssl.data.folder import Folder
from lightssl.data.paths import TEST_FOLDERS, NoTestSplitError, test_folder
from lightssl.data.scenarios import PREFIX, open_scenario
from lightssl.data.tars import Tars
from lightssl.data.torchvision_sets import TorchvisionSet
from lightssl.errors import DataError

Split = Literal["train", "test"]

_TEST_SHARE = 0.2


class Source(Protocol):
    """An indexed collection of images. Reading does not change it, so forked workers can share one."""

    @property
    def name(self) -> str:
        """What the user called it, for messages and logs."""

    @property
    def labels(self) -> np.ndarray | None:
        """int64 [N], or None where the images are not labelled."""

    @property
    def classes(self) -> list[str] | None:
        """Names that the labels index, or None where the images are not labelled."""

    def __len__(self) -> int: ...

    def item_name(self, index: int) -> str:
        """What to call one image: its path below the source, or ``#12``."""

    def read(self, index: int) -> bytes | np.ndarray:
        """Return one image: encoded bytes, or pixels that are decoded already, uint8 [H, W, 3]."""


class Subset:
    """Some of the images of another source, which keep their names.

    Args:
        source: The whole.
        indices: int64 [N], positions in the whole.
        name: What to call the part.
    """

    def __init__(self, source: Source, indices: np.ndarray, name: str) -> None:
        self.name = name
        self.labels = source.labels[indices] if source.labels is not None else None
        self.classes = source.classes
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def item_name(self, index: int) -> str:
        """Return the name that the image has in the whole."""
        return self._source.item_name(int(self._indices[index]))

    def read(self, index: int) -> bytes | np.ndarray:
        """Return one image as the whole does."""
        return self._source.read(int(self._indices[index]))


def open_source(spec: str, *, split: Split | None = None) -> Source:
    """Open a collection of images.

    Args:
        spec: ``sample``; a folder, with jpg, png, webp, bmp and tiff images at any depth; a tar file, or a pattern of
            them such as ``DIR/*.tar``; ``torchvision:NAME``, looked for in ``$LIGHTSSL_DATA`` or ``./data``; or
            ``scenario:NAME``, one of :data:`lightssl.data.scenarios.SCENARIOS`.
        split: Which half to take where the collection has a train and a test half. None takes the training half.

    Raises:
        DataError: Nothing usable is there; or ``split="test"`` and the collection is all of one piece.
    """
    if spec == "sample":
        return Sample(split or "train")
    if spec.startswith(PREFIX):
        return open_scenario(spec.removeprefix(PREFIX), split)
    if spec.startswith("torchvision:"):
        return TorchvisionSet(spec.removeprefix("torchvision:"), split)
    path = Path(spec).expanduser()
    if path.is_dir():
        return _open_folder(path, split)
    if path.exists():
        return Tars([path], name=spec, split=split)
    if glob.has_magic(spec):
        return _open_pattern(spec, split)
    raise DataError(f"There is no folder or file {path.absolute()}.", _KINDS)


def located(spec: str, directory: Path | str) -> str:
    """Return what opens the same images from another current directory: relative paths are of ``directory``.

    Args:
        spec: As in :func:`open_source`.
        directory: Where it was written.
    """
    if spec == "sample" or spec.startswith((PREFIX, "torchvision:")):
        return spec
    return os.path.normpath(Path(directory) / Path(spec).expanduser())


def open_splits(spec: str, test_spec: str | None = None, *, seed: int = 0) -> tuple[Source, Source, str]:
    """Open labelled train and test images for an evaluation.

    Args:
        spec: As in :func:`open_source`. A collection that is all of one piece is split: a fifth of each class, drawn
            from ``seed``, becomes the test images.
        test_spec: Test images from elsewhere.
        seed: Decides which images are set aside.

    Returns:
        Train images, test images with the same classes, and a sentence that says how the split came about.

    Raises:
        DataError: Labels are missing, there are fewer than two classes, or train and test differ in their classes.
    """
    train = open_source(spec, split="train")
    if test_spec is not None:
        test = _test_or_all(test_spec)
        how = f"{len(train):,} train images from {train.name}, {len(test):,} test images from {test.name}."
    else:
        try:
            test = open_source(spec, split="test")
            how = f"{spec} comes with {len(train):,} train and {len(test):,} test images."
        except NoTestSplitError:
            require_labels(train)
            train, test = _stratified(train, seed)
            how = (
                f"{spec} has no test images of its own: {len(test):,} of its {len(train) + len(test):,} images, a "
                f"fifth of each class drawn with seed {seed}, were set aside for testing."
            )
    for source in (train, test):
        require_labels(source)
    _check_same_classes(train, test)
    return train, test, how


_KINDS = (
    "Images come from a folder, a tar file, a quoted pattern of tar files ('DIR/*.tar'), torchvision:NAME, or sample "
    "(which ships with lightssl)."
)


def _open_folder(folder: Path, split: Split | None) -> Source:
    test = test_folder([name for name in ("train", *TEST_FOLDERS) if (folder / name).is_dir()])
    if test is not None:
        return Folder(folder / (test if split == "test" else "train"))
    if split == "test":
        raise NoTestSplitError(f"{folder} has no train folder beside a test or val folder.")
    return Folder(folder)


def _open_pattern(pattern: str, split: Split | None) -> Source:
    found = glob.glob(str(Path(pattern).expanduser()), recursive=True)  # noqa: PTH207 (Path.glob takes no absolute pattern)
    files = [Path(file) for file in sorted(found) if Path(file).is_file()]
    if not files:
        raise DataError(f"No file matches {pattern!r}, looked for from {Path.cwd()}.", _KINDS)
    return Tars(files, name=pattern, split=split)


def _test_or_all(spec: str) -> Source:
    try:
        return open_source(spec, split="test")
    except NoTestSplitError:
        return open_source(spec)


def _stratified(source: Source, seed: int) -> tuple[Source, Source]:
    """Set a fifth of each class of labelled images aside."""
    rng = np.random.default_rng(seed)
    test = []
    labels = np.asarray(source.labels)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        # Of two images or more at least one is set aside; a lone one is for training.
        test.append(members[: max(round(len(members) * _TEST_SHARE), int(len(members) > 1))])
    aside = np.sort(np.concatenate(test))
    if len(aside) == 0:
        raise DataError(
            f"{source.name} holds one image a class: none can be set aside for testing.", "Add more images."
        )
    rest = np.setdiff1d(np.arange(len(source)), aside)
    return Subset(source, rest, f"{source.name} (4/5)"), Subset(source, aside, f"{source.name} (1/5)")


def names_digest(source: Source) -> str:
    """Return what tells the images of a source, by their names and order, from others."""
    names = "\0".join(map(source.item_name, range(len(source))))
    return sha256(names.encode(errors="surrogateescape")).hexdigest()


def splits_digest(train: Source, test: Source) -> str:
    """Return what tells labelled images to learn from and to test on from others, by their names, order and labels."""
    found = sha256()
    for source in (train, test):
        found.update(f"{names_digest(source)} {source.classes}".encode(errors="backslashreplace"))
        found.update(np.ascontiguousarray(source.labels, dtype=np.int64).tobytes())
    return found.hexdigest()


def require_labels(source: Source, who: str = "this evaluation") -> None:
    """Raise DataError unless the images are labelled with at least two classes, which ``who`` needs."""
    if source.labels is None or source.classes is None:
        names = [source.item_name(index) for index in range(len(source))]
        alone = [name for name in names if "/" not in name]
        # Of a few among many that lie in folders, one is told: it is there by mistake.
        stray = f" {alone[0]} lies in no folder." if alone and len(alone) < len(names) else ""
        raise DataError(f"The images of {source.name} have no labels, which {who} needs.{stray}", _ARRANGE)
    if len(source.classes) < 2:
        raise DataError(
            f"All images of {source.name} are of one class, {source.classes[0]!r}: there is nothing to tell apart.",
            _ARRANGE,
        )


def some_of_each_class(source: Source, count: int, *, seed: int) -> Source:
    """Draw ``count`` labelled images, or all there are: of each class as many as of every other that has as many."""
    rng, labels = np.random.default_rng(seed), np.asarray(source.labels)
    rank = np.empty(len(labels), dtype=int)  # of an image within its class
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        rank[members] = np.arange(len(members))
    return Subset(source, np.sort(np.lexsort((labels, rank))[:count]), source.name)


_ARRANGE = "Arrange the images in one folder a class, below what you name: DIR/cat/1.jpg, DIR/dog/1.jpg"


def _check_same_classes(train: Source, test: Source) -> None:
    if train.classes == test.classes:
        return
    only_train = sorted(set(train.classes or []) - set(test.classes or []))
    only_test = sorted(set(test.classes or []) - set(train.classes or []))
    differences = [
        f"only in {source.name}: {', '.join(names[:10])}{' ...' if len(names) > 10 else ''}"
        for source, names in ((train, only_train), (test, only_test))
        if names
    ]
    raise DataError(
        "Train and test images differ in their classes: "
        + "; ".join(differences or ["the same names in another order"]),
        "Give both the same folder names.",
    )
