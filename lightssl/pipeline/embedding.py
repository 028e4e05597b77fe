"""``embed``: features of any images, in a file that other programs read."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from lightssl.backbones.base import Backbone
from lightssl.config.load import validate
from lightssl.config.schema import Recipe
from lightssl.data.sources import Source, Subset, names_digest, open_source
from lightssl.errors import DataError
from lightssl.evaluation.feature_files import Rows, writer_of
from lightssl.evaluation.features import extract_features
from lightssl.files import atomic_path, write_json
from lightssl.pipeline.building import device_for, evaluation_batches
from lightssl.pipeline.loading import as_run, load_backbone
from lightssl.progress import Narrator, Silent
from lightssl.runs import Run
from lightssl.train.host import prepare_host

PART_IMAGES = 4096  # that are lost when it is stopped, at most


def embed(
    run: Run | Path | str | None = None,
    *,
    data: str,
    out: Path | str = "features.parquet",
    narrator: Narrator | None = None,
) -> dict[str, Any]:
    """Write the features of all images, with their paths and, if they have any, their labels.

    What is done is kept beside the file, part by part: the same call goes on where it was stopped.

    Args:
        run: By default the latest run.
        data: As in :func:`lightssl.data.sources.open_source`; of a source with ``train`` beside ``test``, name one.
        out: ``.parquet`` or ``.npz``: see :mod:`lightssl.evaluation.feature_files`.
        narrator: Told how it goes.

    Returns:
        ``{"out", "images", "width", "skipped"}``; ``skipped`` holds ``name`` and ``reason`` of images that cannot be
        decoded, which have no row.

    Raises:
        ConfigError: The file is of no kind that can be written.
        DataError: No image can be used.
    """
    narrator, path = narrator or Silent(), Path(out)
    write = writer_of(path)
    run = as_run(run)
    recipe = validate(run.recipe(), origin=str(run.recipe_path))
    backbone, source = load_backbone(run), open_source(data)
    prepare_host()
    parts = _Parts(path.with_name(f".{path.name}.parts"), _question(run, recipe, source), source)
    with narrator.work("Embedding", len(source)) as bar:
        for start in range(0, len(source), PART_IMAGES):
            if not parts.has(start):
                parts.make(start, backbone, recipe, lambda done: bar(done, ""))
            bar(min(start + PART_IMAGES, len(source)), "")
    images = parts.images()
    if images == 0:
        shutil.rmtree(parts.folder)
        raise DataError(f"None of the {len(source):,} images of {source.name} can be used.", "Check what --data names.")
    write(path, (images, backbone.feature_width), parts.rows())
    skipped = parts.skipped()
    shutil.rmtree(parts.folder)
    return {"out": str(path), "images": images, "width": backbone.feature_width, "skipped": skipped}


def _question(run: Run, recipe: Recipe, source: Source) -> dict[str, Any]:
    """Tell what features depend on."""
    return {
        "weights": hashlib.sha256(run.weights_path.read_bytes()).hexdigest(),
        "image_size": recipe.evaluation.image_size,
        "crop_share": recipe.evaluation.crop_share,
        "mean": list(recipe.data.mean),
        "std": list(recipe.data.std),
        "source": source.name,
        "images": names_digest(source),
        "part": PART_IMAGES,
    }


class _Parts:
    """Features that are known already, a file for every so many images of the source.

    Args:
        folder: Of the files. Those of another question are removed.
        question: What features depend on.
        source: The images.
    """

    def __init__(self, folder: Path, question: Mapping[str, Any], source: Source) -> None:
        self.folder, self._source = folder, source
        asked = folder / "asked.json"
        try:
            same = json.loads(asked.read_text(encoding="utf-8")) == question
        except (OSError, ValueError):
            same = False
        if not same:
            shutil.rmtree(folder, ignore_errors=True)
            write_json(asked, dict(question))

    def _path(self, start: int) -> Path:
        return self.folder / f"{start:012}.npz"

    def has(self, start: int) -> bool:
        """Tell whether the part is there, and whole, that begins with this image."""
        try:
            with ZipFile(self._path(start)) as archive:
                return archive.testzip() is None
        except (OSError, BadZipFile):
            return False

    def make(self, start: int, backbone: Backbone, recipe: Recipe, on_images: Callable[[int], None]) -> None:
        """Compute one part."""
        order = np.arange(start, min(start + PART_IMAGES, len(self._source)))
        loader = evaluation_batches(Subset(self._source, order, self._source.name), recipe)
        done = start

        def on_batch(count: int) -> None:
            nonlocal done
            done += count
            on_images(done)

        try:
            features, positions = extract_features(
                backbone,
                loader,
                mean=recipe.data.mean,
                std=recipe.data.std,
                device=device_for(backbone),
                on_batch=on_batch,
            )
            found = {"features": features.numpy(), "positions": order[positions.numpy()]}
        except DataError:  # of a part without a usable image; the whole may have some
            if len(loader.bad) < len(order):
                raise
            found = {"features": np.empty((0, backbone.feature_width), np.float32), "positions": order[:0]}
        skipped = json.dumps([{"name": bad.name, "reason": bad.reason} for bad in loader.bad])
        with atomic_path(self._path(start)) as aside, aside.open("wb") as file:
            np.savez(file, skipped=np.array(skipped), **found)

    def _each(self) -> Iterator[Any]:
        for start in range(0, len(self._source), PART_IMAGES):
            with np.load(self._path(start), allow_pickle=False) as part:
                yield part

    def images(self) -> int:
        """Count the images that have features."""
        return sum(len(part["positions"]) for part in self._each())

    def skipped(self) -> list[dict[str, str]]:
        """Return the images that have none, and why."""
        return [one for part in self._each() for one in json.loads(str(part["skipped"]))]

    def rows(self) -> Iterator[Rows]:
        """Yield all features, part by part."""
        source = self._source
        for part in self._each():
            positions = part["positions"]
            if len(positions) == 0:
                continue
            labels = None
            if source.labels is not None and source.classes is not None:
                labels = [source.classes[label] for label in source.labels[positions]]
            yield Rows([source.item_name(int(position)) for position in positions], labels, part["features"])
