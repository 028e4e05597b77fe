"""``finetune`` and ``semi`` on images whose colour is their class."""

import math
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightssl import precision
from lightssl.backbones.base import Backbone, Stage
from lightssl.backbones.vit import ViT
from lightssl.data.sources import Source, Subset
from lightssl.errors import ConfigError, DataError, LightSSLError
from lightssl.evaluation.fine_tuning import FineTuned, LabelledImages, Start, begin
from lightssl.evaluation.finetune import finetune
from lightssl.evaluation.linear_augmented import linear_augmented
from lightssl.evaluation.semi import semi
from lightssl.progress import Silent

CLASSES = ["red", "green", "blue"]
SHORT: dict[str, Any] = {"batch_size": 16, "crop_area": (0.5, 1.0)}


class Coloured:
    """Noise with one colour brighter than the others; of each class as many, in turns."""

    name = "coloured"
    classes = CLASSES

    def __init__(self, count: int, *, shuffled: bool = False) -> None:
        self._colours = np.arange(count) % 3
        self.labels = np.random.default_rng(5).permutation(self._colours) if shuffled else self._colours

    def __len__(self) -> int:
        return len(self.labels)

    def item_name(self, index: int) -> str:
        return f"{CLASSES[self._colours[index]]}/{index}.png"

    def read(self, index: int) -> np.ndarray:
        pixels = np.random.default_rng(index).integers(0, 150, (12, 12, 3), dtype=np.uint8)
        pixels[..., self._colours[index]] += 80
        return pixels


class Flat(Coloured):
    """Images of one colour each: every crop of one is the same."""

    def read(self, index: int) -> np.ndarray:
        return np.broadcast_to(np.random.default_rng(index).integers(0, 256, 3, dtype=np.uint8), (12, 12, 3)).copy()


class Small(Backbone):
    """Two convolutions."""

    feature_width = 8
    stages = (Stage(8, 2),)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)
        )

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        return [self.layers(images)]

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).mean(dim=(2, 3))


def labelled(train: Source, test: Source) -> LabelledImages:
    return LabelledImages(train, test, size=8, crop_share=1.0, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


@pytest.fixture
def start() -> Start:
    torch.manual_seed(0)
    return Start("pre-trained", Small(), nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.GELU()))


@pytest.fixture
def images() -> LabelledImages:
    return labelled(Coloured(120), Subset(Coloured(360), np.arange(300, 360), "unseen"))


def run(task: Any, *args: Any, **options: Any) -> list[FineTuned]:
    return list(task(*args, Silent(), **SHORT, **options))


def weights(module: nn.Module) -> list[Tensor]:
    return [tensor.clone() for tensor in module.state_dict().values()]


def same(some: list[Tensor], others: list[Tensor]) -> bool:
    return len(some) == len(others) and all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def test_finetune_learns_what_can_be_learned(start: Start, images: LabelledImages) -> None:
    (ended,) = run(finetune, start, images, epochs=8, learning_rate=0.02, first_layer_rate=1.0)
    assert ended.result["top1"] > 95
    assert not ended.classifier.training
    assert ended.classifier.classes == CLASSES
    shown = torch.stack([torch.from_numpy(images.test.read(i)[2:10, 2:10]) for i in range(60)]).permute(0, 3, 1, 2)
    named = ended.classifier((shown / 255 - 0.5) / 0.25).argmax(dim=1).numpy()
    assert 100 * np.mean(named == images.test.labels) > 90  # of centres cut otherwise: the logits mean what they say


def test_labels_that_mean_nothing_score_chance(start: Start) -> None:
    images = labelled(Coloured(120, shuffled=True), Coloured(300, shuffled=True))
    (ended,) = run(finetune, start, images, epochs=3, learning_rate=0.02)
    assert 20 < ended.result["top1"] < 47


def test_every_part_learns_and_the_start_stays_as_it_was(start: Start, images: LabelledImages) -> None:
    assert start.head is not None
    before = weights(start.backbone), weights(start.head)
    (ended,) = run(semi, start, images, labels=[0.5], epochs=[2])
    assert same(weights(start.backbone), before[0])
    assert same(weights(start.head), before[1])
    for parameter, old in zip(ended.classifier.backbone.parameters(), start.backbone.parameters(), strict=True):
        assert parameter.ndim == 1 or not torch.equal(parameter, old)  # a bias before batch norm is of no effect
    old_head = list(start.head.parameters())
    assert len(list(ended.classifier.head.parameters())) == len(old_head) + 2
    for parameter, old in zip(ended.classifier.head.parameters(), old_head, strict=False):
        assert parameter.shape == old.shape
        assert parameter.ndim == 1 or not torch.equal(parameter, old)


@pytest.mark.usefixtures("in_float32")
def test_semi_is_sgd_with_nesterov_momentum_along_a_cosine(start: Start, images: LabelledImages) -> None:
    """The whole training, written out in float64: six images in each step, whose crops are all alike."""
    one_colour = labelled(Flat(6), Flat(6))
    (ended,) = run(semi, start, one_colour, labels=[1], epochs=[5], learning_rate=20.0)
    assert ended.result["learning_rate"] == pytest.approx(20 * 6 / 1024)

    network = begin(start, one_colour, seed=0).double().train()
    velocity = [torch.zeros_like(p) for p in network.parameters()]
    pixels = torch.stack([torch.from_numpy(one_colour.train.read(i)[:8, :8]) for i in range(6)]).permute(0, 3, 1, 2)
    x, y = (pixels.double() / 255 - 0.5) / 0.25, torch.arange(6) % 3
    for step in range(5):
        rate = 20 * 6 / 1024 * (1 + math.cos(math.pi * step / 5)) / 2
        network.zero_grad()
        cross_entropy(network(x), y).backward()
        with torch.no_grad():
            for p, v in zip(network.parameters(), velocity, strict=True):
                v.mul_(0.9).add_(p.grad)
                p.sub_(rate * (p.grad + 0.9 * v))
    for got, expected in zip(ended.classifier.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=1e-3, atol=1e-5)


def test_bfloat16_ends_where_float32_does(
    start: Start, images: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = {}
    for native, name in ((False, "32-true"), (True, "bf16-mixed")):
        monkeypatch.setattr(precision, "has_native_bf16", partial(bool, native))
        (ended[name],) = run(semi, start, images, labels=[0.5], epochs=[2])
        assert ended[name].result["precision"] == name
    exact, rounded = (weights(one.classifier) for one in ended.values())
    floating = [pair for pair in zip(exact, rounded, strict=True) if pair[0].is_floating_point()]
    distance = sum((one - other).norm().item() for one, other in floating)
    assert 0 < distance < 0.02 * sum(one.norm().item() for one, _ in floating)
    assert {one.dtype for one in ended["bf16-mixed"].classifier.parameters()} == {torch.float32}


def test_the_state_of_a_training_on_other_images_with_the_same_labels_is_not_gone_on_with(
    start: Start, images: LabelledImages, tmp_path: Path
) -> None:
    some, others = (
        replace(images, train=Subset(Coloured(120), np.arange(first, first + 60), "train"), under_way=tmp_path)
        for first in (0, 60)
    )
    run(finetune, start, some, epochs=1)
    (ended,), (afresh,) = (run(finetune, start, one, epochs=1) for one in (others, replace(others, under_way=None)))
    assert same(weights(ended.classifier), weights(afresh.classifier))


def test_the_seed_decides_all(start: Start, images: LabelledImages) -> None:
    (one,), (same_seed,), (other,) = (
        run(semi, start, images, labels=[0.5], epochs=[2], seed=seed) for seed in (0, 0, 1)
    )
    assert same(weights(one.classifier), weights(same_seed.classifier))
    assert not same(weights(one.classifier), weights(other.classifier))


def test_shares_of_the_labels_are_balanced_and_of_the_seed(start: Start, images: LabelledImages) -> None:
    some, more = run(semi, start, images, labels=[0.1, 0.3], epochs=[1, 1])
    assert np.bincount(np.asarray(some.trained_on.labels)).tolist() == [4, 4, 4]
    assert np.bincount(np.asarray(more.trained_on.labels)).tolist() == [12, 12, 12]
    assert [ended.result["labels"] for ended in (some, more)] == ["10 % of the labels", "30 % of the labels"]
    assert names(some) <= names(more)
    (other,) = run(semi, start, images, labels=[0.1], epochs=[1], seed=1)
    assert names(other) != names(some)


def names(ended: FineTuned) -> set[str]:
    return {ended.trained_on.item_name(index) for index in range(len(ended.trained_on))}


@pytest.mark.parametrize("line", ["{}", "{}\n", "\n{}\n\n"])
def test_labelled_images_can_be_listed(line: str, start: Start, images: LabelledImages, tmp_path: Path) -> None:
    wanted = [images.train.item_name(index) for index in (0, 1, 2, 10, 110)]
    wanted[3] = Path(wanted[3]).name  # without its folder
    (tmp_path / "list.txt").write_text(line.format("\n".join(wanted)))
    (ended,) = run(semi, start, images, images_from=str(tmp_path / "list.txt"))
    assert names(ended) == {images.train.item_name(index) for index in (0, 1, 2, 10, 110)}
    assert ended.result["labels"] == "4.17 % of the labels"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0.png\nelse.png\n", r"1 images of .*list\.txt are not among those of coloured, such as 'else\.png'"),
        ("", r"list\.txt is empty\.\n.*red/0\.png"),
        ("0.png\n1.png\n", r"No image to fine-tune on shows 'blue' of the test set"),
    ],
)
def test_a_list_that_does_not_fit(
    text: str, problem: str, start: Start, images: LabelledImages, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(DataError, match=problem):
        run(semi, start, images, images_from=str(tmp_path / "list.txt"))


def test_there_is_no_such_list(start: Start, images: LabelledImages, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"list\.txt cannot be read"):
        run(semi, start, images, images_from=str(tmp_path / "list.txt"))


def test_fewer_labels_than_classes(start: Start, images: LabelledImages) -> None:
    with pytest.raises(DataError, match=r"1 % of 120 images are 1, fewer than the 3 classes\.\n.*labels=\[0\.03\]"):
        run(semi, start, images, labels=[0.5, 0.01], epochs=[1, 1])


def test_shares_without_epochs(start: Start, images: LabelledImages) -> None:
    with pytest.raises(ConfigError, match=r"semi\.labels has 1 shares and semi\.epochs 2 numbers"):
        run(semi, start, images, labels=[0.5])


def test_a_class_that_is_only_tested(start: Start, images: LabelledImages) -> None:
    red_and_green = Subset(images.train, np.flatnonzero(images.train.labels < 2), "two classes")
    with pytest.raises(DataError, match="No image to fine-tune on shows 'blue'"):
        run(finetune, start, replace(images, train=red_and_green))


def test_a_rate_that_makes_the_loss_infinite(start: Start, images: LabelledImages) -> None:
    with pytest.raises(LightSSLError, match=r"The loss of step [\d,]+ of the training is (nan|inf)\.\n.*learning_rate"):
        run(semi, start, images, labels=[1], epochs=[40], learning_rate=1e30)


@pytest.mark.usefixtures("in_float32")
def test_a_linear_layer_on_crops_is_lars_on_a_frozen_network(start: Start) -> None:
    """The whole training, written out in float64, as above."""
    one_colour = labelled(Flat(6), Flat(6))
    before = weights(start.backbone)
    (ended,) = run(linear_augmented, start, one_colour, epochs=4, learning_rate=3.0)
    assert same(weights(start.backbone), before)
    assert same(weights(ended.classifier.backbone), before)  # batch norm too
    assert ended.result["learning_rate"] == pytest.approx(3 * 6 / 256)

    layer = begin(start._replace(head=None), one_colour, seed=0).head[-1].double()
    pixels = torch.stack([torch.from_numpy(one_colour.train.read(i)[:8, :8]) for i in range(6)]).permute(0, 3, 1, 2)
    with torch.no_grad():
        x = deepcopy(start.backbone).double().eval()((pixels.double() / 255 - 0.5) / 0.25)
    velocity = [torch.zeros_like(p) for p in layer.parameters()]
    for step in range(4):
        layer.zero_grad()
        cross_entropy(layer(x), torch.arange(6) % 3).backward()
        rate = 3 * 6 / 256 * (1 + math.cos(math.pi * step / 4)) / 2
        with torch.no_grad():
            for p, v in zip(layer.parameters(), velocity, strict=True):
                trust = 0.001 * p.norm() / p.grad.norm() if p.ndim > 1 else 1
                v.mul_(0.9).add_(trust * p.grad)
                p.sub_(rate * v)
    for got, expected in zip(ended.classifier.head.parameters(), layer.parameters(), strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-6)


def test_a_linear_layer_on_a_transformer_sees_several_blocks(images: LabelledImages) -> None:
    start = Start("pre-trained", ViT(topology="64x5-h1m1", patch=4, image_size=8), None)
    (ended,) = run(linear_augmented, start, images, epochs=1)
    assert ended.classifier.head[-1].in_features == 4 * 64
    assert ended.result["learning_rate"] == pytest.approx(0.01 * 16 / 256)


def test_images_that_cannot_be_used_are_counted(start: Start) -> None:
    class Holes(Coloured):
        def read(self, index: int) -> np.ndarray:
            if index in (3, 50):
                raise OSError("gone")
            return super().read(index)

    class Listener(Silent):
        said: ClassVar[list[str]] = []

        def say(self, text: str) -> None:
            self.said.append(text)

    (ended,) = finetune(start, labelled(Holes(60), Holes(30)), Listener(), epochs=3, **SHORT)
    assert Listener.said == [
        "2 training images could not be used; others took their place.",
        "1 of 30 test images cannot be used, and are left out.",
    ]
    assert (ended.result["train_images"], ended.result["test_images"]) == (60, 29)
