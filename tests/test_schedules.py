import numpy as np
import pytest

from lightssl.evaluation.detection import Schedule
from lightssl.schedules import cosine, linear, warmup_cosine


def published(peak: float, end: float, total: int, warmup: int, start: float) -> np.ndarray:
    """DINO's cosine_scheduler, in numpy."""
    ramp = np.linspace(start, peak, warmup) if warmup else np.array([])
    steps = np.arange(total - warmup)
    return np.concatenate([ramp, end + 0.5 * (peak - end) * (1 + np.cos(np.pi * steps / len(steps)))])


@pytest.mark.parametrize(("total", "warmup"), [(100, 10), (50, 0), (7, 6), (1000, 1)])
def test_warmup_and_cosine_equal_the_published_schedule(total: int, warmup: int) -> None:
    ours = [
        warmup_cosine(step, total_steps=total, warmup_steps=warmup, warmup_from=0.01, peak=1.92, end=0.0048)
        for step in range(total)
    ]
    np.testing.assert_allclose(ours, published(1.92, 0.0048, total, warmup, 0.01), atol=1e-12)


def test_ends_are_exact_and_outside_is_constant() -> None:
    for shape in (cosine, linear):
        assert shape(2.0, 5.0, -1) == shape(2.0, 5.0, 0) == 2.0
        assert shape(2.0, 5.0, 2) == shape(2.0, 5.0, 1) == 5.0
        assert shape(2.0, 5.0, 0.5) == pytest.approx(3.5)


def test_the_1x_schedule_of_detectors() -> None:
    """90,000 steps at .02, warmed up over 1,000 from a thousandth; a tenth from 60,000, a hundredth from 80,000."""
    schedule = Schedule(iterations=90_000, batch_size=16, learning_rate=0.02, warmup=1_000)

    def rate(step: int) -> float:
        return schedule.learning_rate * schedule.rate(step)

    assert [rate(step) for step in (0, 999, 1_000, 59_999)] == pytest.approx([2e-5, 0.02, 0.02, 0.02])
    assert [rate(step) for step in (60_000, 79_999)] == pytest.approx([2e-3] * 2)
    assert [rate(step) for step in (80_000, 89_999)] == pytest.approx([2e-4] * 2)
    assert Schedule(iterations=9, batch_size=2, learning_rate=0.02, warmup=0).rate(0) == 1.0
