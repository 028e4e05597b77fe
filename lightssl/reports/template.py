"""From a template in this folder to a self-contained HTML page: it loads nothing, so it opens anywhere."""

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from lightssl import __version__
from lightssl.files import write_text

_FOLDER = Path(__file__).parent


def write_page(out: Path, template: str, **contents: Any) -> None:
    """Fill in a template, with the style of all pages, and write the page.

    Raises:
        LightSSLError: It cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup((_FOLDER / "style.css").read_text(encoding="utf-8"))
    write_text(out, environment.get_template(template).render(style=style, lightssl_version=__version__, **contents))
