"""Where the files that ship with lightssl lie: ``recipes/`` and ``export/``, in a checkout and in a wheel."""

from pathlib import Path

from lightssl.errors import LightSSLError


def resource(*parts: str) -> Path:
    """Return the path of a shipped file or folder, such as ``resource("recipes", "views", "sslight.yaml")``.

    In a wheel, ``recipes`` and ``export`` lie inside the package; in a checkout they lie beside it.
    """
    package = Path(__file__).parent
    for root in (package, package.parent):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise LightSSLError(f"{'/'.join(parts)} is missing from this installation of lightssl.", "Install it again.")
