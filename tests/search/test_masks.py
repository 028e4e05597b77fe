"""The whole supernet under masks computes what the candidate computes, with a gradient for every choice."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightssl.layers import use_training_layers
from lightssl.search.spaces import SPACES, Space
from lightssl.search.supernet import Supernet
from tests.search.test_supernet import candidates


def draw(size: int = 32, *, images: int = 4) -> Tensor:
    return torch.randn(images, 3, size, size, generator=torch.Generator().manual_seed(0)).double()


def build(space: Space, options: dict[str, Any]) -> Supernet:
    """Batch norm and layer norm with weights and biases of their own, so that nothing hides behind 0 and 1."""
    torch.manual_seed(0)
    supernet = Supernet(space, **options).double()
    with torch.no_grad():
        for module in supernet.modules():
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0.0, 0.5)
    supernet.train()(draw())
    return supernet


def one_hot(space: Space, genes: np.ndarray) -> list[Tensor]:
    """Gates that choose a candidate."""
    return [torch.eye(size, dtype=torch.float64)[gene] for size, gene in zip(space.gene_sizes, genes, strict=True)]


def compare(supernet: Supernet, space: Space, genes: np.ndarray, size: int) -> None:
    for training in (True, False):
        supernet.train(training)
        supernet.activate(space.decode(genes))
        with torch.no_grad():
            expected, maps = supernet(draw(size)), supernet.feature_maps(draw(size))
        supernet.choose(one_hot(space, genes))
        before = {name: buffer.clone() for name, buffer in supernet.named_buffers()}
        torch.testing.assert_close(supernet(draw(size)), expected, rtol=1e-9, atol=1e-9)
        for ours, theirs in zip(supernet.feature_maps(draw(size)), maps, strict=True):
            torch.testing.assert_close(ours[:, : theirs.shape[1]], theirs, rtol=1e-9, atol=1e-9)
            assert not ours[:, theirs.shape[1] :].any()
        assert all(torch.equal(buffer, before[name]) for name, buffer in supernet.named_buffers())


@pytest.mark.parametrize("size", [32, 45])
def test_masks_make_a_candidate_of_the_largest(small: tuple[Space, dict[str, Any]], size: int) -> None:
    space, options = small
    supernet = build(space, options)
    for candidate in candidates(space, count=5):
        compare(supernet, space, space.encode(candidate), size)


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("stem", ["standard", "small"])
def test_masks_make_candidates_of_the_real_spaces(name: str, stem: str) -> None:
    space = SPACES[name]
    supernet = build(space, {} if name == "vit" else {"stem": stem})
    for genes in space.sample(np.random.default_rng(0), 2):
        compare(supernet, space, genes, 32)


def gradients(supernet: Supernet, gates: list[Tensor], *, size: int = 32) -> list[Tensor]:
    leaves = [gate.clone().requires_grad_() for gate in gates]
    supernet.choose(leaves)
    weighted_sum(supernet(draw(size))).backward()
    return [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]


def weighted_sum(features: Tensor) -> Tensor:
    """Differs for each image and channel, so that nothing cancels out."""
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (features * weights).sum()


def middle(space: Space) -> np.ndarray:
    """A candidate that is neither the smallest nor the largest where there is one in between."""
    genes: np.ndarray = (space.gene_sizes - 1) // 2
    return genes


def test_gradients_are_those_of_gates_in_between(small: tuple[Space, dict[str, Any]]) -> None:
    """Central differences of what gates of every size compute."""
    space, options = small
    supernet = build(space, options)
    gates = one_hot(space, middle(space))
    found = gradients(supernet, gates)
    step = 1e-6

    def at(gene: int, choice: int, change: float) -> float:
        moved = [gate.clone() for gate in gates]
        moved[gene][choice] += change
        supernet.choose(moved)
        with torch.no_grad():
            return weighted_sum(supernet(draw())).item()

    for gene, gradient in enumerate(found):
        for choice, value in enumerate(gradient.tolist()):
            expected = (at(gene, choice, step) - at(gene, choice, -step)) / (2 * step)
            assert value == pytest.approx(expected, rel=1e-4, abs=1e-5), (gene, choice)


def test_every_choice_that_matters_has_a_gradient(small: tuple[Space, dict[str, Any]]) -> None:
    """Also those that were not made; of what follows the last block of a stage, none has."""
    space, options = small
    genes = middle(space)
    # Of smaller images, the last maps are a single position, of which every kernel makes the same.
    found = gradients(build(space, options), one_hot(space, genes), size=128)
    for stage, at in zip(space.stages, space.columns, strict=True):
        assert (found[at.width] != 0).all()
        if len(stage.depths) > 1:
            assert (found[at.depth] != 0).all()
        for position in range(stage.depths[-1]):
            gradient = found[at.blocks.start + position]
            if position >= stage.depths[genes[at.depth]]:
                assert (gradient == 0).all()
            elif len(stage.blocks) > 1:
                assert len(gradient.unique()) == len(gradient)  # the choices are told apart


@pytest.mark.parametrize("name", ["resnet_basic", "resnet_bottleneck"])
def test_the_gradient_of_a_depth_is_what_a_network_of_that_depth_computes(
    name: str, small_spaces: dict[str, tuple[Space, dict[str, Any]]]
) -> None:
    """In the last stage, where features are linear in it: beside networks that have that depth."""
    space, options = small_spaces[name]
    supernet = build(space, options)
    genes, depth = middle(space), space.columns[-1].depth
    found = gradients(supernet, one_hot(space, genes))[depth]
    for choice in range(len(found)):
        supernet.activate(space.decode(np.where(np.arange(len(genes)) == depth, choice, genes)))
        assert found[choice].item() == pytest.approx(weighted_sum(supernet(draw())).item(), rel=1e-9)


def test_they_work_with_the_faster_layers_and_smaller_precision_of_training(
    small: tuple[Space, dict[str, Any]],
) -> None:
    space, options = small
    supernet = build(space, options).float()
    use_training_layers(supernet, torch.device("cpu"))
    genes = middle(space)
    gates = [gate.float().requires_grad_() for gate in one_hot(space, genes)]
    with torch.autocast("cpu", torch.bfloat16):
        supernet.choose(gates)
        features = supernet(draw().float())
        supernet.activate(space.decode(genes))
        expected = supernet(draw().float())
    torch.testing.assert_close(features, expected, rtol=0.1, atol=0.1)
    features.float().square().sum().backward()
    width = gates[space.columns[-1].width].grad
    assert width is not None
    assert width.isfinite().all()
    assert (width != 0).all()


def test_another_candidate_takes_the_place_of_the_gates(small: tuple[Space, dict[str, Any]]) -> None:
    space, options = small
    supernet = build(space, options).eval()
    supernet.activate(space.largest)
    expected = supernet(draw())
    supernet.choose(one_hot(space, middle(space)))
    assert not torch.equal(supernet(draw()), expected)
    supernet.activate(space.largest)
    assert torch.equal(supernet(draw()), expected)
