"""The README's pictures of views: what SSLight's plan and the baseline show of two photographs::

python -m benchmarks.preview

The photographs come with scikit-learn, under CC BY 2.0 (https://creativecommons.org/licenses/by/2.0/): china.jpg by
danielbuechele (https://www.flickr.com/photos/danielbuechele/6061409035) and flower.jpg by vultilion
(https://www.flickr.com/photos/vultilion/6056698931). The pictures show them with frames, and crops with other colours.
"""

import tempfile
from contextlib import chdir
from pathlib import Path
from shutil import copyfile

import sklearn.datasets
from PIL import Image

from lightssl.files import atomic_path, write_json
from lightssl.machine import versions
from lightssl.pipeline import preview_views

RESULTS = Path(__file__).parent / "results"
PHOTOGRAPHS = Path(sklearn.datasets.__file__).parent / "images"
WHAT = "views of mobilenetv2_dino and of its baseline, drawn on the two photographs of scikit-learn (640 x 427 pixels)"
COLOURS = 256  # of a picture's palette: a third of the bytes, and no difference to the eye


def main() -> None:
    """Draw the pictures into ``benchmarks/results``."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        photographs = Path("two photographs")  # as the picture names them
        photographs.mkdir()
        for photograph in PHOTOGRAPHS.glob("*.jpg"):
            copyfile(photograph, photographs / photograph.name)
        for recipe, name in (("mobilenetv2_dino", "views"), ("mobilenetv2_dino_baseline", "views_baseline")):
            drawn = preview_views(recipe, data=str(photographs), out=f"{name}.png")
            write_small(Path(drawn["contact_sheet"]), RESULTS / f"{name}.png")
            if name == "views":
                copyfile(drawn["distributions"], RESULTS / f"{name}.distributions.png")
                write_json(RESULTS / f"{name}.json", {"what": WHAT, "versions": versions(), **drawn})


def write_small(picture: Path, out: Path) -> None:
    """Write a picture with a palette of its own colours."""
    with atomic_path(out) as aside, Image.open(picture) as image:
        image.quantize(COLOURS, dither=Image.Dither.FLOYDSTEINBERG).save(aside, format="PNG", optimize=True)


if __name__ == "__main__":
    main()
