"""``import``: from published weights to a backbone."""

from collections.abc import Sequence
from pathlib import Path

from lightssl.backbones.matching import recognise, weights_for
from lightssl.backbones.published import KINDS, Published, read_published
from lightssl.checkpoint import load_strictly, save_network
from lightssl.config.load import dump, load_recipe
from lightssl.config.schema import Card, Recipe
from lightssl.pipeline.building import build_backbone, describe_environment, describe_network, options_of
from lightssl.progress import Narrator, Silent
from lightssl.runs import Run, new_run


def import_weights(
    file: Path | str,
    kind: str,
    *,
    network: str | None = None,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    out: Path | str | None = None,
    narrator: Narrator | None = None,
) -> Run:
    """Make a run of a checkpoint that others published, to evaluate, export and time its backbone.

    Nothing in the file is executed. If it does not fit, nothing is written.

    Args:
        file: What ``torch.save`` or safetensors wrote.
        kind: Who published it: a name in :data:`lightssl.backbones.published.KINDS`.
        network: Which network of the file, such as ``student``; by default the one that its authors evaluate.
        recipe: Says which backbone it is and how it is fed. By default ``BACKBONE_METHOD``: the backbone whose names
            and shapes the file has, and the method of its kind, or DINO.
        overrides: Texts like ``backbone.image_size=384``.
        out: Folder of the run; by default one below ``runs/`` named by time and recipe.
        narrator: Told what was taken and what was left out.

    Returns:
        The run. It has weights and a recipe, and a card that says where they are from; it has no training.

    Raises:
        CheckpointError: The file is missing, damaged, unsafe or of another kind, or its tensors do not fit.
        ConfigError: There is no such kind, network or recipe.
    """
    narrator = narrator or Silent()
    published = read_published(Path(file), kind, network=network)
    name = recipe or f"{recognise(published)}_{published.network.method}"
    resolved = load_recipe(name, overrides=[*KINDS[kind].overrides, *overrides])
    resolved = resolved.model_copy(update={"card": _imported_card(resolved, published)})
    backbone = build_backbone(resolved)
    options = ", ".join(f"{key}={value}" for key, value in options_of(resolved.backbone).items())
    tensors, left_out = weights_for(backbone, f"{resolved.backbone.name} ({options})", published)
    load_strictly(backbone, tensors, published.path)
    imported = {
        "file": published.path.name,
        "kind": kind,
        "network": published.network.role,
        "left_out": left_out,
    }
    description = {**describe_network(resolved, backbone), "imported": imported}

    run = new_run(Path(out) if out is not None else None, resolved.name)
    save_network(run.weights_path, backbone, description)
    run.write_start(dump(resolved), describe_environment(imported=imported))
    evaluation, data = resolved.evaluation, resolved.data
    others = f". It also has: {', '.join(published.others)} (--network)" if published.others else ""
    narrator.say(f"{published.path.name}, from {kind}: took the {published.network.role}{others}")
    narrator.say(f"Left out: {', '.join(left_out) or 'nothing'}")
    narrator.say(f"{resolved.backbone.name}, {description['parameters']:,} parameters: {run.weights_path}")
    narrator.say(
        f"Fed with images of {evaluation.image_size} pixels, mean {list(data.mean)}, std {list(data.std)}. If it was "
        "trained otherwise: --set evaluation.image_size=N --set data.mean=[R,G,B] --set data.std=[R,G,B]"
    )
    return run


def _imported_card(recipe: Recipe, published: Published) -> Card:
    """Replace a recipe's card, so that nobody takes the weights for those of a training with lightssl."""
    return Card(
        title=f"{recipe.backbone.name}, imported from {published.path.name}",
        paper=KINDS[published.kind].paper,
        in_paper=False,
        hardware="not known: the training was not done with lightssl",
        measured=f"weights imported from {published.path.name} ({published.kind}, {published.network.role}). "
        "Of this recipe, only the backbone, data and evaluation apply to them",
    )
