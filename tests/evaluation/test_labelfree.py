import math

import pytest
import torch
from torch import Tensor

from lightssl.errors import DataError
from lightssl.evaluation.labelfree import alignment, label_free_measures, spectral_decay, uniformity


def rows(count: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
def test_alpha_is_that_of_a_power_law(alpha: float) -> None:
    orthogonal = torch.linalg.qr(rows(400, 200).double() - rows(400, 200).double().mean(dim=0))[0]
    spectrum = torch.arange(1, 201, dtype=torch.float64) ** (-alpha / 2)
    rotation = torch.linalg.qr(rows(200, 200, seed=1).double())[0]
    assert spectral_decay(orthogonal * spectrum @ rotation + 3.0) == pytest.approx(alpha, abs=1e-6)


def test_alpha_is_a_weighted_least_squares_fit() -> None:
    features = rows(500, 60) @ rows(60, 60, seed=1)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(features.double().T, correction=0)).flip(0)[5:40]
    number = torch.arange(6, 41, dtype=torch.float64)
    design = torch.stack([number.log(), torch.ones_like(number)], dim=1) / number.sqrt()[:, None]
    slope = torch.linalg.lstsq(design, (eigenvalues.log() / number.sqrt())[:, None]).solution[0, 0]
    assert spectral_decay(features, first=5, last=40) == pytest.approx(-slope.item())


def test_alpha_needs_directions() -> None:
    assert spectral_decay(rows(100, 3) @ rows(3, 50, seed=1)) is None


def test_alignment_and_uniformity_are_the_published_formulas() -> None:
    views, features = torch.stack([rows(40, 5), rows(40, 5, seed=1)]), rows(37, 5, seed=2)
    one, other, unit = (x.double() / x.double().norm(dim=1, keepdim=True) for x in (*views, features))
    assert alignment(views) == pytest.approx((one - other).norm(dim=1).pow(2).mean().item())
    expected = torch.pdist(unit, p=2).pow(2).mul(-2).exp().mean().log().item()
    assert uniformity(features) == pytest.approx(expected)


def test_they_are_0_for_features_that_do_not_change() -> None:
    same = torch.ones(2, 20, 4)
    assert alignment(same) == pytest.approx(0)
    assert uniformity(same[0]) == pytest.approx(0)


def test_uniformity_of_many_images_is_that_of_chunks_together() -> None:
    features = rows(2500, 3)
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    assert uniformity(features) == pytest.approx(torch.pdist(unit).pow(2).mul(-2).exp().mean().log().item())


def test_measures_do_not_depend_on_the_length_of_features() -> None:
    features, views = rows(200, 30).abs(), torch.stack([rows(50, 30), rows(50, 30, seed=1)])
    some, others = label_free_measures(features, views), label_free_measures(7 * features, 7 * views)
    assert all(some[name] == pytest.approx(others[name], rel=1e-4) for name in some)
    assert 1 < some["rank"] <= 30
    assert some["images"] == 200


@pytest.mark.parametrize(
    ("features", "problem"), [(rows(5, 4), "There are 5 images"), (rows(50, 4) * math.nan, "not finite")]
)
def test_features_that_say_nothing(features: Tensor, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        label_free_measures(features, torch.stack([features, features]))
