import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightssl.errors import ConfigError
from lightssl.units import Duration


@given(st.integers(0, 10**6), st.sampled_from(["steps", "epochs", "examples", "%"]))
def test_durations_read_as_they_are_written(amount: int, unit: str) -> None:
    text = f"{amount}%" if unit == "%" else f"{amount} {unit}"
    assert str(Duration.parse(text)) == text
    assert Duration.parse(str(Duration.parse(text))) == Duration.parse(text)


def test_durations_in_steps() -> None:
    sizes = {"batch_size": 32, "steps_per_epoch": 250}
    assert Duration.parse("3 epochs").steps(**sizes) == 750
    assert Duration.parse("1 epoch").steps(**sizes) == 250
    assert Duration.parse("0.5 epochs").steps(**sizes) == 125
    assert Duration.parse("64k examples").steps(**sizes) == 2000
    assert Duration.parse("10 percent").steps(**sizes, total_steps=400) == 40
    with pytest.raises(ConfigError, match="needs a whole"):
        Duration.parse("10%").steps(**sizes)


@pytest.mark.parametrize("text", ["", "10", "epochs", "-1 epochs", "1 epoch 2 steps", "1.2.3 steps", "ten epochs"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a length of training"):
        Duration.parse(text)
