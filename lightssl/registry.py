"""Names for things: ``name -> "module:attribute"``, resolved on use.

Nothing is imported until it is asked for, so a registry can list what exists without importing torch.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from lightssl.errors import ConfigError


def did_you_mean(name: str, known: Iterator[str] | list[str]) -> str | None:
    """Return ``"Did you mean 'x'?"`` for the closest known name, or None when nothing is close."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else None


class Registry:
    """A read-only table of names to importable things.

    Args:
        kind: What the names stand for, as an error message says it ("backbone").
        entries: ``{name: "module:attribute"}``.
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Any:
        """Import and return the thing called ``name``; raise ConfigError with the closest name if there is none."""
        if name not in self._entries:
            hint = did_you_mean(name, list(self)) or ""
            raise ConfigError(f"Unknown {self.kind} {name!r}.", f"{hint} Known: {', '.join(self)}.".strip())
        module, attribute = self._entries[name].split(":")
        return getattr(import_module(module), attribute)
