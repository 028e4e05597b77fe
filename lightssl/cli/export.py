"""``lightssl export``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from lightssl.cli.examples import examples
from lightssl.cli.options import RunArgument
from lightssl.cli.terminal import Terminal, console, print_table
from lightssl.deploy.runtimes import RUNTIMES
from lightssl.errors import ConfigError

if TYPE_CHECKING:
    from lightssl.deploy.detector import DetectorManifest


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "lightssl export --onnx",
            "lightssl export --onnx --fp16 --int8",
            "lightssl export --onnx --int8 --ort",
            "lightssl export --onnx --int8 --calibrate sample",
            "lightssl export --onnx --runtime ncnn",
            "lightssl export --onnx --out features.onnx --no-normalisation --json",
        )
    )(export)


def export(
    run: RunArgument = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write ONNX.")] = False,
    out: Annotated[Optional[Path], typer.Option(help="The file.", show_default="export/model.onnx in the run")] = None,
    normalisation: Annotated[
        bool,
        typer.Option(
            "--normalisation/--no-normalisation", help="Whether the file takes RGB in 0..1 and normalises it itself."
        ),
    ] = True,
    fp16: Annotated[bool, typer.Option("--fp16", help="Also in half precision: model.fp16.onnx.")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also in 8 bits: model.int8.arm.onnx and model.int8.x86.onnx.")
    ] = False,
    ort: Annotated[
        bool,
        typer.Option(
            "--ort",
            help="Also each but fp16 in ONNX Runtime's own format for apps: model.ort, and the operators it needs.",
        ),
    ] = False,
    calibrate: Annotated[
        Optional[str],
        typer.Option(help="Images that --int8 takes the ranges of activations from.", show_default="the run's"),
    ] = None,
    runtime: Annotated[
        Optional[list[str]],
        typer.Option(help=f"Also the files of another runtime, of {', '.join(RUNTIMES)}; repeat for more."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Write the pre-trained backbone for a device, checked against torch."""
    if not onnx:
        raise ConfigError("Name the format to export to.", "There is one so far: lightssl export --onnx")
    if calibrate is not None and not int8:
        raise ConfigError("--calibrate says what --int8 is calibrated on.", "Add --int8.")
    from lightssl import pipeline
    from lightssl.deploy.detector import DetectorManifest

    manifest = pipeline.export(
        run,
        out=out,
        include_normalisation=normalisation,
        fp16=fp16,
        int8=int8,
        ort=ort,
        calibrate=calibrate,
        runtimes=runtime or (),
        narrator=Terminal(),
    )
    if json:
        print(manifest.model_dump_json(indent=2))
        return
    if isinstance(manifest, DetectorManifest):
        _print_detector(manifest)
        return
    fp32 = manifest.files[0]
    print_table(
        f"{manifest.recipe}, opset {fp32.opset}, input {manifest.input.size} px, {manifest.output.width} features",
        ["file", "precision", "for", "MB", "of fp32", "largest error", "cosine with torch"],
        [
            [
                file.file,
                file.precision,
                file.architecture,
                f"{file.bytes / 1e6:.2f}",
                f"{file.bytes / fp32.bytes:.2f}",
                f"{file.parity.max_error:.1e}",
                f"{file.parity.cosine:.5f}",
            ]
            for file in manifest.files
        ],
    )
    print_table(
        "What the accelerators of phones have operators for, of one image's nodes (nothing was run)",
        ["file", *(accelerator.name for accelerator in fp32.accelerators)],
        [
            [file.file, *(f"{a.suitable}, {a.supported_nodes} of {a.nodes}" for a in file.accelerators)]
            for file in manifest.files
        ],
    )
    for file in manifest.files:
        if file.ort is not None:
            console.print(
                f"{file.ort.file}, {file.ort.bytes / 1e6:.2f} MB: computes what {file.file} does", markup=False
            )
    if manifest.runtimes:
        print_table(
            "For other runtimes, fp32",
            ["files", "runtime", "MB", "largest error", "cosine with torch"],
            [
                [
                    ", ".join(made.sha256),
                    f"{made.runtime} {made.runtime_version}",
                    f"{made.bytes / 1e6:.2f}",
                    f"{made.parity.max_error:.1e}",
                    f"{made.parity.cosine:.5f}",
                ]
                for made in manifest.runtimes
            ],
        )


def _print_detector(manifest: "DetectorManifest") -> None:
    _, _, height, width = manifest.input_shape
    print_table(
        f"{manifest.recipe}, a detector of {len(manifest.classes)} classes, opset {manifest.opset}",
        ["file", "input", "outputs", "MB", "boxes found by torch, too", "largest error of a score"],
        [
            [
                manifest.file,
                f"{width} x {height} px",
                ", ".join(manifest.outputs),
                f"{manifest.bytes / 1e6:.2f}",
                f"{100 * manifest.agreement:.1f} % of {manifest.compared_boxes:,}" if manifest.compared_boxes else "-",
                f"{manifest.max_score_error:.1e}",
            ]
        ],
    )
