"""``export`` for detectors."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from lightssl.checkpoint import load_weights
from lightssl.config.schema import Recipe
from lightssl.data.coco import open_coco_splits
from lightssl.data.loader import read_image
from lightssl.data.sources import Source, open_source
from lightssl.deploy.detector import (
    BOXES,
    LABELS,
    MASKS,
    SCORES,
    DetectorManifest,
    export_detector,
    sha256_of,
    write_detector_manifest,
)
from lightssl.deploy.manifest import manifest_path
from lightssl.deploy.onnx import INPUT, OPSET
from lightssl.evaluation.detector import Detector
from lightssl.machine import versions
from lightssl.pipeline.building import SAMPLE
from lightssl.progress import Narrator
from lightssl.runs import Run
from lightssl.types import BadImage

_PARITY_IMAGES = 8
_OUTPUTS = {
    BOXES: "float32 [objects, 4]: left, top, right and bottom in pixels of the input, surest first",
    LABELS: "int64 [objects]: positions in classes",
    SCORES: "float32 [objects]: in 0..1",
    MASKS: "float32 [objects, height, width]: in 0..1, of each pixel how surely it belongs to the object",
}


class _Flat(nn.Module):
    """A detector whose input and outputs are what an ONNX file has."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map float32 [1, 3, H, W] in 0..1 to boxes, labels, scores and, if there are any, masks."""
        return tuple(part for part in self.detector(images[0]) if part is not None)


def export_run(run: Run, recipe: Recipe, detector: Detector, path: Path, narrator: Narrator) -> DetectorManifest:
    """Write the detector of a run as an ONNX file, checked against torch on images, and a manifest beside it.

    The images are those that it was tested on, or of the sample where that is not known.

    Args:
        run: Where the detector is.
        recipe: Its recipe.
        detector: As loaded.
        path: The file.
        narrator: Told how it goes.

    Raises:
        DataError: The images that it was trained on are not there any more.
        ExportError: The file would find something else.
    """
    _, description = load_weights(run.weights_path)
    shape = (int(description["image_shape"][0]), int(description["image_shape"][1]))
    environment = run.environment()
    test: Source
    if "data" in environment:
        _, test, _ = open_coco_splits(environment["data"], environment.get("test_data"), seed=recipe.train.seed)
    else:  # weights that somebody sent
        test = open_source(SAMPLE)
    images = []
    for index in range(len(test)):
        pixels = read_image(test, index)
        if not isinstance(pixels, BadImage):
            image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
            images.append(interpolate(image, shape, mode="bilinear", antialias=True).clamp(0, 1))
        if len(images) == _PARITY_IMAGES:
            break
    origin = {"recipe": recipe.name, "scale": recipe.scale, "backbone": recipe.backbone.name}
    with narrator.work("Exporting", 1) as bar:
        content, comparison = export_detector(
            _Flat(detector).eval(),
            path,
            image_shape=shape,
            masks=detector.options.masks,
            metadata={**origin, "classes": json.dumps(detector.classes)},
            images=images,
        )
        bar(1, path.name)
    manifest = DetectorManifest(
        **origin,
        input=INPUT,
        input_shape=(1, 3, *shape),
        outputs={name: text for name, text in _OUTPUTS.items() if name != MASKS or detector.options.masks},
        classes=detector.classes,
        file=path.name,
        bytes=len(content),
        sha256=sha256_of(content),
        opset=OPSET,
        compared_images=len(images),
        compared_boxes=comparison.boxes,
        agreement=comparison.agreement,
        max_score_error=comparison.max_score_error,
        versions=versions(),
    )
    write_detector_manifest(manifest_path(path), manifest)
    return manifest
