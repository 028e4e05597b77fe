import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from lightssl.resources import resource
from lightssl.views.augment import Augmentations, Drawn, Role

DRAWS = 4000
JITTER = ("hue", "saturation", "contrast", "brightness")
ROLES: tuple[Role, ...] = ("global_1", "global_2", "local")


@pytest.fixture(scope="module")
def recipe() -> dict:
    return yaml.safe_load(resource("recipes", "augment", "dino.yaml").read_text())


@pytest.fixture(scope="module")
def draws(recipe: dict) -> dict[Role, list[Drawn]]:
    augmentations = Augmentations.model_validate(recipe)
    numbers = iter(np.random.default_rng(0).random, None)
    return {role: [augmentations.sample(numbers, role) for _ in range(DRAWS)] for role in ROLES}


def applies(drawn: Drawn, what: str) -> bool:
    if what == "jitter":
        return any(getattr(drawn, name) != getattr(Drawn(), name) for name in JITTER)
    return getattr(drawn, what) not in (None, False)


def share(draws: list[Drawn], what: str) -> float:
    return np.mean([applies(drawn, what) for drawn in draws]).item()


@pytest.mark.parametrize(
    ("role", "field", "probability"),
    [
        *((role, "flip", 0.5) for role in ROLES),
        *((role, "jitter", 0.8) for role in ROLES),
        *((role, "grey", 0.2) for role in ROLES),
        ("global_1", "blur", 1.0),
        ("global_2", "blur", 0.1),
        ("local", "blur", 0.5),
        ("global_1", "solarize", 0.0),
        ("global_2", "solarize", 0.2),
        ("local", "solarize", 0.0),
    ],
)
def test_published_probabilities(draws: dict, role: Role, field: str, probability: float) -> None:
    # Exact where nothing is left to chance, four standard errors elsewhere.
    tolerance = 4 * (probability * (1 - probability) / DRAWS) ** 0.5
    assert share(draws[role], field) == pytest.approx(probability, abs=tolerance)


def test_draws_of_one_view_are_independent_of_each_other(draws: dict) -> None:
    kinds = ("flip", "jitter", "grey", "blur", "solarize")
    applied = [[float(applies(drawn, what)) for what in kinds] for drawn in draws["global_2"]]
    factors = [[getattr(drawn, name) for name in JITTER] for drawn in draws["global_2"]]
    for table in (applied, factors):
        correlation = np.corrcoef(np.array(table).T) - np.eye(len(table[0]))
        assert np.abs(correlation).max() < 4 / DRAWS**0.5


@pytest.mark.parametrize(
    ("operation", "low", "high"),
    [("brightness", 0.6, 1.4), ("contrast", 0.6, 1.4), ("saturation", 0.8, 1.2), ("hue", -0.1, 0.1)],
)
def test_jitter_factors_fill_their_range_evenly(draws: dict, operation: str, low: float, high: float) -> None:
    factors = np.array([getattr(drawn, operation) for drawn in draws["local"] if applies(drawn, "jitter")])
    assert low <= factors.min() < factors.max() <= high
    tenths = np.histogram(factors, 10, (low, high))[0] / len(factors)
    assert tenths == pytest.approx(np.full(10, 0.1), abs=0.025)


def test_blur_sigma_fills_its_range_evenly(draws: dict) -> None:
    sigmas = np.array([drawn.blur for drawn in draws["global_1"]])
    assert 0.1 <= sigmas.min() < sigmas.max() <= 2.0
    assert sigmas.mean() == pytest.approx(1.05, abs=0.04)


def test_a_spread_above_one_never_draws_a_negative_factor(recipe: dict) -> None:
    wide = {**recipe, "jitter": {**recipe["jitter"], "probability": 1.0, "brightness": 3.0}}
    augmentations = Augmentations.model_validate(wide)
    numbers = iter(np.random.default_rng(0).random, None)
    factors = [augmentations.sample(numbers, "local").brightness for _ in range(200)]
    assert min(factors) >= 0
    assert max(factors) > 3


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("jitter", "hue"), 0.6, "less than or equal to 0.5"),
        (("jitter", "contrast"), -0.1, "greater than or equal to 0"),
        (("blur", "sigma"), [2.0, 0.1], r"sigma must ascend, got \[2, 0.1\]"),
        (("blur", "sigma"), [0.0, 0.1], "greater than 0"),
        (("blur", "probability", "global_3"), 0.5, "Extra inputs"),
        (("solarize", "threshold"), 256, "less than or equal to 255"),
        (("flip",), 1.5, "less than or equal to 1"),
    ],
)
def test_rejected(recipe: dict, path: tuple[str, ...], value: object, message: str) -> None:
    broken = yaml.safe_load(yaml.safe_dump(recipe))
    part = broken
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(ValidationError, match=message):
        Augmentations.model_validate(broken)
