"""Data sets that torchvision can read. It is never asked to download one."""

import inspect
import os
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lightssl.data.decode import rgb
from lightssl.data.paths import NoTestSplitError
from lightssl.errors import DataError
from lightssl.registry import did_you_mean


class TorchvisionSet:
    """A data set of ``torchvision.datasets``, from files that lie in ``$LIGHTSSL_DATA`` or ``./data``.

    Args:
        name: The class, such as ``CIFAR10``.
        split: Which half to take; None takes the training images.

    Raises:
        DataError: There is no such data set, its files are missing, or it has no test images and they were asked for.
    """

    def __init__(self, name: str, split: Literal["train", "test"] | None = None) -> None:
        self.name = f"torchvision:{name}"
        self._data = _open(name, split or "train")

    def __len__(self) -> int:
        return len(self._data)

    @cached_property
    def labels(self) -> np.ndarray | None:
        """int64 [N], or None where the data set is not for classification. May read all of it the first time."""
        for attribute in ("targets", "labels", "_labels"):
            if hasattr(self._data, attribute):
                return _integers(getattr(self._data, attribute))
        return _integers([self._data[index][1] for index in range(len(self))])

    @cached_property
    def classes(self) -> list[str] | None:
        """Names in the order of the labels; where the data set states none, the labels as text."""
        names = getattr(self._data, "classes", None)
        if names is None and self.labels is not None:
            return [str(label) for label in range(int(self.labels.max()) + 1)]
        return [name if isinstance(name, str) else ", ".join(name) for name in names] if names is not None else None

    def item_name(self, index: int) -> str:
        """Return ``#`` and the position."""
        return f"#{index}"

    def read(self, index: int) -> np.ndarray:
        """Return uint8 [H, W, 3]."""
        return rgb(self._data[index][0])


def _open(name: str, split: Literal["train", "test"]) -> Any:
    from torchvision import datasets

    if name not in datasets.__all__ or not inspect.isclass(getattr(datasets, name)):
        hint = (
            did_you_mean(name, list(datasets.__all__))
            or "The names are those of torchvision.datasets, such as CIFAR10."
        )
        raise DataError(f"torchvision has no data set called {name!r}.", hint)
    kind = getattr(datasets, name)
    accepts = inspect.signature(kind).parameters
    root = Path(os.environ.get("LIGHTSSL_DATA", "data"))
    common: dict[str, Any] = {key: value for key, value in {"root": root, "download": False}.items() if key in accepts}
    if "train" in accepts:
        choices: list[dict[str, Any]] = [{"train": split == "train"}]
    elif "split" in accepts:
        choices = [{"split": word} for word in (("train",) if split == "train" else ("test", "val"))]
    elif split == "train":
        choices = [{}]
    else:
        raise NoTestSplitError(f"torchvision:{name} has no test images of its own.")
    for choice in choices:
        try:
            return kind(**common, **choice)
        except Exception as error:  # every data set has its own way to say that its files are missing
            failure = error
    call = ", ".join(f"{key}={value!r}" for key, value in choices[0].items())
    raise DataError(
        f"torchvision:{name} cannot be opened from {root.absolute()}: {failure}",
        f"Put its files there, or name another folder in the environment variable LIGHTSSL_DATA. To download: "
        f'python -c "from torchvision.datasets import {name}; {name}({str(root)!r}, {call}, download=True)"',
    )


def _integers(labels: Any) -> np.ndarray | None:
    array = np.asarray(labels)
    return array.astype(np.int64) if array.ndim == 1 and array.dtype.kind in "iu" else None
