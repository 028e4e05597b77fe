import cv2
import numpy as np
import pytest

from lightssl.chains import OPERATIONS
from lightssl.reports.choices import COLOURS, choices


@pytest.mark.parametrize(
    ("layers", "shape"),
    [({"projector": 4}, (480, 1260)), ({"projector": 6, "predictor": 4}, (795, 1830)), ({"projector": 1}, (480, 405))],
)
def test_every_layer_gets_a_panel_and_every_operation_a_curve(layers: dict[str, int], shape: tuple[int, int]) -> None:
    epochs = [0.5, 1.0, 1.5]
    shares = {
        f"{part}.{number}": {name: [1 / 7, 0.1, 0.1 + 0.05 * (i == number)] for i, name in enumerate(OPERATIONS)}
        for part, count in layers.items()
        for number in range(count)
    }
    content = choices(epochs, shares, title="a <name> & $x$", unsure=1 / 7)
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (*shape, 3)
    # What is chosen is drawn in its own colour, thick and with a star.
    for operation in range(max(layers.values())):
        red, green, blue = bytes.fromhex(COLOURS[operation].lstrip("#"))
        assert (picture == (blue, green, red)).all(2).sum() > 50


def test_a_single_moment_can_be_drawn() -> None:
    shares = {"projector.0": {name: [1 / 7] for name in OPERATIONS}}
    assert choices([1.0], shares, title="t", unsure=1 / 7)
