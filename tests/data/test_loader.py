import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lightssl.data.loader import (
    BadImages,
    EvaluationLoader,
    StepSampler,
    centre_crop,
    clear_worker_errors,
    evaluation_loader,
    pretraining_loader,
    steps_per_epoch,
)
from lightssl.errors import DataError, LightSSLError
from lightssl.types import BadImage, Batch

SIZE = 8


class Images:
    """Encoded images that differ; those at the positions ``bad`` are cut short."""

    name = "images"
    labels = None
    classes = None

    def __init__(self, count: int, bad: set[int] = frozenset(), act: Callable[[int], None] = lambda _: None) -> None:
        self.count, self.bad, self.act = count, bad, act

    def __len__(self) -> int:
        return self.count

    def item_name(self, index: int) -> str:
        return f"{index}.png"

    def read(self, index: int) -> bytes:
        self.act(index)
        pixels = np.random.default_rng(index).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        pixels[0, 0] = index % 256
        data = cv2.imencode(".png", pixels)[1].tobytes()
        return data[:-40] if index in self.bad else data


class Views:
    """Two noisy copies of an image, and three of its upper left corner."""

    shapes = largest_shapes = ((2, SIZE, SIZE, 3), (3, 3, 3, 3))

    def at(self, step: int, total_steps: int) -> "Views":
        return self

    def reduction(self, height: int, width: int, epoch: int, index: int) -> int:
        return 1

    def left_to_do(self, epoch: int, index: int) -> list[list[float]]:
        return [[epoch, index, view] for view in range(5)]

    def __call__(self, image: np.ndarray, epoch: int, index: int, out: list[np.ndarray]) -> None:
        rng = np.random.default_rng((epoch, index))
        out[0][...] = image + rng.integers(0, 256, out[0].shape, dtype=np.uint8)
        out[1][...] = image[:3, :3]


def batches(source: Images, **changes: int) -> list[Batch]:
    options = {"batch_size": 6, "seed": 1, "start_step": 0, "total_steps": 8} | changes
    loader = pretraining_loader(source, Views(), **options)
    return [replace(batch, views=[group.clone() for group in batch.views]) for batch in loader]


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x.indices, y.indices)
        and x.bad == y.bad
        and all(torch.equal(v, w) for v, w in zip(x.views, y.views, strict=True))
        for x, y in zip(a, b, strict=True)
    )


def test_batches_have_their_shapes_and_hold_each_image_once_an_epoch() -> None:
    made = batches(Images(20))
    assert len(made) == 8
    first = made[0]
    assert [tuple(group.shape) for group in first.views] == [(2, 6, SIZE, SIZE, 3), (3, 6, 3, 3, 3)]
    assert all(group.dtype == torch.uint8 and group.is_contiguous() for group in first.views)
    assert first.indices.dtype == torch.int64
    for group, start in zip(first.left_to_do, (0, 2), strict=True):
        assert group[..., 0].eq(0).all()
        assert torch.equal(group[..., 1], first.indices.expand(len(group), -1).float())
        assert torch.equal(group[:, 0, 2], start + torch.arange(len(group)).float())
    assert first.bad == []
    # Three batches of 6 an epoch; the corner of an image tells its index.
    for epoch in (made[:3], made[3:6]):
        assert len({int(index) for batch in epoch for index in batch.indices}) == 18
    assert torch.equal(first.views[1][0, :, 0, 0, 0], first.indices.to(torch.uint8))
    assert not torch.equal(made[0].indices, made[3].indices)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_batch_stays_as_it_is_while_it_is_used(workers: int) -> None:
    loader = pretraining_loader(
        Images(20), Views(), batch_size=6, seed=1, start_step=0, total_steps=12, workers=workers
    )
    expected = batches(Images(20), total_steps=12)
    for batch, other in zip(loader, expected, strict=True):
        time.sleep(0.05)  # for the workers to go as far ahead as they may
        assert all(torch.equal(v, w) for v, w in zip(batch.views, other.views, strict=True))


def test_workers_do_not_change_the_batches() -> None:
    source = Images(20, bad={3, 4, 11})
    alone = batches(source)
    assert any(batch.bad for batch in alone)
    assert same(alone, batches(source, workers=1))
    assert same(alone, batches(source, workers=2))


def test_processes_share_the_global_batch() -> None:
    source = Images(20, bad={3, 4, 11})
    whole = batches(source)
    ranks = [batches(source, rank=rank, world_size=2) for rank in range(2)]
    for step, batch in enumerate(whole):
        parts = [rank[step] for rank in ranks]
        assert torch.equal(batch.indices, torch.cat([part.indices for part in parts]))
        assert batch.bad == [bad for part in parts for bad in part.bad]
        for group, halves in zip(batch.views, zip(*(part.views for part in parts), strict=True), strict=True):
            assert torch.equal(group, torch.cat(halves, dim=1))


class MovingViews(Views):
    """Views of which every step has others: more of them, and smaller ones, from step to step."""

    largest_shapes = ((2, SIZE, SIZE, 3), (8, 8, 8, 3))

    def __init__(self, step: int = 0) -> None:
        self.shapes = ((2, SIZE, SIZE, 3), (1 + step, 8 - step, 8 - step, 3))

    def at(self, step: int, total_steps: int) -> "MovingViews":
        assert total_steps == 8
        return MovingViews(step)

    def left_to_do(self, epoch: int, index: int) -> list[list[float]]:
        return [[epoch, index, view] for view in range(2 + self.shapes[1][0])]

    def __call__(self, image: np.ndarray, epoch: int, index: int, out: list[np.ndarray]) -> None:
        out[0][...] = image
        out[1][...] = image[: out[1].shape[1], : out[1].shape[2]]


@pytest.mark.parametrize("workers", [0, 2])
def test_steps_may_have_views_of_other_numbers_and_sizes(workers: int) -> None:
    loader = pretraining_loader(
        Images(20), MovingViews(), batch_size=6, seed=1, start_step=2, total_steps=8, workers=workers
    )
    fixed = batches(Images(20), start_step=2)
    for step, (batch, other) in enumerate(zip(loader, fixed, strict=True), 2):
        size = 8 - step
        assert [tuple(group.shape) for group in batch.views] == [(2, 6, SIZE, SIZE, 3), (1 + step, 6, size, size, 3)]
        assert [len(rows) for rows in batch.left_to_do] == [2, 1 + step]
        assert torch.equal(batch.indices, other.indices)
        corner = batch.views[0][0, :, :size, :size]
        assert all(torch.equal(view, corner) for view in batch.views[1])


@pytest.mark.parametrize("start", [2, 3, 7, 8])
def test_a_resumed_run_goes_on_with_the_same_batches(start: int) -> None:
    source = Images(20, bad={5})
    assert same(batches(source)[start:], batches(source, start_step=start))


def test_the_seed_decides_the_order() -> None:
    orders = [[batch.indices.tolist() for batch in batches(Images(20), seed=seed)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_the_global_random_state_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    batches(Images(20), workers=1)
    assert torch.equal(before, torch.get_rng_state())


def test_a_bad_image_is_replaced_by_one_that_its_index_decides() -> None:
    source = Images(40, bad={7})
    substitutes = set()
    for seed in range(3):
        for batch in batches(source, batch_size=40, total_steps=1, seed=seed):
            (bad,) = batch.bad
            assert (bad.index, bad.name) == (7, "7.png")
            assert "truncated" in bad.reason
            used, counts = np.unique(batch.indices, return_counts=True)
            assert 7 not in used
            substitutes.add(int(used[counts == 2][0]))
            # Both positions show the same image, and different views of it.
            first, second = np.flatnonzero(batch.indices == used[counts == 2][0])
            assert torch.equal(batch.views[1][:, first], batch.views[1][:, second])
            assert not torch.equal(batch.views[0][:, first], batch.views[0][:, second])
    assert len(substitutes) == 1


def test_a_file_that_went_missing_is_a_bad_image() -> None:
    def vanish(index: int) -> None:
        if index == 2:
            raise FileNotFoundError(2, "No such file or directory")

    bad = [bad for batch in batches(Images(6, act=vanish), total_steps=1) for bad in batch.bad]
    assert [(image.index, image.reason) for image in bad] == [(2, "cannot be read: No such file or directory")]


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_workers_arrive_as_they_are(workers: int) -> None:
    with pytest.raises(DataError) as caught:
        batches(Images(10, bad=set(range(10))), workers=workers)
    message = str(caught.value)
    assert message.startswith("Of 21 images of images tried in a row, none could be used.")
    assert "truncated" in message
    assert "Traceback" not in message


def test_other_errors_of_workers_are_not_hidden() -> None:
    def fail(_: int) -> None:
        raise ZeroDivisionError("a mistake of ours")

    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        batches(Images(10, act=fail), workers=1)


def test_a_killed_worker_gives_a_clear_error() -> None:
    parent = os.getpid()

    def die(index: int) -> None:
        if index == 3 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(DataError, match=r"worker process .* was killed.\n.*data\.workers"), clear_worker_errors():
        batches(Images(12, act=die), workers=1)


def test_what_decoders_print_about_bad_files_stays_in_the_worker(capfd: pytest.CaptureFixture[str]) -> None:
    def noise(_: int) -> None:
        os.write(2, b"Corrupt JPEG data")

    batches(Images(6, act=noise), workers=1)
    assert "Corrupt" not in capfd.readouterr().err


def test_workers_do_not_hang_after_opencv_used_its_threads() -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (0, 0), 5)
        assert len(batches(Images(20), workers=2)) == 8
    finally:
        cv2.setNumThreads(threads)


def test_a_batch_that_does_not_fit_says_both_numbers_and_what_to_set() -> None:
    assert steps_per_epoch(100, 30) == 3
    with pytest.raises(DataError, match=r"batch of 64 .* from 50\.\n.*--set train\.batch_size=32"):
        pretraining_loader(Images(50), Views(), batch_size=64, seed=0, start_step=0, total_steps=1)
    with pytest.raises(DataError, match=r"over 4 processes.\n.*train\.batch_size=12"):
        StepSampler(50, batch_size=10, seed=0, start_step=0, total_steps=1, rank=0, world_size=4)


# Evaluation


def evaluated(loader: EvaluationLoader) -> tuple[torch.Tensor, list[int]]:
    parts = list(loader)
    return torch.cat([images for images, _ in parts]), torch.cat([indices for _, indices in parts]).tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_is_in_order_and_leaves_bad_images_out(workers: int) -> None:
    bad = {0, 1, 2, 3, 6}  # the whole of the first batch of 4
    source = Images(10, bad=bad)
    loader = evaluation_loader(source, size=16, batch_size=4, workers=workers)
    for _ in range(2):
        images, indices = evaluated(loader)
        assert indices == [4, 5, 7, 8, 9]
        assert [image.index for image in loader.bad] == sorted(bad)
    assert images.dtype == torch.uint8
    assert tuple(images.shape) == (5, 16, 16, 3)
    expected = centre_crop(cv2.imdecode(np.frombuffer(source.read(7), np.uint8), cv2.IMREAD_COLOR_RGB), 16)
    np.testing.assert_array_equal(images[2], expected)


def test_evaluation_of_nothing_but_bad_images_is_an_error() -> None:
    with pytest.raises(DataError, match=r"None of the 3 images of images can be used\.\n  0\.png: truncated"):
        list(evaluation_loader(Images(3, bad={0, 1, 2}), size=8, batch_size=2))


@pytest.mark.parametrize(("height", "width"), [(512, 256), (256, 256), (100, 301), (7, 300)])
def test_the_centre_is_cut_from_the_resized_image(height: int, width: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    image[height // 4 : -(height // 4), width // 4 : -(width // 4)] = 255
    crop = centre_crop(image, 224)
    assert crop.shape == (224, 224, 3)
    assert crop.flags.c_contiguous
    assert crop[112, 112].tolist() == [255, 255, 255]
    np.testing.assert_allclose(crop.astype(int), crop[::-1, ::-1], atol=2 if height % 2 == width % 2 == 0 else 255)


def test_the_crop_takes_its_share_of_the_short_side() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 256, axis=0).repeat(3, axis=2)
    assert centre_crop(ramp, 224)[0, [0, -1], 0].tolist() == [16, 239]
    assert centre_crop(ramp, 256, 1.0)[0, [0, -1], 0].tolist() == [0, 255]


# The tally of bad images


def bad_image(index: int) -> BadImage:
    return BadImage(index, f"{index}.png", "truncated")


def test_each_bad_image_is_counted_once() -> None:
    bad = BadImages(1000)
    bad.add([bad_image(1), bad_image(1), bad_image(2)], seen=100)
    bad.add([bad_image(1)], seen=100)
    assert len(bad) == 2
    assert bad.seen == 200


def test_a_run_with_too_many_bad_images_stops_and_says_so() -> None:
    bad = BadImages(1000)
    bad.add(map(bad_image, range(10)), seen=400)
    bad.check(0.025)
    bad.add([bad_image(99)], seen=0)
    with pytest.raises(DataError) as caught:
        bad.check(0.025)
    message = str(caught.value)
    assert message.startswith("11 of the first 400 images could not be used (limit 2.5 %):\n  0.png: truncated\n")
    assert "and 8 more" in message
    assert "skipped.jsonl" in message
    assert "--set data.max_bad_share=0.041" in message


def test_one_bad_image_does_not_stop_a_run_at_its_beginning() -> None:
    bad = BadImages(1000)
    bad.add([bad_image(0), bad_image(1)], seen=8)
    bad.check(0.01)
    bad.add([bad_image(2)], seen=8)
    with pytest.raises(DataError, match="3 of the first 16"):
        bad.check(0.01)


def test_more_epochs_do_not_dilute_the_share() -> None:
    bad = BadImages(100)
    for _ in range(20):
        bad.add(map(bad_image, range(10)), seen=90)
    with pytest.raises(DataError, match="10 of the first 100"):
        bad.check(0.09)


def test_no_bad_images_are_always_few_enough() -> None:
    BadImages(10).check(0.0)


def test_skipped_images_are_listed_once_over_resumed_runs(tmp_path: Path) -> None:
    path = tmp_path / "skipped.jsonl"
    first = BadImages(100)
    first.write(path)
    assert not path.exists()
    first.add([bad_image(1), bad_image(2)], seen=10)
    first.write(path)
    first.add([bad_image(2), bad_image(3)], seen=10)
    first.write(path)
    resumed = BadImages(100)
    resumed.add([bad_image(1), bad_image(4)], seen=10)
    resumed.write(path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["index"] for row in rows] == [1, 2, 3, 4]
    assert rows[0] == {"index": 1, "name": "1.png", "reason": "truncated"}
    resumed.add([bad_image(5)], seen=1)
    with pytest.raises(LightSSLError, match="Cannot write"):
        resumed.write(tmp_path / "missing" / "skipped.jsonl")
