"""Nearest neighbours of a few test images, as pictures for a person to look at."""

from base64 import b64encode
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch

from lightssl.evaluation.features import Features
from lightssl.evaluation.knn import nearest

THUMBNAIL_PX = 64

Image = np.ndarray  # uint8 [H, W, 3], RGB


def neighbour_gallery(
    features: Features,
    train_image: Callable[[int], Image],
    test_image: Callable[[int], Image],
    *,
    seed: int = 0,
    queries: int = 8,
    k: int = 6,
) -> dict[str, Any]:
    """Show the training images nearest to some test images, by cosine similarity.

    The test images are drawn by ``seed`` alone, so that nobody picks the ones that look good.

    Args:
        features: Of both sets.
        train_image: Gives the training image at a position of its source, uint8 ``[H, W, 3]``.
        test_image: Gives the test image at a position of its source.
        seed: Draws the test images.
        queries: Test images shown, or all when there are fewer.
        k: Neighbours shown of each, or all when there are fewer.

    Returns:
        ``{"seed", "queries": [{"image", "label", "neighbours": [{"image", "label", "similarity"}]}]}``, ready for JSON;
        images are ``data:image/png;base64`` addresses of at most 64 pixels a side.
    """
    rows = torch.randperm(len(features.test), generator=torch.Generator().manual_seed(seed))[:queries]
    neighbours, similarities = nearest(features, rows, min(k, len(features.train)))

    def neighbour(row: int, similarity: float) -> dict[str, Any]:
        return {
            "image": _png_address(train_image(int(features.train_indices[row]))),
            "label": features.classes[int(features.train_labels[row])],
            "similarity": round(similarity, 4),
        }

    shown = [
        {
            "image": _png_address(test_image(int(features.test_indices[row]))),
            "label": features.classes[int(features.test_labels[row])],
            "neighbours": [neighbour(*pair) for pair in zip(near, similar, strict=True)],
        }
        for row, near, similar in zip(rows.tolist(), neighbours.tolist(), similarities.tolist(), strict=True)
    ]
    return {"seed": seed, "queries": shown}


def _png_address(image: Image) -> str:
    """Encode an image as a ``data:`` address that a page can hold."""
    height, width = image.shape[:2]
    shrink = THUMBNAIL_PX / max(height, width)
    if shrink < 1:
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return "data:image/png;base64," + b64encode(png.tobytes()).decode("ascii")
