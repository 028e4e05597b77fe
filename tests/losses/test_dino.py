"""DINO's targets against the formula written out in float64."""

import numpy as np
import pytest
import torch

from lightssl.losses.dino import dino_targets


@pytest.mark.parametrize("temperature", [0.04, 0.07, 0.3])
@pytest.mark.parametrize(("images", "prototypes"), [(1, 2), (5, 17)])
def test_targets_are_centred_and_sharpened(temperature: float, images: int, prototypes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(2, images, prototypes, generator=generator) * 2 - 1
    center = torch.randn(prototypes, generator=generator) * 0.1
    targets = dino_targets(scores, center, temperature).numpy()
    for view in range(2):
        for image in range(images):
            powers = np.exp((scores[view, image].double().numpy() - center.double().numpy()) / temperature)
            np.testing.assert_allclose(targets[view, image], powers / powers.sum(), rtol=1e-5, atol=1e-7)


def test_a_centre_of_one_row_is_the_same() -> None:
    scores, center = torch.randn(2, 3, 5), torch.randn(5)
    assert torch.equal(dino_targets(scores, center, 0.1), dino_targets(scores, center[None], 0.1))


def test_half_precision_scores_give_full_precision_targets() -> None:
    assert dino_targets(torch.zeros(2, 3, 8, dtype=torch.bfloat16), torch.zeros(8), 0.04).dtype == torch.float32


def test_no_gradient_reaches_the_teacher() -> None:
    teacher = torch.randn(2, 3, 8, requires_grad=True)
    assert not dino_targets(teacher, torch.zeros(8), 0.04).requires_grad
