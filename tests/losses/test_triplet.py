"""Semi-hard triplets against a search of every triplet in float64."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightssl.losses.triplet import semi_hard_triplets


def reference(embeddings: Tensor, margin: float) -> Tensor:
    """Look at every pair of views of one image, and at every view of another one."""
    views, images, _ = embeddings.shape
    terms = []
    places = [(view, image) for view in range(views) for image in range(images)]
    for anchor in places:
        others = [embeddings[other] for other in places if other[1] != anchor[1]]
        distances = torch.stack([(embeddings[anchor] - other).square().sum() for other in others])
        for positive in places:
            if positive == anchor or positive[1] != anchor[1]:
                continue
            width = (embeddings[anchor] - embeddings[positive]).square().sum()
            farther = distances[distances > width]
            negative = farther.min() if len(farther) else distances.max()
            terms.append((margin + width - negative).clamp(min=0))
    return torch.stack(terms).mean()


@pytest.mark.parametrize("shape", [(2, 2, 3), (3, 4, 5), (8, 5, 4)])
@pytest.mark.parametrize("margin", [0.5, 2.0])
def test_it_is_the_published_loss(agrees, shape: tuple[int, int, int], margin: float) -> None:
    torch.manual_seed(sum(shape))
    embeddings = normalize(torch.randn(shape), dim=-1)
    agrees(
        lambda tensor: semi_hard_triplets(tensor, margin=margin),
        lambda tensor: reference(tensor, margin),
        embeddings,
    )


def test_images_that_are_apart_cost_nothing() -> None:
    corners = torch.eye(4)[None].expand(3, 4, 4)  # all views of an image in one corner, distance 2 from the others
    assert semi_hard_triplets(corners, margin=0.5) == 0
    assert semi_hard_triplets(corners, margin=2.5) == pytest.approx(0.5)


def test_one_point_for_all_costs_the_margin() -> None:
    point = torch.ones(2, 5, 3) / 3**0.5
    assert semi_hard_triplets(point, margin=0.7) == pytest.approx(0.7, abs=1e-6)


def test_the_order_of_images_and_views_does_not_matter() -> None:
    torch.manual_seed(0)
    embeddings = normalize(torch.randn(4, 6, 8), dim=-1)
    shuffled = embeddings[torch.randperm(4)][:, torch.randperm(6)]
    torch.testing.assert_close(semi_hard_triplets(shuffled), semi_hard_triplets(embeddings))
