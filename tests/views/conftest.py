import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture(scope="session")
def photograph() -> NDArray[np.uint8]:
    """Noise with a photograph's spectrum (amplitude 1 / frequency) and related colours: uint8 [300, 400, 3]."""
    rng = np.random.default_rng(0)
    y, x = np.fft.fftfreq(300)[:, None, None], np.fft.fftfreq(400)[None, :, None]
    frequency = np.maximum(np.hypot(y, x), 1 / 400)
    planes = np.fft.ifft2(np.fft.fft2(rng.normal(size=(300, 400, 3)), axes=(0, 1)) / frequency, axes=(0, 1)).real
    mixed = planes @ np.array([[1, 1, 1], [0.4, 0, -0.4], [0.1, -0.2, 0.1]])
    scaled = 127 + 55 * (mixed - mixed.mean()) / mixed.std()
    return np.clip(scaled, 0, 255).astype(np.uint8)
