"""One self-contained HTML page about a run: it loads nothing, so it opens anywhere and can be sent to anybody.

What is not in the run folder yet is named on the page, with the command that makes it.
"""

import re
import shlex
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from math import isfinite, sqrt
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup
from pydantic import ValidationError

from lightssl.evaluation import DEFAULT_EVALUATIONS, DETECTIONS, EVALUATIONS
from lightssl.evaluation.agreement import LABEL_FREE_MEASURES, by_checkpoint, sentences
from lightssl.evaluation.tables import by_data, precisions
from lightssl.files import read_json_lines
from lightssl.reports.plots import curve
from lightssl.reports.reading import accuracies, exported_files, is_number, mapping, mappings, read_mapping
from lightssl.reports.template import write_page
from lightssl.runs import Run, find_run
from lightssl.views.plan import ViewPlan

SKIPPED_SHOWN = 200

TITLES = {  # of evaluations; others go by their own name
    "knn": "kNN",
    "linear": "Linear probe",
    "mlp": "Probe with a hidden layer",
    "logistic": "Linear classifier by a long schedule of SGD",
    "linear_cv": "Linear classifier by cross-validated SGD",
    "linear_augmented": "Linear classifier on augmented images",
    "semi": "Fine-tuning on few labels",
    "finetune": "Fine-tuning",
    "detect": "Object detection",
    "segment": "Instance segmentation",
}

# What is known of the logged quantities; others are drawn after these, under their own names.
QUANTITIES = {
    "loss": ("Loss", "What training minimises. A falling loss alone does not mean better features."),
    "knn_top1": ("kNN during training, %", "Test images named right."),
    "learning_rate": ("Learning rate", ""),
    "weight_decay": ("Weight decay", ""),
    "teacher_temperature": ("Teacher temperature", "Lower is sharper."),
    "teacher_momentum": ("Teacher momentum", "Share of itself the teacher keeps each step."),
    "teacher_entropy": ("Teacher entropy, nats", "Near 0, or near the log of the prototypes: collapsed."),
    "kl": ("Divergence of student from teacher, nats", ""),
    "feature_std": ("Feature spread", "0: every image gets the same feature. 1: spread over all directions alike."),
    "effective_rank": ("Effective rank", "Directions that the features of a batch spread over."),
    "images_per_s": ("Images a second", ""),
}

# Column titles of the latency table, and how a value is written.
MEASURES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "runtime": ("Runtime", str),
    "threads": ("Threads", str),
    "latency_ms_p50": ("p50, ms", "{:.2f}".format),
    "latency_ms_low": ("At least, ms", "{:.2f}".format),
    "latency_ms_high": ("At most, ms", "{:.2f}".format),
    "latency_ms_p90": ("p90, ms", "{:.2f}".format),
    "latency_ms_p99": ("p99, ms", "{:.2f}".format),
    "precision": ("Precision", str),
    "batch": ("Batch", str),
    "model_bytes": ("Model, MB", lambda value: f"{value / 1e6:.1f}"),
    "peak_memory_mib": ("Peak memory, MiB", "{:.0f}".format),
    "load_ms": ("Load, ms", "{:.0f}".format),
    "first_run_ms": ("First run, ms", "{:.1f}".format),
}


def write_report(run_folder: Path, out: Path | None = None, *, distributions: bytes | None = None) -> Path:
    """Write the page about a run.

    Args:
        run_folder: Folder that ``lightssl pretrain`` wrote. Only its recipe is needed, all else is shown when there.
        out: The page; by default ``report.html`` in the run folder.
        distributions: Picture of how the views are distributed, as PNG.

    Returns:
        Where the page is.

    Raises:
        LightSSLError: The folder is missing, is not a run, or the page cannot be written.
    """
    run = find_run(run_folder)
    out = out or run.report_path
    write_page(out, "page.html.jinja", **_contents(run), distributions=_embedded(distributions))
    return out


def _contents(run: Run) -> dict[str, Any]:
    recipe, environment = run.recipe(), run.environment()
    commands = _commands(run, recipe)
    evaluations = [shown for task in EVALUATIONS if (shown := _evaluation(task, run))]
    done = {shown["task"] for shown in evaluations}
    neighbours = read_mapping(run.evaluation_path("neighbours"))
    skipped = [row for row in read_json_lines(run.skipped_path) if "name" in row]
    name = str(recipe.get("name", run.folder.name))
    trained_here, fine_tuned = not environment.keys() & {"imported", "fine_tuned"}, _fine_tuned(environment)
    return {
        "title": f"{name}, scale {recipe['scale']}"
        if "scale" in recipe and trained_here
        else f"{name}, fine-tuned"
        if fine_tuned
        else name,
        "fine_tuned": bool(fine_tuned),
        "trained_here": trained_here,
        "origin": _imported(environment),
        "facts": _facts(environment),
        "verdict": [fine_tuned]
        if fine_tuned
        else [verdict for task in evaluations for verdict in task["verdicts"] if verdict]
        or ["What the features are worth has not been measured yet."],
        "evaluations": evaluations,
        "label_free": _label_free(run),
        **_checkpoints(run),
        "detections": [shown for task in DETECTIONS if (shown := _detection(task, run))],
        "suites": _suites(run),
        "missing_tasks": [
            {"title": TITLES.get(task, task), "command": f"{commands['evaluate']} --task {task}"}
            for task in DEFAULT_EVALUATIONS
            if task not in done and not fine_tuned
        ],
        **_training(read_json_lines(run.metrics_path)),
        "view_plan": _view_plan(recipe.get("views")),
        "views_image": _png(run.views_path),
        "gallery": _gallery(neighbours),
        "gallery_seed": neighbours.get("seed"),
        "models": _models(run),
        "benches": [bench for path in sorted((run.folder / "bench").glob("*.json")) for bench in _benches(path)],
        "card": _pairs(recipe.get("card")),
        "recipe_text": yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100),
        "environment": _pairs({key: value for key, value in environment.items() if key != "versions"}),
        "versions": _pairs(environment.get("versions")),
        "skipped": [{"name": row["name"], "reason": row.get("reason", "")} for row in skipped[:SKIPPED_SHOWN]],
        "skipped_count": f"{len(skipped):,} image{'s' if len(skipped) != 1 else ''}",
        "skipped_more": f"The first {SKIPPED_SHOWN} are shown." if len(skipped) > SKIPPED_SHOWN else "",
        "commands": commands,
        "next_steps": _next_steps(run, recipe, commands, trained_here=trained_here),
    }


def _png(path: Path) -> str:
    """Return a PNG file as a ``data:`` address; empty when there is none."""
    try:
        return _embedded(path.read_bytes())
    except OSError:
        return ""


def _embedded(png: bytes | None) -> str:
    """Return the content of a PNG file as a ``data:`` address; empty when it is none."""
    if png is None or not png.startswith(b"\x89PNG\r\n\x1a\n"):
        return ""
    return f"data:image/png;base64,{b64encode(png).decode('ascii')}"


# ----------------------------------------------------------------------------------------------------------- evaluation


def _evaluation(task: str, run: Run) -> dict[str, Any] | None:
    """Return what the page shows of one evaluation, or None without a usable result."""
    written = read_mapping(run.evaluation_path(task))
    rows = [row for row in mappings(written.get("results")) if is_number(row.get("top1")) and "network" in row]
    if not rows:
        return None
    # The random networks name themselves; everything else was trained.
    shown = [
        {
            "network": ", ".join(str(row[key]) for key in ("network", "labels", "stage") if key in row),
            "stage": row.get("stage"),
            "labels": row.get("labels"),
            "top1": row["top1"],
            "pretrained": not str(row["network"]).startswith("random"),
        }
        for row in rows
    ]
    settings = {key: value for key, value in rows[0].items() if key not in ("network", "labels", "top1", "curve")}
    points = [
        row for row in mappings(rows[0].get("curve")) if is_number(row.get("epoch")) and is_number(row.get("top1"))
    ]
    data = written.get("data")
    title = TITLES.get(task, task)
    return {
        "task": task,
        "title": title,
        "rows": shown,
        "details": _sentence({**settings, **(data if isinstance(data, dict) else {})}),
        "verdicts": [
            _verdict(title if labels is None else f"{title}, {labels}:", compared, rows[0].get("test_images"))
            for labels in dict.fromkeys(row["labels"] for row in shown)
            if (compared := [row for row in shown if row["stage"] is None and row["labels"] == labels])
        ],
        "curve": _convergence(task, points) if points else "",
    }


def _label_free(run: Run) -> dict[str, Any] | None:
    """Return what the page shows of measures that take no labels."""
    rows = [row for row in mappings(read_mapping(run.evaluation_path("labelfree")).get("results")) if "network" in row]
    names = [name for name in LABEL_FREE_MEASURES if any(is_number(row.get(name)) for row in rows)]
    if not names:
        return None
    return {
        "heads": ["Network", *(f"{name} ({LABEL_FREE_MEASURES[name]})" for name in names)],
        "rows": [[str(row["network"]), *(_text(row.get(name)) for name in names)] for row in rows],
        "images": _text(rows[0].get("images")),
    }


def _detection(task: str, run: Run) -> dict[str, Any] | None:
    """Return what the page shows of a task that finds objects."""
    written = read_mapping(run.evaluation_path(task))
    rows = [row for row in mappings(written.get("results")) if is_number(row.get("ap")) and "network" in row]
    if not rows:
        return None
    heads, cells = precisions(rows)
    how: dict[str, Any] = {key: rows[0][key] for key in ("iterations", "batch_size", "learning_rate") if key in rows[0]}
    return {
        "title": TITLES[task],
        "heads": heads,
        "rows": cells,
        "details": _sentence({**how, **mapping(written.get("data"))}),
        "picture": _png(run.picture_path(task)),
    }


def _suites(run: Run) -> list[dict[str, Any]]:
    """Return a table for each suite of data sets."""
    tables = []
    for path in sorted(run.suite_path("").parent.glob("*.json")):
        found = read_mapping(path)
        rows = [
            row for row in mappings(found.get("rows")) if is_number(row.get("top1")) and {"data", "task"} <= row.keys()
        ]
        if rows:
            heads, cells = by_data({"rows": rows})
            tables.append({"name": path.stem, "heads": heads, "rows": cells})
    return tables


def _checkpoints(run: Run) -> dict[str, Any]:
    """Return a panel for each measure of the backbones that were kept on the way, and what they say."""
    written = {}
    for task in EVALUATIONS:
        result = read_mapping(run.checkpoints_path(task))
        if (rows := mappings(result.get("results"))) and all(is_number(row.get("step")) for row in rows):
            written[task] = {"results": rows}
    try:
        steps, measures = by_checkpoint(written)
    except KeyError:  # of another version
        return {"checkpoint_panels": [], "checkpoint_sentences": []}
    panels = []
    for name, values in measures.items():
        points = [(step, value) for step, value in zip(steps, values, strict=True) if is_number(value)]
        if len(points) > 1:
            better = LABEL_FREE_MEASURES.get(name)
            panels.append(
                {
                    "title": f"{TITLES.get(name, name)}" + ("" if better else ", %"),
                    "note": f"Better: {better}." if better else "Test images named right.",
                    "svg": Markup(curve(*zip(*points, strict=True), name=f"checkpoints-{name}", x_label="step")),
                }
            )
    return {"checkpoint_panels": panels, "checkpoint_sentences": sentences(steps, measures) if panels else []}


def _convergence(task: str, points: Sequence[Mapping[str, Any]]) -> Markup:
    trained = points[1:] or points  # the first is chance, far below all others
    epochs, top1 = ([row[key] for row in trained] for key in ("epoch", "top1"))
    return Markup(curve(epochs, top1, name=f"convergence-{task}", x_label="epoch"))


def _verdict(title: str, rows: Sequence[Mapping[str, Any]], test_images: Any) -> str:
    """Say in one sentence what pre-training gained over the better of the random networks."""
    trained = [row["top1"] for row in rows if row["pretrained"]]
    random = [row["top1"] for row in rows if not row["pretrained"]]
    if not trained:
        return ""
    if not random:
        return f"{title} {trained[0]:.1f} % after pre-training; not compared with random initialisation."
    after, before = trained[0], max(random)
    gain = f"{after - before:+.1f}".replace("-", "\N{MINUS SIGN}")
    numbers = (
        f"{title} {after:.1f} % after pre-training, {before:.1f} % for the same network at random initialisation: "
        f"{gain} points."
    )
    chance = _chance(after, before, test_images)
    if chance is not None and abs(after - before) < chance:
        return (
            f"{numbers} No clear difference: with {test_images:,} test images, "
            f"less than {chance:.1f} points may be chance."
        )
    return numbers if after > before else f"{numbers} Pre-training made the features worse."


def _chance(after: float, before: float, test_images: Any) -> float | None:
    """Return two standard errors of the difference of two percentages; None when the number of images is unknown."""
    if not isinstance(test_images, int) or test_images < 1:
        return None
    return 2 * sqrt((after * (100 - after) + before * (100 - before)) / test_images)


# ------------------------------------------------------------------------------------------------------------- training


def _training(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a panel for each quantity that changed, and the constant ones in words."""
    rows = [row for row in rows if is_number(row.get("step"))]
    if not rows:
        return {"panels": [], "training_facts": ""}
    axis = "epoch" if all(is_number(row.get("epoch")) for row in rows) else "step"
    names = {name: None for row in rows for name in row if name not in ("step", "epoch")}
    panels, constant = [], {}
    for name in sorted(names, key=lambda name: list(QUANTITIES).index(name) if name in QUANTITIES else len(QUANTITIES)):
        points = [(row[axis], row[name]) for row in rows if is_number(row.get(name))]
        if not points:
            continue
        x, y = zip(*points, strict=True)
        title, note = QUANTITIES.get(name, (name.replace("_", " "), ""))
        if len(y) > 1 and len(set(y)) == 1:
            constant[title] = y[0]
            continue
        last = f"Last: {y[-1]:.4g}." if isfinite(y[-1]) else "Last: not finite."
        svg = Markup(curve(x, y, name=name, x_label=axis))
        panels.append({"title": title, "note": f"{note} {last}".strip(), "svg": svg})
    facts = f"{rows[-1]['step'] + 1:,} steps"
    if axis == "epoch":
        facts += f", {rows[-1]['epoch']:.4g} epochs"
    if constant:
        facts += "; the same throughout: " + ", ".join(
            f"{title.lower()} {value:g}" for title, value in constant.items()
        )
    return {"panels": panels, "training_facts": f"{facts}."}


def _imported(environment: Mapping[str, Any]) -> str:
    """Say where weights are from that lightssl did not train; empty for others."""
    origin = mapping(environment.get("imported"))
    source = f"{origin.get('file')} ({origin.get('kind')}, {origin.get('network')})"
    return f"The weights were imported from {source}, not trained with lightssl." if origin else ""


def _fine_tuned(environment: Mapping[str, Any]) -> str:
    """Say what a classifier or a detector is, and what it is worth; empty for a backbone."""
    tuned = mapping(environment.get("fine_tuned"))
    if is_number(tuned.get("ap")):
        return (
            f"A detector, trained from {tuned.get('from')} on {_text(tuned.get('train_images'))} photographs. Its "
            f"average precision on {_text(tuned.get('test_images'))} test photographs is {tuned['ap']:.1f} %."
        )
    if not is_number(tuned.get("top1")):
        return ""
    return (
        f"A classifier, fine-tuned from {tuned.get('from')} on {_text(tuned.get('train_images'))} labelled images. It "
        f"names {tuned['top1']:.1f} % of {_text(tuned.get('test_images'))} test images right."
    )


def _view_plan(views: Any) -> str:
    try:
        return ViewPlan.model_validate(views).describe()
    except ValidationError:  # of a recipe older or newer than this version
        return ""


# ----------------------------------------------------------------------------------------------------------- neighbours


def _gallery(neighbours: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {**_picture(query), "neighbours": [_picture(neighbour) for neighbour in mappings(query.get("neighbours"))]}
        for query in mappings(neighbours.get("queries"))
    ]


def _picture(row: Mapping[str, Any]) -> dict[str, str]:
    image, similarity = str(row.get("image", "")), row.get("similarity")
    # Nothing but an image in the file itself: an address would make the page load something.
    embedded = re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]*", image)
    return {
        "image": image if embedded else "data:,",
        "label": str(row.get("label", "")),
        "similarity": f"{similarity:.2f}" if is_number(similarity) else "",
    }


# -------------------------------------------------------------------------------------------------------------- latency


def _models(run: Run) -> list[dict[str, str]]:
    """Describe each exported file by the manifest beside it, and by what is known of its accuracy."""
    entries = {str(row.get("file")): row for row in exported_files(run)}
    accuracy = accuracies(run)
    models = []
    for path in sorted(run.onnx_path.parent.glob("*.onnx")):
        entry = entries.get(path.name, {})
        parity = mapping(entry.get("parity"))
        facts = {
            **{key: entry.get(key) for key in ("precision", "architecture", "opset")},
            "largest_error": parity.get("max_error"),
            "cosine_with_torch": parity.get("cosine"),
            "accuracy_%": accuracy.get(str(entry.get("sha256"))),
        }
        models.append({"name": path.name, "facts": f"{path.stat().st_size / 1e6:.1f} MB. {_sentence(facts)}".strip()})
    return models


def _benches(path: Path) -> list[dict[str, Any]]:
    """Return one table a device of a file of measurements; columns that no row fills are left out."""
    by_device: dict[str, list[dict[str, Any]]] = {}
    for row in mappings(read_mapping(path).get("rows")):
        by_device.setdefault(str(row.get("device", "unknown device")), []).append(row)
    tables = []
    picture = _png(path.with_suffix(".operators.png"))
    for device, rows in by_device.items():
        columns = [key for key in MEASURES if any(row.get(key) is not None for row in rows)]
        tables.append(
            {
                "title": f"{path.stem}: {device}{', predicted' if rows[0].get('kind') == 'predicted' else ''}",
                "heads": [MEASURES[key][0] for key in columns],
                "rows": [[_measure(key, row) for key in columns] for row in rows],
                "operators": picture if any(row.get("operators") for row in rows) else "",
            }
        )
    return tables


def _measure(key: str, row: Mapping[str, Any]) -> str:
    value, form = row.get(key), MEASURES[key][1]
    if value is None:
        return "\N{EN DASH}"
    if key == "runtime":
        return f"{value} {row.get('runtime_version', '')}".strip()
    return form(value) if is_number(value) else str(value)


# ---------------------------------------------------------------------------------------------------------------- words


def _facts(environment: Mapping[str, Any]) -> str:
    machine = environment.get("machine")
    device = machine.get("cpu") if isinstance(machine, dict) else None
    started, data = _moment(environment.get("started")), environment.get("data")
    parts = [f"on {data}" if data else "", f"started {started}" if started else "", f"on {device}" if device else ""]
    return ", ".join(part for part in parts if part)


def _moment(text: Any) -> str:
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M %Z}".strip()
    except (TypeError, ValueError):
        return str(text or "")


def _sentence(values: Mapping[str, Any]) -> str:
    """``{"k": 20, "test_images": 2000}`` as "k 20, test images 2,000."""
    text = ", ".join(
        f"{str(key).replace('_', ' ')} {_text(value)}" for key, value in values.items() if value is not None
    )
    return f"{text.removesuffix('.')}." if text else ""


def _text(value: Any) -> str:
    if isinstance(value, bool) or not is_number(value):
        if isinstance(value, dict):
            return ", ".join(f"{str(key).replace('_', ' ')} {_text(item)}" for key, item in value.items())
        return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _pairs(values: Any) -> list[tuple[str, str]]:
    if not isinstance(values, dict):
        return []
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if key == "command" and isinstance(value, list):
            rows.append((key, shlex.join(map(str, value))))
        elif isinstance(value, dict) and key == "machine":
            rows.extend(_pairs(value))
        elif value not in (None, [], {}):
            rows.append((str(key).replace("_", " "), _text(value)))
    return rows


def _commands(run: Run, recipe: Mapping[str, Any]) -> dict[str, str]:
    folder = shlex.quote(str(run.folder))
    name = shlex.quote(str(recipe.get("name", "mobilenetv2_dino")))
    return {
        "pretrain": f"lightssl pretrain --recipe {name}",
        "resume": f"lightssl pretrain --resume {folder}",
        "longer": f"lightssl pretrain --recipe {name} --scale quick --set train.duration='16 epochs'",
        "own": f"lightssl pretrain --recipe {name} --scale small --data YOUR_IMAGES",
        "published": f"lightssl recipes show {name} --scale paper",
        "evaluate": f"lightssl evaluate {folder}",
        "export": f"lightssl export {folder} --onnx",
        "bench": f"lightssl bench {shlex.quote(str(run.onnx_path))} --target cpu",
    }


def _next_steps(
    run: Run, recipe: Mapping[str, Any], commands: Mapping[str, str], *, trained_here: bool
) -> list[dict[str, str]]:
    steps = []
    if not run.weights_path.exists():
        steps.append({"why": "This training has not come to its end. Go on with it:", "command": commands["resume"]})
    measured = mapping(recipe.get("card")).get("measured")
    if trained_here:
        steps.append(
            {
                "why": "A longer training on two CPU cores." + (f" Measured so far: {measured}" if measured else ""),
                "command": commands["longer"],
            }
        )
    steps.append({"why": "Your own images, on one GPU:", "command": commands["own"]})
    steps.append({"why": "What the published recipe takes, in full:", "command": commands["published"]})
    return steps
