"""``export``: from a backbone to files for devices."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lightssl.config.load import validate
from lightssl.config.schema import Recipe
from lightssl.data.sources import Source, Subset, open_source
from lightssl.deploy.conversion import converter, write_for
from lightssl.deploy.detector import DetectorManifest
from lightssl.deploy.emulator import EmulatedNetwork
from lightssl.deploy.manifest import (
    ExportedFile,
    Manifest,
    ModelInput,
    ModelOutput,
    OrtFile,
    RuntimeFiles,
    manifest_path,
    read_manifest,
    write_manifest,
)
from lightssl.deploy.mobile import check_accelerators, to_ort
from lightssl.deploy.onnx import (
    FEATURES,
    INPUT,
    LOGITS,
    TOLERANCE,
    ModelDescription,
    describe_model,
    export_onnx,
    read_metadata,
)
from lightssl.deploy.parity import OnnxNetwork, compare_features, is_of_this_machine
from lightssl.deploy.quantise import ARCHITECTURES, MIN_AGREEMENT, Quantisation, Quantiser, to_fp16
from lightssl.errors import ConfigError, DataError, ExportError, LightSSLError
from lightssl.evaluation.classifier import Classifier
from lightssl.evaluation.detector import Detector
from lightssl.files import write_bytes, write_text
from lightssl.images import normalise
from lightssl.machine import versions
from lightssl.pipeline.building import SAMPLE, evaluation_batches
from lightssl.pipeline.exporting_detector import export_run
from lightssl.pipeline.loading import as_run, load_network
from lightssl.progress import Narrator, Silent
from lightssl.runs import Run

_PARITY_IMAGES = 32
_CALIBRATION_IMAGES = 128  # that the ranges of int8 are measured on
_FEWEST_CALIBRATION_IMAGES = 8
_HELD_OUT_IMAGES = 64  # that int8 is compared with fp32 on
_ORT_COSINE = 0.999  # of int8 features with those of the file that was converted, at least


def export(
    run: Run | Path | str | None = None,
    *,
    out: Path | str | None = None,
    include_normalisation: bool = True,
    fp16: bool = False,
    int8: bool = False,
    ort: bool = False,
    calibrate: str | None = None,
    runtimes: Sequence[str] = (),
    narrator: Narrator | None = None,
) -> Manifest | DetectorManifest:
    """Write the network of a run as ONNX files, checked against torch, and a manifest beside them.

    That is the pre-trained backbone, with ``features`` as its output, or in the folder of one that was fine-tuned the
    classifier, with ``logits`` in the order of the ``classes`` that its metadata names. Of one that was trained to find
    objects it is the detector: see :func:`lightssl.deploy.detector.export_detector`.

    Args:
        run: By default the latest run.
        out: The fp32 file; by default ``export/model.onnx`` in the run folder. Others are named after it.
        include_normalisation: The graphs take RGB in 0..1 and normalise it, rather than normalised images.
        fp16: Also write ``model.fp16.onnx``.
        int8: Also write ``model.int8.arm.onnx`` and ``model.int8.x86.onnx``: see :mod:`lightssl.deploy.quantise`.
        ort: Also write each file but that of fp16 in ONNX Runtime's own format, checked against it: see
            :func:`lightssl.deploy.mobile.to_ort`.
        calibrate: Images that int8 is calibrated on, as in :func:`lightssl.data.sources.open_source`; by default those
            that the run was trained on.
        runtimes: Also write the files of these, in fp32: see :mod:`lightssl.deploy.runtimes`.
        narrator: Told how it goes.

    Raises:
        ConfigError: A detector is asked for in another form than fp32, taking images in 0..1.
        ExportError: The exported network does not compute the same, or cannot be converted; there is no fp32 file
            unless that one was right.
        DataError: There are no images to calibrate on.
    """
    narrator = narrator or Silent()
    run = as_run(run)
    recipe = validate(run.recipe(), origin=str(run.recipe_path))
    path = Path(out) if out is not None else run.onnx_path
    network = load_network(run)
    if isinstance(network, Detector):
        if fp16 or int8 or ort or runtimes or not include_normalisation:
            raise ConfigError(
                f"{run} holds a detector, which is exported in fp32 alone, with normalisation inside.",
                f"Leave the other options out: lightssl export {run} --onnx",
            )
        return export_run(run, recipe, network, path, narrator)
    # Better fail before the work than after it.
    read_manifest(manifest_path(path))  # which would be replaced
    for runtime in runtimes:
        converter(runtime)
    classes = network.classes if isinstance(network, Classifier) else None
    output = FEATURES if classes is None else LOGITS
    data = run.environment().get("data", SAMPLE)
    source = open_source(data, split="train")
    images = _centre_crops(source, spread_positions(len(source), _PARITY_IMAGES), recipe)
    calibration = _calibration_images(open_source(calibrate or data, split="train"), recipe) if int8 else None
    origin = {"recipe": recipe.name, "scale": recipe.scale, "backbone": recipe.backbone.name}
    metadata = origin if classes is None else {**origin, "classes": json.dumps(classes)}
    files: list[ExportedFile] = []
    written: list[RuntimeFiles] = []
    with narrator.work("Exporting", 1 + fp16 + len(ARCHITECTURES) * int8 + len(runtimes)) as bar:
        fp32 = export_onnx(
            network,
            path,
            input_size=recipe.evaluation.image_size,
            mean=recipe.data.mean,
            std=recipe.data.std,
            include_normalisation=include_normalisation,
            metadata=metadata,
            images=images,
            output=output,
        )
        normalised = normalise(images, recipe.data.mean, recipe.data.std)
        for file, quantisation in chain([(path, None)], _smaller_files(path, fp16=fp16, calibration=calibration)):
            files.append(_exported_file(file, quantisation, network, normalised, ort=ort))
            bar(len(files), file.name)
        for runtime in runtimes:
            written.append(write_for(runtime, path, network))
            bar(len(files) + len(written), runtime)
    for made in files:
        if made.quantisation is not None and made.quantisation.agreement < MIN_AGREEMENT:
            narrator.say(
                f"{made.file} agrees with fp32 by {made.quantisation.agreement:.3f} only, which is below "
                f"{MIN_AGREEMENT}. See what that costs: lightssl verify"
            )
    described = read_metadata(path)
    manifest = Manifest(
        **origin,
        input=ModelInput(
            name=INPUT,
            size=fp32.input_size,
            range=described["input_range"],
            normalisation=described["normalisation"],
            mean=recipe.data.mean,
            std=recipe.data.std,
        ),
        output=ModelOutput(name=output, width=fp32.feature_width),
        classes=source.classes if classes is None else classes,
        calibration=(calibrate or data) if int8 else None,
        versions=versions(),
        files=files,
        runtimes=written,
    )
    write_manifest(manifest_path(path), manifest)
    return manifest


def _smaller_files(
    path: Path, *, fp16: bool, calibration: tuple[Tensor, Tensor] | None
) -> Iterator[tuple[Path, Quantisation | None]]:
    """Write the other precisions of an exported file beside it, one after the other."""
    fp32 = path.read_bytes()
    if fp16:
        file = path.with_suffix(".fp16.onnx")
        write_bytes(file, to_fp16(fp32))
        yield file, None
    if calibration is not None:
        quantiser = Quantiser(fp32, *calibration)
        for architecture in ARCHITECTURES:
            file = path.with_suffix(f".int8.{architecture}.onnx")
            content, quantisation = quantiser.quantise(architecture)
            write_bytes(file, content)
            yield file, quantisation


def _exported_file(
    file: Path, quantisation: Quantisation | None, backbone: nn.Module, images: Tensor, *, ort: bool
) -> ExportedFile:
    """Describe a file that was written, from its content, and compare it with torch on normalised images."""
    description = describe_model(file)
    network = onnx_network(file, description)
    with torch.inference_mode():
        parity = compare_features(network(images), backbone(images))
    return ExportedFile(
        file=file.name,
        precision=description.precision,
        architecture=description.architecture,
        bytes=description.bytes,
        sha256=description.sha256,
        opset=description.opset,
        parity=parity,
        computed_in=precision_computed_in(network, description),
        quantisation=quantisation,
        accelerators=check_accelerators(file.read_bytes()),
        # This machine would compute fp16 in float, and the conversion makes that so for good.
        ort=_ort_file(file, description, images) if ort and description.precision != "fp16" else None,
    )


def _ort_file(file: Path, description: ModelDescription, images: Tensor) -> OrtFile:
    """Write a file in ONNX Runtime's own format beside it, having compared the two on normalised images."""
    model = file.read_bytes()
    content, operators = to_ort(model, description.architecture)
    converted, original = (OnnxNetwork(form, description.metadata)(images) for form in (content, model))
    parity = compare_features(converted, original)
    if description.precision == "int8":  # other nodes are joined for another processor, so some values round otherwise
        differs = parity.cosine < _ORT_COSINE
    else:
        differs = parity.max_error > TOLERANCE * parity.max_feature
    if differs:
        raise ExportError(f"{file.name} computes something else as .ort: a feature is off by {parity.max_error:.3g}.")
    path = file.with_suffix(".ort")
    operators_path = file.with_suffix(".required_operators.config")
    write_bytes(path, content)
    write_text(operators_path, operators)
    return OrtFile(
        file=path.name,
        operators=operators_path.name,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        max_error=parity.max_error,
    )


def onnx_network(file: Path, description: ModelDescription) -> OnnxNetwork:
    """Load a file to run as the machines that it is for run it."""
    in_float = not is_of_this_machine(description.architecture)
    return OnnxNetwork(file.read_bytes(), description.metadata, in_float=in_float)


def precision_computed_in(network: OnnxNetwork | EmulatedNetwork, description: ModelDescription) -> str:
    """Return the precision in which a file is computed here: float where its kernels are another machine's."""
    return "float" if network.in_float else description.precision


def _calibration_images(source: Source, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Draw normalised images to calibrate on, and others to judge the result by, float32 [N, 3, S, S] both."""
    order = np.random.default_rng(recipe.train.seed).permutation(len(source))
    images = _centre_crops(source, order[: _CALIBRATION_IMAGES + _HELD_OUT_IMAGES], recipe)
    if len(images) < _FEWEST_CALIBRATION_IMAGES:
        raise DataError(
            f"{source.name} holds {len(images)} images that can be used: too few to calibrate on.",
            f"Give {_FEWEST_CALIBRATION_IMAGES} at least, better {_CALIBRATION_IMAGES + _HELD_OUT_IMAGES}.",
        )
    aside = max(2, len(images) * _HELD_OUT_IMAGES // (_CALIBRATION_IMAGES + _HELD_OUT_IMAGES))
    normalised = normalise(images, recipe.data.mean, recipe.data.std)
    return normalised[aside:], normalised[:aside]


def spread_positions(images: int, count: int) -> np.ndarray:
    """Return ``count`` positions spread evenly over so many images, which often come sorted by class."""
    return np.linspace(0, images - 1, min(count, images), dtype=int)


def _centre_crops(source: Source, indices: np.ndarray, recipe: Recipe) -> Tensor:
    """Read some images as an evaluation shows them: uint8 [N, S, S, 3], without those that cannot be decoded."""
    loader = evaluation_batches(Subset(source, indices, source.name), recipe)
    return torch.cat([images for images, _ in loader])


def exported_model(run: Run) -> Path:
    """Return the fp32 file of a run, or raise LightSSLError if there is none yet."""
    if not run.onnx_path.exists():
        raise LightSSLError(f"{run} has no exported model yet.", f"Write one with: lightssl export {run} --onnx")
    return run.onnx_path
