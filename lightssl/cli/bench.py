"""``lightssl bench``."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from lightssl.cli.examples import examples
from lightssl.cli.terminal import Terminal, print_json, print_table


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples("lightssl bench --target cpu", "lightssl bench --json"))(bench)


def bench(
    models: Annotated[
        Optional[list[Path]],
        typer.Argument(metavar="MODEL", help="ONNX files.", show_default="the latest run's"),
    ] = None,
    target: Annotated[str, typer.Option(help="A device profile: cpu, ssh:HOST, adb:SERIAL, or a YAML file.")] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Time exported models on a device."""
    from lightssl import pipeline

    rows = pipeline.bench(models or (), target=target, narrator=Terminal())
    if json:
        print_json(rows)
        return
    for model in dict.fromkeys(row["model"] for row in rows):
        chosen = [row for row in rows if row["model"] == model]
        first = chosen[0]
        print_table(
            f"{model} ({first['model_bytes'] / 1e6:.2f} MB), one image, on {first['device']}",
            ["runtime", "threads", "p50 ms", "p90 ms", "p99 ms", "peak MiB"],
            [
                [
                    row["runtime"],
                    str(row["threads"]),
                    *(f"{row[f'latency_ms_{percentile}']:.2f}" for percentile in ("p50", "p90", "p99")),
                    f"{row['peak_memory_mib']:.0f}" if row["peak_memory_mib"] is not None else "-",
                ]
                for row in chosen
            ],
        )
