"""``lightssl bench``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from lightssl.cli.examples import examples
from lightssl.cli.terminal import Terminal, console, print_json, print_table
from lightssl.deploy.runtimes import RUNTIMES


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "lightssl bench --target cpu",
            "lightssl bench --runtime openvino --runtime ncnn",
            "lightssl bench --json",
            "lightssl bench --target predict:pixel1",
            "lightssl bench --target web --lan --https",
        )
    )(bench)


def bench(
    models: Annotated[
        Optional[list[Path]],
        typer.Argument(metavar="MODEL", help="ONNX files.", show_default="the latest run's"),
    ] = None,
    target: Annotated[
        str, typer.Option(help="A device profile: cpu, web, ssh:HOST, adb:SERIAL, predict:NAME, or a YAML file.")
    ] = "cpu",
    runtime: Annotated[
        Optional[list[str]],
        typer.Option(help=f"cpu: time another runtime beside ONNX Runtime, of {', '.join(RUNTIMES)}; repeat for more."),
    ] = None,
    lan: Annotated[bool, typer.Option("--lan", help="web: let other devices in the network open the page.")] = False,
    https: Annotated[bool, typer.Option("--https", help="web: with a self-signed certificate, for threads.")] = False,
    set_: Annotated[
        Optional[list[str]],
        typer.Option("--set", metavar="KEY=VALUE", help="Change one setting of the profile; repeat for more."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Time exported models on a device, or predict how long they would take on one."""
    from lightssl import pipeline
    from lightssl.config.load import parse_override

    settings: dict[str, Any] = {"runtimes": runtime} if runtime else {}
    settings |= {"lan": True} if lan else {}
    settings |= {"https": True} if https else {}
    for text in set_ or ():
        settings |= parse_override(text)
    rows = pipeline.bench(models or (), target=target, settings=settings, narrator=Terminal())
    if json:
        print_json(rows)
        return
    for model in dict.fromkeys(row["model"] for row in rows):
        chosen = [row for row in rows if row["model"] == model]
        title = f"{model} ({chosen[0]['model_bytes'] / 1e6:.2f} MB), one image"
        (_print_predicted if chosen[0]["kind"] == "predicted" else _print_measured)(title, chosen)


def _print_measured(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    print_table(
        f"{title}, {rows[0]['kind']}: {rows[0]['device']}",
        ["runtime", "threads", "p50 ms", "p90 ms", "p99 ms", "peak MiB"],
        [
            [
                row["runtime"],
                str(row["threads"]),
                *(f"{row[f'latency_ms_{percentile}']:.2f}" for percentile in ("p50", "p90", "p99")),
                f"{row['peak_memory_mib']:.0f}" if row["peak_memory_mib"] is not None else "-",
            ]
            for row in rows
        ],
    )


def _print_predicted(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    print_table(
        f"{title}, predicted for {rows[0]['device']}: nothing was run",
        [
            "runtime",
            "threads",
            "predicted ms",
            f"{rows[0]['interval_coverage']:.0%} interval",
            "error of networks left out",
        ],
        [
            [
                row["runtime"],
                str(row["threads"]),
                f"{row['latency_ms_p50']:.1f}",
                f"{row['latency_ms_low']:.1f} - {row['latency_ms_high']:.1f}",
                f"{row['held_out_error_percent']:.1f} %",
            ]
            for row in rows
        ],
    )
    console.print(f"Fitted to, and the interval is for networks like: {rows[0]['networks']}", markup=False)
    console.print(f"Source: {rows[0]['source']}", markup=False)
