from math import isnan, nan, sqrt

import pytest
import torch

from lightssl.collapse import effective_rank, feature_std


def test_effective_rank_of_one_direction_is_1():
    features = torch.outer(torch.linspace(-2, 3, 20), torch.randn(8))
    assert effective_rank(features) == pytest.approx(1, abs=1e-4)


def test_effective_rank_of_orthonormal_features_is_their_width():
    basis, _ = torch.linalg.qr(torch.randn(40, 16, dtype=torch.float64))
    assert effective_rank(basis) == pytest.approx(16, rel=1e-5)


def test_effective_rank_follows_the_entropy_of_the_singular_values():
    # Shares 1/2, 1/4, 1/4: entropy 1.5 ln 2.
    assert effective_rank(torch.diag(torch.tensor([2.0, 1.0, 1.0]))) == pytest.approx(2**1.5)


@pytest.mark.parametrize("scale", [1e-3, 7.0])
def test_indicators_do_not_depend_on_the_scale_of_features(scale):
    features = torch.randn(32, 8)
    assert effective_rank(scale * features) == pytest.approx(effective_rank(features), rel=1e-4)
    assert feature_std(scale * features) == pytest.approx(feature_std(features), rel=1e-4)


def test_indicators_survive_zero_and_non_finite_features():
    assert effective_rank(torch.zeros(4, 3)) == 0
    assert feature_std(torch.zeros(4, 3)) == 0
    assert isnan(effective_rank(torch.tensor([[1.0, nan]])))
    assert isnan(feature_std(torch.tensor([[1.0, nan], [1.0, 2.0]])))


def test_feature_std_is_0_when_collapsed_and_1_when_isotropic():
    generator = torch.Generator().manual_seed(0)
    assert feature_std(torch.ones(64, 128)) == pytest.approx(0, abs=1e-6)
    assert feature_std(torch.randn(4096, 128, generator=generator)) == pytest.approx(1, abs=0.01)


def test_feature_std_of_two_opposite_directions():
    # Normalised, one dimension is +-1 (standard deviation 1) and three are constant 0: mean 1/4, times sqrt(4).
    features = torch.tensor([[3.0, 0, 0, 0], [-5.0, 0, 0, 0]])
    assert feature_std(features) == pytest.approx(0.25 * sqrt(4))
