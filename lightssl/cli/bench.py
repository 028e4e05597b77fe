"""``lightssl bench``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from lightssl.cli.examples import examples
from lightssl.cli.terminal import Terminal, console, print_json, print_table
from lightssl.deploy.runtimes import RUNTIMES
from lightssl.errors import ConfigError

_OPERATOR_RUNS = 50
_OPERATORS_SHOWN = 6


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "lightssl bench --target cpu",
            "lightssl bench --operators",
            "lightssl bench --runtime openvino --runtime ncnn",
            "lightssl bench --json",
            "lightssl bench --target predict:pixel1",
            "lightssl bench --target web --lan --https",
            "lightssl bench --compare before.json after.json --out page.html",
        )
    )(bench)


def bench(
    models: Annotated[
        Optional[list[Path]],
        typer.Argument(
            metavar="MODEL",
            help="ONNX files, or folders of runs; JSON files with --compare.",
            show_default="the latest run's",
        ),
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
    operators: Annotated[
        bool, typer.Option("--operators", help="cpu: also time each operator, and draw those that take longest.")
    ] = False,
    set_: Annotated[
        Optional[list[str]],
        typer.Option("--set", metavar="KEY=VALUE", help="Change one setting of the profile; repeat for more."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Time nothing: hold files of results against the first of them.")
    ] = False,
    out: Annotated[Optional[Path], typer.Option(help="--compare: a page to write, with accuracy and size.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Time exported models on a device, or predict how long they would take on one."""
    from lightssl import pipeline
    from lightssl.config.load import parse_override

    if compare:
        _compare(models or (), out, json)
        return
    if out is not None:
        raise ConfigError("--out names the page of --compare.", "For results as a file: --json > FILE")
    settings: dict[str, Any] = {"runtimes": runtime} if runtime else {}
    settings |= {"lan": True} if lan else {}
    settings |= {"https": True} if https else {}
    settings |= {"operator_runs": _OPERATOR_RUNS} if operators else {}
    for text in set_ or ():
        settings |= parse_override(text)
    rows = pipeline.bench(models or (), target=target, settings=settings, narrator=Terminal())
    if json:
        print_json(rows)
        return
    for model in dict.fromkeys(row["model"] for row in rows):
        chosen = [row for row in rows if row["model"] == model]
        images = "one image" if chosen[0]["batch"] == 1 else f"{chosen[0]['batch']} images"
        title = f"{model} ({chosen[0]['model_bytes'] / 1e6:.2f} MB), {images}"
        (_print_predicted if chosen[0]["kind"] == "predicted" else _print_measured)(title, chosen)
        for row in chosen:
            if row.get("operators"):
                _print_operators(row)


def _compare(files: Sequence[Path], out: Path | None, json: bool) -> None:
    from lightssl import pipeline
    from lightssl.deploy.results import name_models

    compared = pipeline.compare(files, out=out, narrator=Terminal())
    names = name_models([row.result for row in compared])
    if json:
        print_json(
            [{"file": str(row.file), "ratio": row.ratio, **row.result.model_dump(mode="json")} for row in compared]
        )
    else:
        print_table(
            f"Ratio: p50 over that of the baseline, {compared[0].file}; below 1 is faster",
            ["results", "model", "precision", "threads", "device", "kind", "p50 ms", "ratio"],
            [
                [
                    str(row.file),
                    names[row.result],
                    row.result.precision,
                    str(row.result.threads),
                    row.result.place,
                    row.result.kind,
                    row.result.milliseconds,
                    "baseline" if row.result is row.baseline else f"{row.ratio:.2f}",
                ]
                for row in compared
            ],
        )
    if out is not None:
        Terminal().say(f"Page: {out}")


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


def _print_operators(row: Mapping[str, Any]) -> None:
    from lightssl.deploy.latency import slowest

    by_type, by_node = slowest(row["operators"], "operator"), slowest(row["operators"], "node")
    whole = sum(ms for _, ms in by_type)
    print_table(
        f"Slowest operators, threads: {row['threads']}; a run in which each is timed takes {whole:.2f} ms",
        ["type", "ms", "share", "node", "ms", "share"],
        [
            [text for name, ms in pair for text in (name, f"{ms:.3f}", f"{ms / whole:.0%}")]
            for pair in list(zip(by_type, by_node, strict=False))[:_OPERATORS_SHOWN]
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
