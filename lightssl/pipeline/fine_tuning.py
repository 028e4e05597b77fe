"""``evaluate`` for tasks that train the network on, and what they leave behind."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from lightssl.checkpoint import load_checkpoint, load_strictly
from lightssl.config.load import dump
from lightssl.config.schema import Recipe
from lightssl.data.sources import Source
from lightssl.evaluation.fine_tuning import FineTuned, LabelledImages, Start
from lightssl.files import write_text
from lightssl.heads import hidden_layers
from lightssl.methods.base import Method
from lightssl.pipeline.building import (
    PRETRAINED,
    RANDOM,
    build_backbone,
    build_method,
    describe_environment,
    describe_network,
    device_for,
    worker_count,
)
from lightssl.pipeline.loading import load_backbone
from lightssl.pipeline.made import save_made
from lightssl.progress import Narrator
from lightssl.runs import Run


def fine_tunings(
    run: Run,
    recipe: Recipe,
    train: Source,
    test: Source,
    functions: Mapping[str, Callable[[Start, LabelledImages, Narrator], Iterator[FineTuned]]],
    environment: Mapping[str, Any],
    random: bool,
    narrator: Narrator,
) -> dict[str, list[dict[str, Any]]]:
    """Fine-tune the network of a run, and the same network from random initialisation.

    What ``finetune`` makes of the pre-trained one is written to :meth:`Run.made_by`. Where a part of the training
    images was drawn, their names are written to the run folder.

    Args:
        run: The run.
        recipe: Its recipe.
        train: Images with labels.
        test: The same, to test on.
        functions: The tasks by name.
        environment: What a run that is written says of where its images are.
        random: Train the random network as well.
        narrator: Told how it goes.

    Returns:
        Of each task its results: ``network``, ``top1`` in percent, and how it was trained.
    """
    images = LabelledImages(
        train=train,
        test=test,
        size=recipe.evaluation.image_size,
        crop_share=recipe.evaluation.crop_share,
        mean=recipe.data.mean,
        std=recipe.data.std,
        workers=worker_count(recipe),
        device=device_for(),
    )
    results: dict[str, list[dict[str, Any]]] = {task: [] for task in functions}
    for start in (pretrained_start(run, recipe), *([random_start(run, recipe)] if random else [])):
        for task, function in functions.items():
            for ended in function(start, replace(images, under_way=run.under_way_path(task)), narrator):
                results[task].append({"network": start.network, **ended.result})
                if start.network != PRETRAINED:
                    continue
                if len(ended.trained_on) < len(train):
                    names = [ended.trained_on.item_name(index) for index in range(len(ended.trained_on))]
                    share = f"{100 * len(names) / len(train):.3g}"
                    write_text(run.labels_path(task, share), "\n".join(names) + "\n")
                if task == "finetune":
                    _write_classifier(run, recipe, ended, environment, narrator)
                    made = run.made_by(task)
                    narrator.say(f"Classifier: {made}. Ship it: lightssl export {made} --onnx")
    return results


def pretrained_start(run: Run, recipe: Recipe) -> Start:
    """Return where fine-tuning begins after pre-training: with the projection head, where its checkpoint is there."""
    backbone = load_backbone(run)
    if not run.checkpoint_path.exists():
        return Start(PRETRAINED, backbone, None)
    method = build_method(recipe, backbone)
    name = _name_of(method.branch.head, method)
    prefix = f"{name}."
    state = load_checkpoint(run.checkpoint_path)["state"]["method"]
    tensors = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    load_strictly(method.branch.head, tensors, run.checkpoint_path)
    return Start(PRETRAINED, backbone, hidden_layers(method.branch.head))


def random_start(run: Run, recipe: Recipe) -> Start:
    """Return the same network as it is before pre-training."""
    method = build_method(recipe)
    head = hidden_layers(method.branch.head) if run.checkpoint_path.exists() else None
    return Start(RANDOM, build_backbone(recipe), head)


def _name_of(module: nn.Module, method: Method) -> str:
    return next(name for name, other in method.named_modules() if other is module)


def _write_classifier(
    run: Run, recipe: Recipe, ended: FineTuned, environment: Mapping[str, Any], narrator: Narrator
) -> None:
    fine_tuned = run.made_by("finetune")
    description = {**describe_network(recipe, ended.classifier), "fine_tuned": ended.result}
    save_made(fine_tuned, fine_tuned.classifier_path, ended.classifier, description, narrator)
    fine_tuned.write_start(
        dump(recipe), describe_environment(**environment, fine_tuned={"from": run.folder.name, **ended.result})
    )
