"""Networks that an evaluation makes of a run: runs of their own, in its folder."""

import json
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightssl.checkpoint import load_weights, save_network
from lightssl.errors import CheckpointError
from lightssl.progress import Narrator
from lightssl.runs import Run


def save_made(made: Run, path: Path, network: nn.Module, description: Mapping[str, Any], narrator: Narrator) -> None:
    """Write the network of such a run.

    Another one that is there moves aside with its folder: what was exported, timed and evaluated of it is of no other.

    Args:
        made: The run.
        path: Of its weights.
        network: To be written.
        description: As of :func:`lightssl.checkpoint.save_network`.
        narrator: Told what has moved.
    """
    if path.exists() and not _holds(path, network, description):
        folder = made.folder
        aside = next(one for number in count(1) if not (one := folder.with_name(f"{folder.name}-{number}")).exists())
        folder.rename(aside)
        narrator.say(f"What was in {made} is in {aside} now.")
    save_network(path, network, description)


def _holds(path: Path, network: nn.Module, description: Mapping[str, Any]) -> bool:
    """Tell whether a file holds just this network."""
    try:
        tensors, described = load_weights(path)
    except CheckpointError:
        return False
    own = network.state_dict()
    same = tensors.keys() == own.keys() and all(torch.equal(tensors[name], own[name].cpu()) for name in own)
    return same and described == json.loads(json.dumps(dict(description)))
