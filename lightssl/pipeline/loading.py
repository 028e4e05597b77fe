"""Runs and their networks, as commands are given them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from shutil import copyfile
from typing import Any

from lightssl.backbones import BACKBONES
from lightssl.backbones.base import Backbone
from lightssl.checkpoint import load_strictly, load_weights
from lightssl.config.load import dump, load_recipe, validate
from lightssl.config.schema import Card, Recipe
from lightssl.errors import CheckpointError, ConfigError
from lightssl.evaluation.classifier import Classifier
from lightssl.evaluation.detector import Detector, DetectorOptions
from lightssl.files import atomic_path
from lightssl.pipeline.building import describe_environment
from lightssl.runs import Run, find_run

WEIGHTS = ".safetensors"


def as_run(run: Run | Path | str | None) -> Run:
    """Return a run as it is, or find it by its folder; the latest run for None.

    Weights that lie by themselves, such as a backbone that a training kept or that somebody sent, are made a run of, in
    a folder of the file's name beside it: what is measured has to lie somewhere.

    Raises:
        LightSSLError: There is no such run.
        CheckpointError: The weights are missing or damaged, or their folder holds others.
    """
    if run is None or isinstance(run, Run) or Path(run).suffix != WEIGHTS:
        return run if isinstance(run, Run) else find_run(run)
    path = Path(run)
    owner = Run(path.parent)
    if owner.recipe_path.exists() and owner.weights_path == path:
        return owner
    return _run_of_weights(path)


def load_backbone(run: Run | Path | str | None = None) -> Backbone:
    """Load a pre-trained backbone, in eval mode.

    Args:
        run: A run, its folder, or a ``.safetensors`` file that ``lightssl pretrain`` wrote; by default the latest run.

    Returns:
        A network that maps normalised images [B, 3, H, W] to features [B, D]; of a classifier or a detector, what lies
        below it.
    """
    network = load_network(run)
    return network if isinstance(network, Backbone) else network.backbone


def load_network(run: Run | Path | str | None = None) -> Backbone | Classifier | Detector:
    """Load the network that a run is there for, in eval mode.

    That is a classifier if it was fine-tuned, a detector if it was trained to find objects, else its backbone.

    Args:
        run: As for :func:`load_backbone`.
    """
    if run is not None and not isinstance(run, Run) and Path(run).suffix == ".safetensors":
        path = Path(run)
    else:
        path = as_run(run).weights_path
        if not path.exists():
            raise CheckpointError(
                f"{path.parent} has no pre-trained backbone yet: its training has not come to an end.",
                f"Go on with it: lightssl pretrain --resume {path.parent}",
            )
    tensors, description = load_weights(path)
    options = dict(description["backbone"])
    backbone: Backbone = BACKBONES[options.pop("name")](**options)
    network: Backbone | Classifier | Detector = backbone
    if "detector" in description:
        network = Detector(
            backbone,
            description["classes"],
            mean=description["mean"],
            std=description["std"],
            options=DetectorOptions(**description["detector"]),
        )
    elif "classes" in description:
        network = Classifier(backbone, description["classes"])
    load_strictly(network, tensors, path)
    return network.eval()


def _run_of_weights(path: Path) -> Run:
    """Make a run of weights, or find the one that was made."""
    _, description = load_weights(path)  # better fail before anything is written
    run = Run(path.with_suffix(""))
    kind = "detector" if "detector" in description else "classifier" if "classes" in description else "backbone"
    own = run.folder / f"{kind}{WEIGHTS}"
    if run.recipe_path.exists():
        if not own.exists() or _sha256(own) != _sha256(path):
            raise CheckpointError(
                f"{run} holds a run of other weights than {path}.", f"Move it away, or copy {path.name} elsewhere."
            )
        return run
    recipe, environment = _recipe_of_weights(path, description)
    for suffix in (WEIGHTS, ".json"):
        with atomic_path(own.with_suffix(suffix)) as aside:
            copyfile(path.with_suffix(suffix), aside)
    imported = {"file": path.name, "kind": "lightssl", "network": kind}
    run.write_start(dump(recipe), describe_environment(**environment, imported=imported))
    return run


def _recipe_of_weights(path: Path, description: Mapping[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe that weights were trained by, and where its images are, as far as that is known."""
    trained = Run(path.parent.parent)  # of a backbone that was kept on the way
    if trained.recipe_path.exists():
        environment = {key: value for key, value in trained.environment().items() if key in ("data", "test_data")}
        return validate(trained.recipe(), origin=str(trained.recipe_path)), environment
    backbone = dict(description["backbone"])
    name = backbone.pop("name")
    settings = {f"backbone.{key}": value for key, value in backbone.items() if value is not None}
    settings |= {"evaluation.image_size": description["input_size"]}
    settings |= {f"data.{key}": description[key] for key in ("mean", "std")}
    overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    try:
        recipe = load_recipe(str(description["recipe"]), scale=description["scale"], overrides=overrides)
    except ConfigError:  # somebody's own: only the backbone and how it is fed matter here
        recipe = load_recipe(f"{name}_dino", overrides=overrides)
    card = Card(
        title=f"{name}, from {path.name}",
        paper=recipe.card.paper,
        in_paper=False,
        hardware="not known",
        measured=f"weights from {path.name}. Of this recipe, only the backbone, data and evaluation apply to them",
    )
    return recipe.model_copy(update={"card": card}), {}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
