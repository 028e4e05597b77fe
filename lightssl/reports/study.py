"""One self-contained HTML page about a study: what it says, and the pictures and tables that say it."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightssl.reports.template import write_page

_SHOWN = 0.62  # of the pixels of a picture on the page: sharp on dense screens


@dataclass(frozen=True)
class Picture:
    """A drawing."""

    png: bytes
    alt: str  # what it shows, for who cannot see it

    @property
    def address(self) -> str:
        """The picture itself, as the page holds it."""
        return f"data:image/png;base64,{b64encode(self.png).decode('ascii')}"

    @property
    def width(self) -> int:
        """Pixels that it is shown at, at most."""
        return round(_SHOWN * int.from_bytes(self.png[16:20], "big"))  # where PNG has its width


@dataclass(frozen=True)
class Table:
    """Figures in words."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]  # the first of each is its name
    title: str = ""
    folded: bool = False  # whether it opens on a click, by its title


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    name: str  # unique, and fit for an address
    title: str
    pictures: Sequence[Picture] = ()
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()


def write_study_page(
    out: Path,
    *,
    title: str,
    facts: str,
    verdict: Sequence[Mapping[str, str]],
    sections: Sequence[Section],
    asked: Mapping[str, str],
) -> None:
    """Write the page.

    Args:
        out: The page.
        title: Its heading.
        facts: What was compared, in a sentence.
        verdict: Findings: ``claim``, ``state`` and ``text`` of each.
        sections: In the order they are read.
        asked: What was asked, by name; may be empty.

    Raises:
        LightSSLError: It cannot be written.
    """
    write_page(out, "study.html.jinja", title=title, facts=facts, verdict=verdict, sections=sections, asked=asked)
