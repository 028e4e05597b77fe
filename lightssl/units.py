"""Amounts as people write them: ``"300M"``, ``"20ms"``; lengths of training: ``"200 epochs"``, ``"1M examples"``."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lightssl.errors import ConfigError

_MILLISECONDS = {"ms": 1.0, "s": 1e3, "us": 1e-3, "µs": 1e-3, "μs": 1e-3}  # both signs for micro
_HOURS = {"s": 1 / 3600, "min": 1 / 60, "m": 1 / 60, "h": 1.0, "d": 24.0}
_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}


def parse_count(text: str) -> int:
    """Read ``"300M"``, ``"3.5M"``, ``"1.8G"`` or ``"300000000"``.

    Raises:
        ConfigError: The text is no such number, or it is 0.
    """
    match = re.fullmatch(r"\s*(\d+(?:[._]\d+)*)\s*([kmgb]?)\s*", text.lower())
    try:
        count = round(float(match[1].replace("_", "")) * _SUFFIXES[match[2]]) if match else 0
    except ValueError:
        count = 0
    if count < 1:
        raise ConfigError(f"{text!r} is not a number above 0.", "Write one like 300M, 3.5M or 1.8G.")
    return count


def parse_milliseconds(text: str) -> float:
    """Read a length of time, ``"20ms"``, ``"1.5 s"`` or ``"800us"``, in milliseconds.

    Raises:
        ConfigError: The text is no such time, has no unit, or is 0.
    """
    return _parse_time(text, _MILLISECONDS, "20ms, 1.5s or 800us")


def parse_hours(text: str) -> float:
    """Read a length of time, ``"8h"``, ``"1.5 d"`` or ``"90min"``, in hours.

    Raises:
        ConfigError: The text is no such time, has no unit, or is 0.
    """
    return _parse_time(text, _HOURS, "8h, 2d or 90min")


def _parse_time(text: str, units: Mapping[str, float], examples: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zµμ]+)\s*", text.lower())
    time = float(match[1]) * units.get(match[2], 0.0) if match else 0.0
    if time <= 0:
        raise ConfigError(f"{text!r} is not a time above 0.", f"Write one with its unit: {examples}.")
    return time


Unit = Literal["steps", "epochs", "examples", "percent"]


@dataclass(frozen=True)
class Duration:
    """A length of training in one unit. ``str(Duration.parse(text))`` reads the same as ``text``."""

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: "str | Duration") -> "Duration":
        """Read ``"200 epochs"``, ``"5000 steps"``, ``"1M examples"`` or ``"10%"``.

        Raises:
            ConfigError: The text is no such length, names two units at once, or is negative.
        """
        if isinstance(text, Duration):
            return text
        match = re.fullmatch(r"\s*([\d_.]+)\s*([kmgb]?)\s*(%|percent|steps?|epochs?|examples?)\s*", str(text).lower())
        try:
            amount = float(match[1].replace("_", "")) * _SUFFIXES[match[2]] if match else None
        except ValueError:
            amount = None
        if match is None or amount is None:
            raise ConfigError(
                f"{text!r} is not a length of training.",
                "Write one number and one unit: '200 epochs', '5000 steps', '1M examples' or '10%'.",
            )
        word = "percent" if match[3] == "%" else match[3].rstrip("s") + ("" if match[3] == "percent" else "s")
        return cls(amount, next(unit for unit in get_args(Unit) if unit == word))

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> Any:
        """Recipes hold durations as text."""
        from pydantic_core import core_schema

        def parse(text: str) -> "Duration":
            try:
                return cls.parse(text)
            except ConfigError as error:
                raise ValueError(" ".join(str(error).splitlines())) from error

        return core_schema.no_info_plain_validator_function(
            parse, serialization=core_schema.to_string_ser_schema(), json_schema_input_schema=core_schema.str_schema()
        )

    def steps(self, *, batch_size: int, steps_per_epoch: int, total_steps: int | None = None) -> int:
        """Convert to optimiser steps, rounded to the nearest.

        Args:
            batch_size: Images in one step over all processes.
            steps_per_epoch: Steps that one pass over the data takes.
            total_steps: Length of the whole training, needed for percentages.
        """
        if self.unit == "steps":
            return round(self.amount)
        if self.unit == "epochs":
            return round(self.amount * steps_per_epoch)
        if self.unit == "examples":
            return round(self.amount / batch_size)
        if total_steps is None:
            raise ConfigError(
                f"'{self}' needs a whole to be a share of.", "Give the total in epochs, steps or examples."
            )
        return round(self.amount / 100 * total_steps)

    def __str__(self) -> str:
        amount = f"{self.amount:g}" if self.amount < 1e5 else f"{self.amount:.0f}"
        return f"{amount}%" if self.unit == "percent" else f"{amount} {self.unit}"
