import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from lightssl.evaluation.logistic_regression import fit_classifiers

WEIGHT_DECAYS = [1.0, 0.03, 0.001]


@pytest.fixture(params=["plain", "ill-conditioned", "more dimensions than images"])
def problem(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    """Features and labels of three classes, standardised."""
    generator = torch.Generator().manual_seed(5)
    count, width = (40, 64) if request.param.startswith("more") else (600, 24)
    labels = torch.arange(count) % 3
    x = torch.randn(count, width, generator=generator)
    x[:, :3] += 2 * torch.nn.functional.one_hot(labels, 3)
    if request.param == "ill-conditioned":
        x = x @ torch.diag(torch.logspace(-3, 1, width)) @ torch.randn(width, width, generator=generator)
    std, mean = torch.std_mean(x, dim=0, correction=0)
    return (x - mean) / std, labels


def objective(weight: np.ndarray, bias: np.ndarray, weight_decay: float, x: Tensor, labels: Tensor) -> float:
    logits = x.double() @ torch.from_numpy(weight).double().T + torch.from_numpy(bias).double()
    loss = torch.nn.functional.cross_entropy(logits, labels)
    return float(loss) + weight_decay / 2 * float((weight.astype(float) ** 2).sum())


def test_each_classifier_is_as_good_as_one_fitted_alone_in_float64(problem: tuple[Tensor, Tensor]) -> None:
    x, labels = problem
    for weight_decay, found in zip(WEIGHT_DECAYS, fit_classifiers(x, labels, 3, WEIGHT_DECAYS), strict=True):
        reference = LogisticRegression(C=1 / (weight_decay * len(x)), tol=1e-10, max_iter=10_000)
        reference.fit(x.double().numpy(), labels.numpy())
        best = objective(reference.coef_, reference.intercept_, weight_decay, x, labels)
        ours = objective(found.weight.numpy(), found.bias.numpy(), weight_decay, x, labels)
        assert best - 1e-6 <= ours <= best + 5e-4
        same = (found.predict(x).numpy() == reference.predict(x.double().numpy())).mean()
        assert same > 0.99


def test_scale_and_offset_of_features_do_not_matter(problem: tuple[Tensor, Tensor]) -> None:
    x, labels = problem
    scale, offset = torch.linspace(0.1, 10, x.shape[1]), torch.linspace(-5, 5, x.shape[1])
    (plain,), (moved,) = (fit_classifiers(each, labels, 3, [0.03]) for each in (x, x * scale + offset))
    torch.testing.assert_close(moved.weight * scale, plain.weight, rtol=1e-2, atol=2e-3)
    assert (moved.predict(x * scale + offset) == plain.predict(x)).double().mean() > 0.99


def test_a_class_without_images_is_never_named(problem: tuple[Tensor, Tensor]) -> None:
    x, labels = problem
    (found,) = fit_classifiers(x, labels, 5, [0.1])
    assert set(found.predict(x).tolist()) == {0, 1, 2}
    assert found.weight.shape == (5, x.shape[1])
