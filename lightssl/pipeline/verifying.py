"""``verify``: files for devices, held against torch."""

import platform
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightssl.backbones.cost import count_cost
from lightssl.config.load import validate
from lightssl.config.schema import Recipe
from lightssl.data.sources import Source, Subset, open_source, open_splits, some_of_each_class
from lightssl.deploy.emulator import MACHINE as EMULATED_MACHINE
from lightssl.deploy.emulator import EmulatedNetwork, emulated_networks
from lightssl.deploy.manifest import manifest_path, read_manifest
from lightssl.deploy.onnx import ModelDescription, check_valid, describe_model
from lightssl.deploy.parity import OnnxNetwork, check_fits, compare_features, is_of_this_machine
from lightssl.errors import ConfigError, DataError, ExportError, LightSSLError
from lightssl.evaluation import EVALUATIONS
from lightssl.evaluation.classifier import Classifier
from lightssl.evaluation.detector import Detector
from lightssl.evaluation.held_out import accuracy
from lightssl.files import write_json
from lightssl.machine import describe_machine, versions
from lightssl.pipeline.building import SAMPLE
from lightssl.pipeline.exporting import exported_model, onnx_network, precision_computed_in, spread_positions
from lightssl.pipeline.extracting import features_of_images, features_of_splits
from lightssl.pipeline.loading import as_run, load_network
from lightssl.progress import Narrator, Silent, counting
from lightssl.runs import Run

_COMPARED_IMAGES = 256  # of features with torch's, where nothing else sets their number
_EMULATED_FLOPS = 10_000_000_000  # for each file: minutes of fp32, and of int8 one
_EMULATED_BATCH = 8
_FEWEST_KNN_IMAGES = 400  # for training and testing together


def verify(
    models: Sequence[Path | str] = (),
    *,
    run: Run | Path | str | None = None,
    data: str | None = None,
    arch: str | None = None,
    narrator: Narrator | None = None,
) -> dict[str, Any]:
    """Compare exported files with the torch network: what they compute of real images, and what that is worth.

    Args:
        models: ONNX files, all of one run, or its folder; by default those in the manifest of the run.
        run: The run they were exported from; by default the one that the first of them lies in, or the latest.
        data: Labelled images; by default those that the run was trained on. If these have no labels, features are
            compared without kNN.
        arch: ``aarch64`` has the files computed by ONNX Runtime's build for that processor, on another in an emulator:
            see :mod:`lightssl.deploy.emulator`. That is slow, so fewer images are compared, and without kNN if they
            are too few for that. By default this machine computes the files.
        narrator: Told how it goes.

    Returns:
        ``{"data", "train_images", "accuracy", "rows", "machine", "versions"}``: one row for torch and one for each
        file, with ``top1`` in percent, of kNN or the classifier as ``accuracy`` says, None without labels,
        ``computed_in`` and ``computed_on``, and
        :class:`lightssl.deploy.parity.Parity`. Also written to the run folder.

    Raises:
        ConfigError: There is no emulator for ``arch``.
        TargetError: The emulator, or what it needs, is not installed.
        ExportError: A file is damaged, is not valid ONNX, is not what its manifest says, has another input or output
            than the run's network, or its features are not finite.
        DataError: ``data`` cannot be used.
    """
    narrator = narrator or Silent()
    if arch not in (None, EMULATED_MACHINE):
        raise ConfigError(f"There is no emulator for {arch} processors.", f"There is one: --arch {EMULATED_MACHINE}")
    emulate = arch is not None and not is_of_this_machine("arm")
    files = [Path(model) for model in models]
    if run is None and len(files) == 1 and files[0].is_dir():  # a run, whose files are meant
        (run,), files = files, []
    run = _run_around(files[0]) if files and run is None else as_run(run)
    recipe = validate(run.recipe(), origin=str(run.recipe_path))
    reference = load_network(run)
    if isinstance(reference, Detector):
        raise ConfigError(
            f"{run} holds a detector: what its file finds was compared with torch when it was written.",
            f"Compare them again with: lightssl export {run} --onnx",
        )
    files = files or _exported_files(run)
    descriptions = {file: _checked_description(file, recipe) for file in files}
    splits, images = _verification_images(run, recipe, data, narrator)
    computed_on, path = platform.machine(), run.verification_path
    batch_size: int | None = None
    if emulate:
        computed_on, batch_size = f"{EMULATED_MACHINE} under qemu", _EMULATED_BATCH
        path = path.with_stem(f"{path.stem}_{EMULATED_MACHINE}")
        splits, images = _fewer_images(splits, images, reference, recipe)
        knn = f"kNN among {len(splits[0]):,} others" if splits else "without kNN"
        narrator.say(f"Emulation is slow: compared on {len(images):,} images, {knn}")
    classifies = isinstance(reference, Classifier)
    shown = sum(map(len, splits)) if splits else len(images)
    rows: list[dict[str, Any]] = []
    with (
        _networks(descriptions, emulate) as networks,
        narrator.work("Verifying", shown * (1 + len(descriptions))) as bar,
    ):
        advance = counting(bar)

        def measure(network: nn.Module, name: str) -> tuple[Tensor, float | None]:
            """Return the output for the compared images, and its accuracy in percent where there are labels."""
            on_batch = partial(advance, status=name)
            if splits is None:
                return features_of_images(network, images, recipe, on_batch, batch_size)[0], None
            features = features_of_splits(network, *splits, recipe, on_batch, batch_size)
            if classifies:
                return features.test, accuracy(features.test.argmax(dim=1), features.test_labels)
            return features.test, EVALUATIONS["knn"](features, seed=recipe.train.seed)["top1"]

        expected, top1 = measure(reference, "torch")
        rows.append({"model": "torch", "precision": "fp32", "top1": top1})
        for file, network in networks.items():
            features, top1 = measure(network, file.name)
            description = descriptions[file]
            row = {
                "model": str(file),
                "precision": description.precision,
                "architecture": description.architecture,
                "computed_in": precision_computed_in(network, description),
                "computed_on": computed_on,
                "bytes": description.bytes,
                "sha256": description.sha256,
                **asdict(compare_features(features, expected)),
                "top1": top1,
            }
            rows.append(row)
    result = {
        "data": images.name,
        "train_images": len(splits[0]) if splits else None,
        "accuracy": "top-1" if classifies else "kNN",
        "rows": rows,
        "machine": describe_machine(),
        "versions": versions(),
    }
    write_json(path, result)
    return result


def _verification_images(
    run: Run, recipe: Recipe, data: str | None, narrator: Narrator
) -> tuple[tuple[Source, Source] | None, Source]:
    """Open train and test images where there are labels, and the images that features are compared on."""
    environment = run.environment()
    spec = data or environment.get("data", SAMPLE)
    try:
        train, test, how = open_splits(spec, None if data else environment.get("test_data"), seed=recipe.train.seed)
    except DataError as error:
        if data is not None:
            raise
        narrator.say(f"No accuracy: {error.message} Name labelled images with --data")
        source = open_source(spec, split="train")
        return None, Subset(source, spread_positions(len(source), _COMPARED_IMAGES), source.name)
    narrator.say(how)
    return (train, test), test


def _fewer_images(
    splits: tuple[Source, Source] | None, images: Source, network: nn.Module, recipe: Recipe
) -> tuple[tuple[Source, Source] | None, Source]:
    """Leave out images until an emulator gets through them in minutes; kNN too, where too few are left for it."""
    count = _EMULATED_FLOPS // count_cost(network, recipe.evaluation.image_size).flops
    if splits is None or count < _FEWEST_KNN_IMAGES:
        few = spread_positions(len(images), min(max(count, _EMULATED_BATCH), _COMPARED_IMAGES))
        return None, Subset(images, few, images.name)
    train, test = splits
    tested = min(len(test), count // 5)
    train = some_of_each_class(train, count - tested, seed=recipe.train.seed)
    test = some_of_each_class(test, tested, seed=recipe.train.seed)
    return (train, test), test


def _networks(
    descriptions: Mapping[Path, ModelDescription], emulate: bool
) -> AbstractContextManager[Mapping[Path, OnnxNetwork | EmulatedNetwork]]:
    """Load files, to be computed here or by an emulated processor, for as long as the block lasts."""
    if emulate:
        return emulated_networks({file: description.metadata for file, description in descriptions.items()})
    return nullcontext({file: onnx_network(file, description) for file, description in descriptions.items()})


def _checked_description(file: Path, recipe: Recipe) -> ModelDescription:
    """Read what a file says of itself, and refuse it if it is damaged, changed or of another network."""
    description = describe_model(file)
    manifest = read_manifest(manifest_path(file))
    if manifest is not None:
        written = {entry.file: entry.sha256 for entry in manifest.files}.get(file.name, description.sha256)
        if written != description.sha256:
            raise ExportError(
                f"{file} is not what its manifest says: it has changed since it was exported.",
                "Write it again with: lightssl export --onnx",
            )
    check_valid(file.read_bytes())
    check_fits(file, description, recipe.evaluation.image_size)
    return description


def _exported_files(run: Run) -> list[Path]:
    manifest = read_manifest(manifest_path(exported_model(run)))
    return [run.onnx_path.with_name(entry.file) for entry in manifest.files] if manifest else [run.onnx_path]


def _run_around(model: Path) -> Run:
    """Return the run whose export folder a model lies in."""
    run = Run(model.resolve().parent.parent)
    if not run.recipe_path.exists():
        raise LightSSLError(
            f"{model} does not lie in a run.", "Name the run that it was exported from with --run, to compare with."
        )
    return run
