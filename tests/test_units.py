import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightssl.errors import ConfigError
from lightssl.units import Duration, parse_count, parse_hours, parse_milliseconds


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


def test_counts_are_read_with_their_suffix() -> None:
    counts = {"300M": 300_000_000, "3.5m": 3_500_000, "1.8G": 1_800_000_000, "300_000": 300_000, " 12 ": 12, "2k": 2000}
    assert {text: parse_count(text) for text in counts} == counts


@pytest.mark.parametrize("text", ["", "M", "0", "-5M", "300MM", "1.2.3M", "many", "1e6", "0.1"])
def test_no_counts(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a number above 0"):
        parse_count(text)


def test_times_are_read_in_milliseconds() -> None:
    times = {"20ms": 20.0, "1.5 s": 1500.0, "800us": 0.8, " 0.5 MS ": 0.5, "250µs": 0.25, "250μs": 0.25}
    assert {text: parse_milliseconds(text) for text in times} == pytest.approx(times)


@pytest.mark.parametrize("text", ["", "20", "ms", "0ms", "-5ms", "1.2.3ms", "20 min", "1e3ms", "20msec", "2ms 5"])
def test_no_times(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a time above 0\.\nWrite one with its unit"):
        parse_milliseconds(text)


def test_hours() -> None:
    hours = {"8h": 8.0, "1.5 d": 36.0, "90min": 1.5, "45 m": 0.75, "36s": 0.01}
    assert {text: parse_hours(text) for text in hours} == pytest.approx(hours)
    with pytest.raises(ConfigError, match=r"'8 weeks' is not a time above 0\.\nWrite one with its unit: 8h"):
        parse_hours("8 weeks")
