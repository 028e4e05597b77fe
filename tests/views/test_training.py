import numpy as np
import pytest

from lightssl.views.training import TrainingCrop


def crop(maker: TrainingCrop, image: np.ndarray, epoch: int, index: int) -> np.ndarray:
    out = [np.empty(maker.shapes[0], np.uint8)]
    maker(image, epoch, index, out)
    return out[0][0]


def test_a_crop_depends_on_seed_epoch_and_index_alone() -> None:
    image = np.random.default_rng(0).integers(256, size=(40, 60, 3), dtype=np.uint8)
    one, same = (TrainingCrop(16, (0.2, 1.0), seed=3) for _ in range(2))
    crop(one, image, 7, 7)  # what was drawn before does not matter
    assert (crop(one, image, 1, 2) == crop(same, image, 1, 2)).all()
    others = [crop(one, image, 1, 3), crop(one, image, 2, 2), crop(TrainingCrop(16, (0.2, 1.0), seed=4), image, 1, 2)]
    assert not any((crop(one, image, 1, 2) == other).all() for other in others)


def test_half_of_the_crops_are_mirrored() -> None:
    image = np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (64, 1, 3))  # brighter to the right
    whole = TrainingCrop(16, (0.9, 1.0), seed=0)
    crops = [crop(whole, image, 0, index).astype(int) for index in range(400)]
    mirrored = sum(view[0, 0, 0] > view[0, -1, 0] for view in crops)
    assert 160 < mirrored < 240


@pytest.mark.parametrize("area", [(0.08, 0.2), (0.5, 1.0)])
def test_crops_cover_the_share_that_is_asked_for(area: tuple[float, float]) -> None:
    image = np.stack(np.broadcast_arrays(*np.ogrid[:100, :100], 0), axis=2).astype(np.uint8)  # says where it is
    views = [crop(TrainingCrop(50, area, seed=1), image, 0, index).astype(int) for index in range(200)]
    heights, widths = (np.array([np.ptp(view[..., axis]) + 1 for view in views]) for axis in (0, 1))
    shares = heights * widths / image[..., 0].size
    # Large ones are rarer at the upper end: a long one does not fit into the image.
    assert area[0] - 0.03 < shares.min() < area[0] + 0.03
    assert area[1] - 0.07 < shares.max() < area[1] + 0.03


def test_large_images_are_shrunk_only_as_far_as_no_crop_has_to_be_enlarged() -> None:
    maker = TrainingCrop(32, (0.3, 1.0), seed=0)
    for index in range(50):
        factor = maker.reduction(640, 480, 0, index)
        # A crop of at least 30 % of the image is at least 0.3 * 3 / 4 of its square root high and wide.
        assert 1 <= factor <= 480 / 32
        box, _ = maker._box(640, 480, 0, index)
        assert min(box.height, box.width) / factor >= 32
