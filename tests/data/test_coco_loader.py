"""What a detector is trained and tested on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lightssl.data.coco import CocoImages, open_coco_splits
from lightssl.data.coco_loader import Photographs, photographs_in_order, training_photographs
from lightssl.errors import DataError
from lightssl.types import BadImage


@pytest.fixture
def train(coco: Path) -> CocoImages:
    return open_coco_splits(str(coco), masks=True)[0]


def drawn(train: CocoImages, seed: int = 0, workers: int = 0) -> list[Photographs]:
    return list(training_photographs(train, batch_size=4, seed=seed, total_steps=12, masks=True, workers=workers))


def test_boxes_and_masks_are_mirrored_with_their_image(train: CocoImages) -> None:
    mirrored = 0
    for batch in drawn(train):
        for pixels, boxes, labels, masks in batch.images:
            assert pixels.shape == (3, 48, 64)
            for box, label, mask in zip(boxes.int().tolist(), labels.tolist(), masks, strict=True):
                left, top, right, bottom = box
                inside = pixels[:, top:bottom, left:right]
                assert (inside == torch.tensor([(220, 20, 20), (20, 20, 220)][label])[:, None, None]).all()
                assert mask[top:bottom, left:right].all()
                assert mask.sum() == (right - left) * (bottom - top)
                mirrored += (left >= 32) != (label == 1)
    assert 5 < mirrored < 60  # of about 72 objects, half


def test_what_a_step_sees_depends_on_the_seed_and_not_on_workers(train: CocoImages) -> None:
    once, again, other = drawn(train), drawn(train, workers=2), drawn(train, seed=1)
    for first, second in zip(once, again, strict=True):
        for one, two in zip(first.images, second.images, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert any(
        not torch.equal(one.pixels, two.pixels) for one, two in zip(once[0].images, other[0].images, strict=True)
    )


def test_bad_images_are_replaced_in_training_and_told_in_testing(coco: Path, train: CocoImages) -> None:
    (coco / "train" / "3.png").write_bytes(b"no image")
    batches = drawn(train)
    assert {bad.name for batch in batches for bad in batch.bad} == {"3.png"}
    assert all(len(batch.images) == 4 for batch in batches)
    tested = dict(photographs_in_order(train))
    assert list(tested) == list(range(20))
    assert isinstance(tested[3], BadImage)
    np.testing.assert_array_equal(tested[4].permute(1, 2, 0), train.read(4))
    for path in (coco / "train").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="none could be used"):
        drawn(train)
