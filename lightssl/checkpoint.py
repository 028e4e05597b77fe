"""Saving and loading, so that nothing is half-written and nothing that is loaded can run code."""

import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lightssl.errors import CheckpointError
from lightssl.files import atomic_path, write_json

_FORMAT = 1

# What reading a file of another kind, or half of one, can raise.
_DAMAGES = (
    *(RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError),
    *(BadZipFile, SafetensorError),
)


def save_checkpoint(path: Path, *, state: Mapping[str, Any], recipe: Mapping[str, Any], step: int) -> None:
    """Write a training checkpoint in one piece.

    Args:
        path: The file; the one before it stays in place until this one is whole.
        state: Tensors, numbers, texts, lists and dictionaries only.
        recipe: The resolved recipe that this training follows.
        step: Steps done.
    """
    with atomic_path(path) as aside:
        try:
            torch.save({"format": _FORMAT, "step": step, "recipe": dict(recipe), "state": dict(state)}, aside)
        except RuntimeError as error:  # torch's writer reports a full disk so
            raise OSError(str(error)) from error


def load_safely(path: Path, *, if_unsafe: str, if_damaged: str, stand_ins: Mapping[str, type] | None = None) -> Any:
    """Read tensors and plain values without running any code that the file may hold.

    Args:
        path: What safetensors wrote if it is called so, else what ``torch.save`` wrote.
        if_unsafe: What to do, as an error says it, about a file that holds more.
        if_damaged: What to do about one that cannot be read.
        stand_ins: Classes of this project to put in place of others, by the full names of those. They are called as
            the file asks, so they must do nothing.

    Raises:
        CheckpointError: The file is unsafe or damaged.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with path.open("rb") as file:
            if file.read(1) not in (b"P", b"\x80"):  # of a zip file, of a pickle
                raise ValueError("it starts as no file of torch.save does")
        with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in (stand_ins or {}).items()]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and plain values: loading it could run code, so it was not loaded.",
            if_unsafe,
        ) from error
    except _DAMAGES as error:
        raise CheckpointError(
            f"{path} is damaged or not a checkpoint: {str(error).splitlines()[0] if str(error) else error!r}",
            if_damaged,
        ) from error


def load_checkpoint(path: Path, *, recipe: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read a training checkpoint without running any code that it may hold.

    Args:
        path: The file.
        recipe: If given, the recipe that the checkpoint must follow.

    Returns:
        ``{"step": int, "recipe": dict, "state": dict}``.

    Raises:
        CheckpointError: The file is missing, damaged, unsafe, or of another recipe.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint at {path}.", "Was the run stopped before its first checkpoint?")
    checkpoint = load_safely(
        path,
        if_unsafe="Use a checkpoint that lightssl wrote.",
        if_damaged="Resume from another copy, or start the run again.",
    )
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is not a lightssl training checkpoint.", "Use a checkpoint that lightssl wrote.")
    if recipe is not None and (differences := list(_differences(checkpoint["recipe"], recipe))):
        raise CheckpointError(
            f"{path} belongs to another recipe:\n" + "\n".join(f"  - {line}" for line in differences),
            "Resume with the recipe, scale and settings that the run was started with.",
        )
    return checkpoint


def _differences(saved: Any, asked: Any, path: str = "") -> Iterator[str]:
    """Yield one line for each value in which two recipes differ."""
    if isinstance(saved, Mapping) and isinstance(asked, Mapping):
        for key in {**saved, **asked}:
            yield from _differences(saved.get(key), asked.get(key), f"{path}.{key}" if path else str(key))
    elif saved != asked:
        yield f"{path}: the checkpoint has {saved!r}, this recipe {asked!r}"


def save_network(path: Path, network: nn.Module, description: Mapping[str, Any]) -> None:
    """Write a network's weights as safetensors, and a JSON file beside them that says how to build and feed it."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with atomic_path(path) as aside:
        try:
            safetensors.torch.save_file(tensors, aside)
        except SafetensorError as error:
            raise OSError(str(error)) from error
    write_json(path.with_suffix(".json"), dict(description))


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_network` wrote: the tensors, and the description.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    try:
        description = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        return safetensors.torch.load_file(path), description
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"The weights {path} cannot be read: {error}.",
            "They need the .safetensors and the .json file that 'lightssl pretrain' writes at its end.",
        ) from error


def load_strictly(network: nn.Module, tensors: Mapping[str, Tensor], origin: object) -> None:
    """Copy tensors into a network, all of them and nothing else.

    Raises:
        CheckpointError: A name or a shape does not fit; every one is listed.
    """
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"The weights of {origin} do not fit the network: {error}") from error
