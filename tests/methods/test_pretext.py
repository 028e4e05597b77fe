"""The classic pretext tasks: their labels and their geometry."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightssl.backbones.resnet import ResNet18
from lightssl.config.load import load_recipe
from lightssl.errors import ConfigError
from lightssl.methods.exemplar import Exemplar
from lightssl.methods.jigsaw import Jigsaw, far_orders
from lightssl.methods.patches import CELLS, GRID, PatchMethod, cut_patches, standardised
from lightssl.methods.relative_patch import AROUND, RelativePatch
from lightssl.methods.rotation import Rotation, rotations
from lightssl.types import Clock

CLOCK = Clock(0, 10, 5, 4)
ONE = (1.0, 0.0)
SMALL = {"width": 8, "hidden": 16, "patch": 9}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def images(batch: int = 4, size: int = 33) -> Tensor:
    return torch.rand(1, batch, 3, size, size)


class Told(nn.Module):
    """Keeps what it is given, and answers with as many logits as there are classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, inputs: Tensor) -> Tensor:
        self.given = inputs
        return torch.arange(self.classes, dtype=torch.float32).expand(len(inputs), -1) + 0 * inputs.sum()


# ------------------------------------------------------------------------------------------------------------ rotation


def test_views_are_turned_by_all_four_quarters() -> None:
    views = torch.rand(2, 3, 3, 5, 5)
    turned = rotations(views)
    assert turned.shape == (8, 3, 3, 5, 5)
    for turn in range(4):
        expected = np.rot90(views.numpy(), turn, axes=(-2, -1))
        np.testing.assert_array_equal(turned[2 * turn : 2 * turn + 2].numpy(), expected)


def test_every_turn_has_its_own_label_in_one_batch() -> None:
    method = Rotation(ResNet18(), ONE).train()
    seen: dict[str, Tensor] = {}
    method.network.backbone.register_forward_hook(lambda module, given, output: seen.update(given=given[0]))
    method.network.head = Told(4)
    views = [torch.rand(2, 3, 3, 32, 32)]
    output = method.step(views, CLOCK)
    torch.testing.assert_close(seen["given"], rotations(views[0]).flatten(0, 1))  # once, all together
    labels = torch.arange(4).repeat_interleave(2 * 3)
    logits = torch.arange(4.0).expand(len(labels), -1)
    torch.testing.assert_close(output.loss, cross_entropy(logits, labels))
    assert output.logs["pretext_top1"] == 25.0  # the last turn is always named
    assert output.features.shape == (3, 512)


def test_a_network_that_sees_which_way_is_up_names_every_turn() -> None:
    method = Rotation(ResNet18(), ONE)
    bright = torch.zeros(1, 6, 3, 8, 8)
    bright[..., :2, :] = 1.0  # at the top; a turn to the left brings it there, to the bottom, and to the right

    class Sides(nn.Module):
        def forward(self, views: list[Tensor]) -> tuple[Tensor, Tensor]:
            (group,) = views
            sides = [group[..., :2, :], group[..., :, :2], group[..., -2:, :], group[..., :, -2:]]
            logits = torch.stack([side.mean(dim=(-3, -2, -1)) for side in sides], dim=-1)
            return logits, 100 * logits

    method.network = Sides()  # type: ignore[assignment]
    assert method.step([bright], CLOCK).logs["pretext_top1"] == 100.0


# ------------------------------------------------------------------------------------------------------------- patches


def where_from(size: int) -> Tensor:
    """An image whose pixels say where they are: row and column, and 1."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.stack([rows, columns, torch.ones_like(rows)]).float()


@pytest.mark.parametrize(("size", "side"), [(33, 9), (255, 64), (32, 8), (35, 1)])
def test_patches_lie_inside_their_cells_wherever_there_is_room(
    size: int, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightssl.methods.patches.standardised", lambda patches: patches)
    cell = size // GRID
    met: list[set[tuple[int, int]]] = [set() for _ in range(CELLS)]
    for _ in range(20):
        patches = cut_patches(where_from(size).expand(16, -1, -1, -1), side)
        assert patches.shape == (CELLS, 16, 3, side, side)
        first = patches[:, :, :2, 0, 0]
        # Each is a whole piece of the image, not moved or mirrored inside.
        within = where_from(side)[:2]
        assert torch.equal(patches[:, :, :2], first[..., None, None] + within)
        for number in range(CELLS):
            corner = torch.tensor([number // GRID, number % GRID]) * cell
            offsets = (first[number] - corner).int()
            assert (offsets >= 0).all()
            assert (offsets <= cell - side).all()
            met[number] |= {tuple(offset) for offset in offsets.tolist()}
    for places in met:  # images are moved apart from each other, down and to the right apart, all over the room
        rows, columns = ({place[axis] for place in places} for axis in range(2))
        assert min(len(rows), len(columns)) >= min(12, cell - side + 1)
        assert len(places) > len(rows)


def test_patches_without_room_are_the_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightssl.methods.patches.standardised", lambda patches: patches)
    patches = cut_patches(where_from(32)[None], 10)
    corners = patches[:, 0, :2, 0, 0].int().tolist()
    assert corners == [[row, column] for row in (0, 10, 20) for column in (0, 10, 20)]


def test_patches_have_no_mean_and_no_deviation() -> None:
    patches = cut_patches(50 + 20 * images(8)[0], 9)
    torch.testing.assert_close(patches.mean(dim=(-3, -2, -1)), torch.zeros(CELLS, 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(patches.std(dim=(-3, -2, -1), correction=0), torch.ones(CELLS, 8))
    torch.testing.assert_close(standardised(3 * patches + 7), patches)
    flat = torch.full((CELLS, 2, 3, 9, 9), 5.0)
    assert not standardised(flat).any()


def test_a_patch_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Patches of 12 pixels do not fit .* which have 11"):
        cut_patches(images()[0], 12)


def with_known_embeddings(method: PatchMethod, monkeypatch: pytest.MonkeyPatch, batch: int) -> Tensor:
    """Have the embedding of a patch say which image and which cell it is of."""
    embeddings = torch.stack(
        [torch.stack([torch.tensor([image, cell]).float() for image in range(batch)]) for cell in range(CELLS)]
    )
    monkeypatch.setattr(method, "embed", lambda views: (embeddings, embeddings))
    return embeddings


def test_all_eight_neighbours_are_compared_with_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    method = RelativePatch(ResNet18(), ONE, **SMALL)
    with_known_embeddings(method, monkeypatch, batch=3)
    told = method.classifier = Told(8)  # type: ignore[assignment]
    output = method.step([images(3)], CLOCK)
    image, around, other, middle = told.given.T.int().tolist()
    assert set(middle) == {4}
    assert image == other  # of one image
    assert sorted(set(around)) == [0, 1, 2, 3, 5, 6, 7, 8]
    # Of each pair, the label is the place of the first patch: from the left to the right and from the top down.
    labels = torch.tensor([AROUND.index(cell) for cell in around])
    assert labels.bincount().tolist() == [3] * 8
    torch.testing.assert_close(output.loss, cross_entropy(torch.arange(8.0).expand(24, -1), labels))
    assert output.logs["pretext_top1"] == pytest.approx(100 / 8)


def test_images_are_laid_in_orders_of_the_set(monkeypatch: pytest.MonkeyPatch) -> None:
    method = Jigsaw(ResNet18(), ONE, orders=20, shown=5, **SMALL)
    with_known_embeddings(method, monkeypatch, batch=3)
    told = method.classifier = Told(20)  # type: ignore[assignment]
    seen = set()
    for _ in range(20):
        output = method.step([images(3)], CLOCK)
        laid = told.given.view(5, 3, CELLS, 2).int()
        assert torch.equal(laid[..., 0], torch.arange(3)[None, :, None].expand(5, 3, CELLS).int())  # of one image
        orders = laid[:, 0, :, 1].tolist()
        assert (laid[..., 1] == laid[:, :1, :, 1]).all()  # every image in the same ones
        labels = [method.orders.tolist().index(order) for order in orders]
        assert len(set(labels)) == 5
        seen |= set(labels)
        targets = torch.tensor(labels).repeat_interleave(3)
        torch.testing.assert_close(output.loss, cross_entropy(torch.arange(20.0).expand(15, -1), targets))
    assert len(seen) > 15  # others in each step


def test_a_hundred_orders_are_far_from_each_other() -> None:
    orders = far_orders(100)
    assert orders.shape == (100, CELLS)
    assert (np.sort(orders, axis=1) == np.arange(CELLS)).all()
    assert orders[0].tolist() == list(range(CELLS))
    apart = (orders[:, None] != orders[None]).sum(axis=-1)[np.triu_indices(100, 1)]
    rng = np.random.default_rng(0)
    drawn = np.array([rng.permutation(CELLS) for _ in range(100)])
    of_drawn = (drawn[:, None] != drawn[None]).sum(axis=-1)[np.triu_indices(100, 1)]
    assert apart.min() == 6
    assert of_drawn.min() < 6
    assert apart.mean() > of_drawn.mean()
    np.testing.assert_array_equal(far_orders(10), orders[:10])  # the rule is greedy


def test_each_order_is_the_farthest_there_was() -> None:
    orders = far_orders(6)
    from itertools import permutations

    every = np.array(list(permutations(range(CELLS))))
    for count in range(1, 6):
        distances = (every[:, None] != orders[None, :count]).sum(axis=-1)
        nearest = distances.min(axis=1)
        chosen = (orders[count] != orders[:count]).sum(axis=-1)
        assert chosen.min() == nearest.max()
        assert chosen.sum() == distances.sum(axis=1)[nearest == nearest.max()].max()


def test_orders_are_kept_with_the_weights_and_are_not_endless() -> None:
    assert torch.equal(Jigsaw(ResNet18(), ONE, orders=10, **SMALL).state_dict()["orders"], torch.tensor(far_orders(10)))
    with pytest.raises(ConfigError, match="Nine patches have 362,880 orders"):
        far_orders(400_000)


# ----------------------------------------------------------------------------------------------------------------- all


METHODS: dict[str, Any] = {
    "rotation": lambda: Rotation(ResNet18(), ONE),
    "exemplar": lambda: Exemplar(ResNet18(), ONE, width=8),
    "relative_patch": lambda: RelativePatch(ResNet18(), ONE, **SMALL),
    "jigsaw": lambda: Jigsaw(ResNet18(), ONE, orders=10, **SMALL),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_parameter_learns_and_a_step_is_repeatable(name: str) -> None:
    method = METHODS[name]().train()
    views = [torch.rand(3 if name == "exemplar" else 1, 4, 3, 33, 33)]
    torch.manual_seed(1)
    first = method.step(views, CLOCK)
    first.loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in method.parameters())
    assert first.features.shape == (4, 512)
    assert not first.features.requires_grad
    torch.manual_seed(1)
    assert method.step(views, CLOCK).loss == first.loss
    torch.manual_seed(2)
    drawn_anew = method.step(views, CLOCK).loss != first.loss
    assert bool(drawn_anew) == (name in ("relative_patch", "jigsaw"))


@pytest.mark.parametrize("name", METHODS)
def test_what_can_be_seen_is_learned(name: str) -> None:
    """Images of a sky that is brighter to the top and bluer to the right, each with a colour of its own."""
    torch.manual_seed(0)
    method = METHODS[name]().train()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.002 if name == "exemplar" else 0.02, momentum=0.9)
    height, width = torch.meshgrid(torch.linspace(2, 0, 33), torch.linspace(0, 2, 33), indexing="ij")
    sky = torch.stack([height + width.square(), height * width, width])
    losses = []
    for step in range(30):
        torch.manual_seed(step)
        colours = torch.randn(12, 3, 1, 1)
        views = sky * (1 + colours) + 0.1 * torch.randn(3 if name == "exemplar" else 1, 12, 3, 33, 33)
        output = method.step([views], CLOCK)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_tasks_that_compare_views_want_two() -> None:
    assert load_recipe("resnet18_rotation").views.global_.count == 1
    with pytest.raises(ConfigError, match=r"views.global.count: dino compares global views: it needs 2 at least"):
        load_recipe("resnet18_dino", overrides=["views.global.count=1"])
    with pytest.raises(ConfigError, match="exemplar compares global views"):
        load_recipe("resnet18_exemplar", overrides=["views.global.count=1"])


def test_exemplar_wants_two_images() -> None:
    with pytest.raises(ConfigError, match="it needs two"):
        METHODS["exemplar"]().check(Clock(0, 10, 5, 1))
