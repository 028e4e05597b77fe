"""Small spaces, one of each kind: their networks are quick to run, and differ in everything that spaces leave open."""

from itertools import product
from typing import Any

import pytest

from lightssl.search.spaces import Space, StageChoices

_WIDTHS = (8, 16, 24)
_BLOCKS = tuple(product((3, 5, 7), (3, 6)))
_RESNET = (
    StageChoices((48, 64, 72), (1, 2)),  # as wide as the stem, or not
    *(StageChoices(_WIDTHS, (1, 2, 3)) for _ in range(3)),
)
SMALL_SPACES = {
    space.name: space
    for space in (
        Space(
            "mobilenetv2",
            "mobilenetv2",
            (
                StageChoices(_WIDTHS, (1,), ((3, 1), (5, 1))),
                *(StageChoices(_WIDTHS, (1, 2, 3), _BLOCKS) for _ in range(5)),
                StageChoices(_WIDTHS, (1,), _BLOCKS),
            ),
            image_sizes=(32, 45),
        ),
        Space("resnet_basic", "resnet", _RESNET, {"block": "basic"}, image_sizes=(32, 45)),
        Space("resnet_bottleneck", "resnet", _RESNET, {"block": "bottleneck"}, image_sizes=(32, 45)),
        Space("vit", "vit", (StageChoices((48, 64), (1, 2, 3), tuple(product((1, 2), (2, 3)))),), image_sizes=(32, 45)),
    )
}
OPTIONS: dict[str, dict[str, Any]] = {"vit": {"patch": 8, "image_size": 32}}


@pytest.fixture(scope="session")
def small_spaces() -> dict[str, tuple[Space, dict[str, Any]]]:
    """Every small space, and the options that its networks are built with."""
    return {name: (space, OPTIONS.get(name, {})) for name, space in SMALL_SPACES.items()}


@pytest.fixture(params=SMALL_SPACES)
def small(
    request: pytest.FixtureRequest, small_spaces: dict[str, tuple[Space, dict[str, Any]]]
) -> tuple[Space, dict[str, Any]]:
    """One small space after the other, and the options that its networks are built with."""
    return small_spaces[request.param]
