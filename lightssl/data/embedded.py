"""The sample that ships with lightssl: 10,000 images of Fashion-MNIST (see ``sample/``)."""

from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

# In the order of the labels, as the data set's authors list them.
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


class Sample:
    """8,000 train or 2,000 test images of 28 x 28 pixels, balanced over 10 kinds of clothing."""

    def __init__(self, split: Literal["train", "test"]) -> None:
        self.name = f"sample ({split})"
        self._images, self.labels = _load(split)
        self.classes = list(CLASSES)

    def __len__(self) -> int:
        return len(self.labels)

    def item_name(self, index: int) -> str:
        """Return ``#`` and the position."""
        return f"#{index}"

    def read(self, index: int) -> np.ndarray:
        """Return uint8 [28, 28, 3]: grey, three times."""
        return np.repeat(self._images[index, :, :, None], 3, axis=2)


@cache
def _load(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images uint8 [N, 28, 28] and labels int64 [N]."""
    with np.load(Path(__file__).parent / "sample" / "fashion_mnist.npz", allow_pickle=False) as arrays:
        return arrays[f"{split}_images"], arrays[f"{split}_labels"].astype(np.int64)
