"""``lightssl evaluate``."""

from typing import Annotated, Any, Optional

import typer

from lightssl.cli.examples import examples
from lightssl.cli.options import RunArgument
from lightssl.cli.terminal import Terminal, console, print_json, print_table
from lightssl.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "lightssl evaluate",
            "lightssl evaluate --task knn --set 'knn.k=[10,20]' --json",
            "lightssl evaluate --task mlp",
            "lightssl evaluate --task linear --stages",
            "lightssl evaluate --task logistic --set logistic.epochs=1000",
            "lightssl evaluate --task linear_cv --set linear_cv.epochs=30",
            "lightssl evaluate --task semi --set 'semi.labels=[0.2]' --set 'semi.epochs=[20]'",
            "lightssl evaluate --task finetune",
            "lightssl evaluate --task labelfree",
            "lightssl evaluate --task detect --data coco/",
            "lightssl evaluate --suite mine --task knn --no-random --data photos/ --data sample",
            "lightssl evaluate --checkpoints --task knn --task labelfree",
        )
    )(evaluate)


def evaluate(
    run: RunArgument = None,
    task: Annotated[
        Optional[list[str]],
        typer.Option(
            help="knn; linear, a probe solved to its end; mlp, one with a hidden layer; logistic, one by a long "
            "schedule of SGD, to see it converge; linear_cv, one by SGD with cross-validated settings, as published. "
            "These take features as they are. linear_augmented "
            "is a probe on crops that change, as published; semi trains the network on, with "
            "few labels; finetune with all, to a classifier in RUN/finetune that export takes. labelfree measures "
            "features without labels. detect and segment train Faster and Mask R-CNN on COCO data, to a detector in "
            "RUN/detect or RUN/segment. Repeat for more.",
            show_default="knn and linear",
        ),
    ] = None,
    data: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Labelled images: first-level folder names are labels. In a suite, repeat for more. For detect and "
            "segment, a COCO file or folder.",
            show_default="the run's",
        ),
    ] = None,
    test_data: Annotated[
        Optional[str],
        typer.Option(help="Labelled test images, if they lie elsewhere.", show_default=False),
    ] = None,
    set_: Annotated[
        Optional[list[str]],
        typer.Option("--set", metavar="TASK.KEY=VALUE", help="Change one option of a task; repeat for more."),
    ] = None,
    stages: Annotated[
        bool, typer.Option("--stages", help="Measure every stage of the network, to see which represents best.")
    ] = False,
    random: Annotated[
        bool,
        typer.Option("--random/--no-random", help="Whether to measure the network at random initialisation, too."),
    ] = True,
    suite: Annotated[
        Optional[str],
        typer.Option(
            help="Measure on several data sets: one_network, the eleven of that paper, or a name of yours for those "
            "of --data.",
            show_default=False,
        ),
    ] = None,
    checkpoints: Annotated[
        bool,
        typer.Option("--checkpoints", help="Compare the backbones that train.keep_every kept on the way."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Measure what a network has learned, beside the same network at random initialisation."""
    from lightssl import pipeline
    from lightssl.evaluation import DEFAULT_EVALUATIONS, DETECTIONS, LABEL_FREE

    if suite is not None:
        if test_data or stages or checkpoints:
            raise ConfigError(
                "--suite goes with --task, --data and --set alone.", "Data sets of a suite bring their own test images."
            )
        found = pipeline.evaluate_suite(
            suite,
            run,
            data=data or (),
            tasks=task or DEFAULT_EVALUATIONS,
            overrides=set_ or (),
            random=random,
            narrator=Terminal(),
        )
        print_json(found) if json else _print_suite(found)
        return
    if len(data or ()) > 1:
        raise ConfigError("Several --data make a suite.", "Give it a name: --suite NAME")
    written = pipeline.evaluate(
        run,
        tasks=task or DEFAULT_EVALUATIONS,
        data=data[0] if data else None,
        test_data=test_data,
        overrides=set_ or (),
        stages=stages,
        checkpoints=checkpoints,
        random=random,
        narrator=Terminal(),
    )
    if json:
        print_json(written)
        return
    if checkpoints:
        _print_checkpoints(written)
        return
    for task_name in LABEL_FREE:
        if task_name in written:
            _print_measures(written.pop(task_name)["results"])
    for task_name in DETECTIONS:
        if task_name in written:
            _print_precisions(task_name, written.pop(task_name))
    if not written:
        return
    first = next(iter(written.values()))
    table: dict[str, dict[str, str]] = {}
    for task_name, result in written.items():
        for row in result["results"]:
            table.setdefault(_name(row), {})[task_name] = f"{row['top1']:.1f} %"
    rows = [[name, *(found.get(one, "") for one in written)] for name, found in table.items()]
    print_table("Top-1 accuracy on the test images", ["network", *written], rows)
    console.print(first["data"]["split"])
    for name, result in written.items():
        for row in result["results"]:
            for setting, top1 in row.get("others", {}).items():
                console.print(f"{name}, {_name(row)}, {setting}: {top1:.1f} %", markup=False, highlight=False)


def _print_suite(found: dict[str, Any]) -> None:
    from lightssl.evaluation.tables import by_data

    heads, rows = by_data(found)
    print_table(f"Top-1 accuracy on the test images, suite {found['suite']}", heads, rows)


def _print_checkpoints(written: dict[str, dict[str, Any]]) -> None:
    from lightssl.evaluation.agreement import by_checkpoint, sentences

    steps, measures = by_checkpoint(written)
    cells = [
        [f"{step:,}", *("-" if values[place] is None else f"{values[place]:.3f}" for values in measures.values())]
        for place, step in enumerate(steps)
    ]
    print_table("Backbones that were kept on the way", ["steps", *measures], cells)
    for sentence in sentences(steps, measures):
        console.print(sentence, highlight=False)


def _print_measures(rows: list[dict[str, Any]]) -> None:
    names = [name for name in rows[0] if name not in ("network", "images")]
    cells = [[row["network"], *("-" if row[name] is None else f"{row[name]:.3f}" for name in names)] for row in rows]
    print_table(f"Without labels, of {rows[0]['images']:,} training images", ["network", *names], cells)
    console.print("Better: a higher rank, alpha near 1, lower alignment and uniformity. Compare like with like.")


def _print_precisions(task: str, written: dict[str, Any]) -> None:
    from lightssl.evaluation.tables import precisions

    heads, rows = precisions(written["results"])
    what = "masks" if task == "segment" else "boxes"
    print_table(f"Average precision of {what} on the test images, %", heads, rows)
    console.print(written["data"]["split"])


def _name(row: dict[str, Any]) -> str:
    return ", ".join(str(row[key]) for key in ("network", "labels", "stage") if key in row)
