from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lightssl.deploy.reference import largest_error
from lightssl.errors import TargetError

VALUES = st.floats(-100, 100, width=32)


def answer(output: np.ndarray, told: int | None = None) -> dict[str, Any]:
    """As a runner tells it: the first values only."""
    return {"output_shape": list(output.shape), "output": output.ravel()[:told].tolist()}


@given(arrays.arrays(np.float32, (2, 3), elements=VALUES), arrays.arrays(np.float32, (2, 3), elements=VALUES))
def test_it_is_the_largest_difference_of_the_values_told(output: np.ndarray, expected: np.ndarray) -> None:
    errors = np.abs(output - expected).ravel()
    for told in range(1, 7):
        assert largest_error(answer(output, told), answer(expected), "ours") == errors[:told].max()


@pytest.mark.parametrize(
    "wrong",
    [answer(np.zeros((1, 6))), answer(np.zeros((2, 3)), 0), {"output_shape": [2, 3], "output": [0.0] * 7}],
    ids=["another shape", "no values", "too many values"],
)
def test_what_cannot_be_compared_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(TargetError, match=r"ours shape \[2, 3\]"):
        largest_error(wrong, answer(np.zeros((2, 3))), "ours")
