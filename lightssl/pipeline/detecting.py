"""``evaluate`` for tasks that find objects in photographs, and what they leave behind."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from lightssl.backbones.base import Backbone
from lightssl.config.load import dump
from lightssl.config.schema import Recipe
from lightssl.data.coco import CocoImages, open_coco_splits
from lightssl.evaluation.detection import Detected, Surroundings
from lightssl.evaluation.detector import Detector
from lightssl.files import write_bytes
from lightssl.pipeline.building import (
    PRETRAINED,
    RANDOM,
    build_backbone,
    describe_environment,
    describe_network,
    device_for,
    worker_count,
)
from lightssl.pipeline.loading import load_backbone
from lightssl.pipeline.made import save_made
from lightssl.progress import Narrator
from lightssl.reports.photographs import found_objects
from lightssl.runs import Run

SHOWN = 12  # test images with what was found in them


def detections(
    run: Run,
    recipe: Recipe,
    data: str,
    test_data: str | None,
    functions: Mapping[str, Callable[[Backbone, Surroundings, Narrator, str], Detected]],
    random: bool,
    narrator: Narrator,
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """Train detectors on the network of a run, and on the same network from random initialisation.

    Those on the pre-trained one are written to :meth:`Run.made_by`, a run each, and what they find in some of the test
    images is drawn.

    Args:
        run: The run.
        recipe: Its recipe.
        data: COCO file or folder: see :func:`lightssl.data.coco.open_coco_splits`.
        test_data: Test images from elsewhere.
        functions: The tasks by name.
        random: Train on the random network as well.
        narrator: Told how it goes.

    Returns:
        Of each task its results, ``network``, ``ap`` in percent, and how it was trained; and what is to be said of the
        images.
    """
    train, test, split = open_coco_splits(data, test_data, seed=recipe.train.seed, masks="segment" in functions)
    for remark in dict.fromkeys(train.remarks + test.remarks):
        narrator.say(remark)
    photographs = Surroundings(
        train=train,
        test=test,
        mean=recipe.data.mean,
        std=recipe.data.std,
        workers=worker_count(recipe),
        device=device_for(),
    )
    where = {"data": data} if test_data is None else {"data": data, "test_data": test_data}
    networks = {PRETRAINED: load_backbone(run), **({RANDOM: build_backbone(recipe)} if random else {})}
    results: dict[str, list[dict[str, Any]]] = {task: [] for task in functions}
    for name, backbone in networks.items():
        for task, function in functions.items():
            here = replace(photographs, under_way=run.under_way_path(task))
            ended = function(backbone, here, narrator, f"{task}, {name}")
            results[task].append({"network": name, **ended.result})
            if name == PRETRAINED:
                _write_detector(run, recipe, task, ended, train, where, narrator)
                picture = run.picture_path(task)
                write_bytes(picture, found_objects(test, ended.found[:SHOWN], test.class_names))
                narrator.say(f"What was found: {picture}")
                made = run.made_by(task)
                narrator.say(f"Detector: {made}. Ship it: lightssl export {made} --onnx")
    what = {"train": train.name, "train_images": len(train), "test": test.name, "test_images": len(test)}
    return results, {**what, "split": split}


def _write_detector(
    run: Run,
    recipe: Recipe,
    task: str,
    ended: Detected,
    train: CocoImages,
    where: Mapping[str, Any],
    narrator: Narrator,
) -> None:
    made = run.made_by(task)
    description = {
        **describe_network(recipe, ended.detector),
        "image_shape": usual_shape(train, ended.detector),
        "trained": ended.result,
    }
    save_made(made, made.detector_path, ended.detector, description, narrator)
    environment = describe_environment(**where, fine_tuned={"from": run.folder.name, "task": task, **ended.result})
    made.write_start(dump(recipe), environment)


def usual_shape(images: CocoImages, detector: Detector) -> tuple[int, int]:
    """Return height and width of most images as the detector sees them."""
    ((height, width), _) = Counter(map(tuple, images.sizes.tolist())).most_common(1)[0]
    scale = detector.options.short_sides[1] / min(height, width)
    scale = min(scale, detector.options.long_side / max(height, width))
    return round(height * scale), round(width * scale)
