"""Candidates are texts that read as they were written, and whatever is drawn stays in its space."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lightssl.backbones import BACKBONES
from lightssl.config.load import load_recipe
from lightssl.errors import ConfigError
from lightssl.pipeline import build_backbone
from lightssl.search.spaces import SPACES, Candidate, parse_candidate

STOCK = [
    ("mobilenetv2", "16x1-k3e1 24x2-k3e6 32x3-k3e6 64x4-k3e6 96x3-k3e6 160x3-k3e6 320x1-k3e6", "mobilenetv2"),
    ("resnet_basic", "64x2 128x2 256x2 512x2", "resnet18"),
    ("resnet_basic", "64x3 128x4 256x6 512x3", "resnet34"),
    ("resnet_bottleneck", "64x3 128x4 256x6 512x3", "resnet50"),
    ("vit", "192x12-h3m4", "vit_tiny"),
]


@pytest.mark.parametrize(("name", "topology", "stock"), STOCK, ids=lambda value: value.split()[0])
def test_stock_networks_are_members(name: str, topology: str, stock: str) -> None:
    candidate = parse_candidate(f"{name}@224 {topology}")
    assert str(candidate) == f"{name}@224 {topology}"
    with torch.device("meta"):
        ours, theirs = SPACES[name].build(candidate), BACKBONES[stock]()
    shapes = [{key: tensor.shape for key, tensor in network.state_dict().items()} for network in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert (ours.stages, ours.feature_width) == (theirs.stages, theirs.feature_width)


def test_published_variants_are_members() -> None:
    """The grids of One Network Doesn't Rule Them All (arXiv 2203.08130)."""
    for depths in product((2, 3, 4), repeat=4):
        topology = " ".join(f"{width}x{depth}" for width, depth in zip((64, 128, 256, 512), depths, strict=True))
        for name in ("resnet_basic", "resnet_bottleneck"):
            assert SPACES[name].candidate(topology, 224).topology == topology
    for a, b, c, d, e in product((2, 3), (3, 4), (4, 5), (3, 4), (3, 4)):
        topology = f"16x1-k3e1 24x{a}-k3e6 32x{b}-k3e6 64x{c}-k3e6 96x{d}-k3e6 160x{e}-k3e6 320x1-k3e6"
        assert SPACES["mobilenetv2"].candidate(topology, 224).topology == topology


@pytest.mark.parametrize("name", SPACES)
def test_texts_and_genes_of_random_candidates_read_as_they_were_written(name: str) -> None:
    space = SPACES[name]
    genes = space.sample(np.random.default_rng(0), 200)
    for row in genes:
        candidate = space.decode(row)
        assert parse_candidate(str(candidate)) == candidate
        np.testing.assert_array_equal(space.encode(candidate), row)
    assert len({str(space.decode(row)) for row in genes}) == len(np.unique(genes, axis=0))
    for candidate in (space.smallest, space.largest):
        assert parse_candidate(str(candidate)) == candidate


def test_a_candidate_has_one_spelling() -> None:
    assert parse_candidate(" vit@224 192x8" + 8 * "-h3m4") == Candidate("vit", 224, "192x8-h3m4")


@pytest.mark.parametrize("name", SPACES)
def test_what_is_drawn_stays_in_the_space(name: str) -> None:
    space = SPACES[name]
    generator = np.random.default_rng(1)
    first, second = space.sample(generator, 300), space.sample(generator, 300)
    mutants = space.mutate(generator, first, rate=0.2)
    children = space.cross(generator, first, second)
    larger = np.arange(300) % 2 == 0
    steps = space.step(generator, first, larger)
    for drawn in (first, mutants, children, steps):
        for row in drawn:
            np.testing.assert_array_equal(space.encode(space.decode(row)), row)
    assert (mutants != first).any(axis=1).mean() > 0.5
    np.testing.assert_array_equal(space.mutate(generator, first, rate=0.0), first)
    for columns in space.columns:
        for choice in (columns.width, columns.depth):
            assert (steps[larger, choice] >= first[larger, choice]).all()
            assert (steps[~larger, choice] <= first[~larger, choice]).all()
        stage = slice(columns.width, columns.blocks.stop)
        of_first, of_second = ((children[:, stage] == parent[:, stage]).all(axis=1) for parent in (first, second))
        assert (of_first | of_second).all()
        assert min(of_first.mean(), of_second.mean()) > 0.3
    assert all(len(np.unique(first[:, 1 + at])) > 1 for at in np.flatnonzero(space.gene_sizes[1:] > 1))


def test_equal_seeds_draw_equal_candidates() -> None:
    space = SPACES["mobilenetv2"]
    draws = [space.sample(np.random.default_rng(seed), 5) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mobilenet@224 16x1-k3e1", "Did you mean 'mobilenetv2'"),
        ("vit 192x12-h3m4", "looks like 'vit@224 128x8-h2m2'"),
        ("vit@225 192x12-h3m4", "225 is not an input size in this space.\nThere are: 224."),
        ("vit@224 200x12-h3m4", "200 is not a width of stage 1 in this space.\nThere are: 128, 160, 192, 224, 256."),
        ("vit@224 192x7-h3m4", "7 is not a depth of stage 1"),
        ("vit@224 192x12-h3m5", "h3m5 is not a block of stage 1 in this space.\nThere are: h2m2, h2m3"),
        ("vit@224 192x12-k3e6", "not a stage of a topology"),
        ("resnet_basic@224 64x2 128x2", "2 stages instead of 4"),
    ],
)
def test_what_is_no_candidate_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_candidate(text)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", SPACES)
def test_a_candidate_goes_through_a_recipe_and_back(name: str, tmp_path: Path) -> None:
    space = SPACES[name]
    candidate = space.decode(space.sample(np.random.default_rng(2), 1)[0])
    options = {"patch": 8} if name == "vit" else {"stem": "small"}
    path = tmp_path / "winner.yaml"
    path.write_text(yaml.safe_dump({"extends": "mobilenetv2_dino", **space.recipe(candidate, **options)}))
    recipe = load_recipe(str(path))
    assert space.candidate(recipe.backbone.topology, recipe.evaluation.image_size) == candidate
    assert recipe.views.global_.size == candidate.image_size
    with torch.device("meta"):
        built, expected = build_backbone(recipe), space.build(candidate, **options)
    assert repr(built) == repr(expected)


def test_a_space_can_be_narrowed_to_one_input_size() -> None:
    space = replace(SPACES["mobilenetv2"], image_sizes=(160,))
    sizes = {space.decode(row).image_size for row in space.sample(np.random.default_rng(0), 20)}
    assert sizes == {160}
    assert SPACES["mobilenetv2"].largest.image_size == 224
