"""``lightssl study pick``: from a study, the network for a task."""

from typing import Annotated, Optional

import typer

from lightssl.cli.options import JSONOption, StudyArgument
from lightssl.cli.terminal import Terminal, console, print_json, print_table
from lightssl.units import parse_count


def pick(
    folder: StudyArgument = None,
    downstream: Annotated[str, typer.Option(metavar="SRC", help="Labelled images of your task.")] = "sample",
    flops: Annotated[
        Optional[str], typer.Option(metavar="N", help="At most so many, such as 300M.", show_default="any")
    ] = None,
    params: Annotated[
        Optional[str], typer.Option(metavar="N", help="At most so many parameters.", show_default="any")
    ] = None,
    measure: Annotated[
        int, typer.Option(metavar="N", help="Measure so many networks on a task that was not studied.")
    ] = 8,
    json: JSONOption = False,
) -> None:
    """Say which network of a finished study to take for a task, and why.

    What the study has not measured is measured: some of its networks on your images, first from the best to the worst,
    then those that do well on the tasks that yours is like.
    """
    from lightssl import pipeline

    given = {"flops": flops, "parameters": params}
    limits = {name: parse_count(text) for name, text in given.items() if text is not None}
    result = pipeline.pick_network(folder, downstream=downstream, limits=limits, measure=measure, narrator=Terminal())
    if json:
        print_json(result)
        return
    print_table(
        f"{len(result['networks'])} networks on {downstream}, FLOPs at {result['image_size']} pixels",
        ["network", "FLOPs", "parameters", "held out", "test"],
        [
            [
                row["network"],
                f"{row['flops'] / 1e6:,.1f}M",
                f"{row['parameters'] / 1e6:,.2f}M",
                f"{row['chosen_by']:.1f} %",
                f"{row['top1']:.1f} %",
            ]
            for row in result["networks"]
        ],
    )
    if result["similarity"] is not None:
        alike = ", ".join(f"{name} {value:+.2f}" for name, value in result["similarity"].items())
        console.print(f"How alike the scenarios of the study rank these networks (Spearman): {alike}", markup=False)
    console.print(f"Take {result['picked']}: {result['run']}", markup=False)
    console.print(f"Next: {result['next']}", markup=False)
