"""Whether tensors under a publisher's names are a backbone: name by name, shape by shape."""

import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lightssl.backbones import BACKBONES
from lightssl.backbones.base import Backbone
from lightssl.backbones.published import Published, likely_kinds, overview
from lightssl.errors import CheckpointError

_SHOWN = 8  # of the tensors that do not fit, in an error

# Where the parts of a ResNet are in nn.Sequential(*resnet.children()).
_RESNET_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


@dataclass(frozen=True)
class Match:
    """How the tensors of a file fit a backbone.

    Args:
        found: Name of each tensor of the backbone that the file has, with its name there.
        missing: Names of those that it lacks.
        reshaped: Names of those that have another shape, with the shape in the file and the one in the backbone.
        surplus: Names in the file of tensors inside the backbone's modules that the backbone has not.
    """

    found: Mapping[str, str]
    missing: tuple[str, ...]
    reshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    surplus: tuple[str, ...]

    @property
    def problems(self) -> int:
        """Tensors that keep the file from being this backbone; a head is none."""
        return len(self.missing) + len(self.reshaped) + len(self.surplus)


def recognise(published: Published) -> str:
    """Return the name of the backbone, with its default options, that a published network is.

    Raises:
        CheckpointError: It is none; lists what keeps it from being the closest one.
    """
    matches = _match_known(published)
    name = min(matches, key=lambda name: matches[name].problems)
    closest = matches[name]
    if closest.problems:
        details = f"The closest is {name}:\n{_listing(closest)}" if len(closest.found) > closest.problems else ""
        raise CheckpointError(
            f"The {published.network.role} of {published.path}, with {overview(published.names())}, is none of "
            f"{', '.join(matches)}. {details}".strip(),
            likely_kinds(published.tensors, but=published.kind)
            or f"If it is one, with an option: --recipe NAME {_option(closest, published)}. "
            "If it is another network of timm: --recipe NAME --set backbone=timm:NAME.",
        )
    return name


def weights_for(backbone: Backbone, description: str, published: Published) -> tuple[dict[str, Tensor], list[str]]:
    """Return a published network as the state dict of a backbone, and what of the file is left out of it.

    Args:
        backbone: Not changed.
        description: What an error calls the backbone.
        published: The network.

    Raises:
        CheckpointError: It is not this backbone; lists the tensors that do not fit, and says which backbone would.
    """
    result = _match(backbone, published)
    if result.problems:
        fitting = [name for name, found in _match_known(published).items() if not found.problems]
        raise CheckpointError(
            f"The {published.network.role} of {published.path} does not fit {description}:\n{_listing(result)}",
            f"It fits {' and '.join(fitting)}."
            if fitting
            else likely_kinds(published.tensors, but=published.kind)
            or f"If only an option of the backbone differs: {_option(result, published)}.",
        )
    tensors = backbone.state_dict() | {own: published.tensors[theirs] for own, theirs in result.found.items()}
    return tensors, published.left_out(result.found.values())


def _match_known(published: Published) -> dict[str, Match]:
    """Match every backbone that needs no option, with its default ones."""
    matches = {}
    for name in BACKBONES:
        parameters = inspect.signature(BACKBONES[name]).parameters.values()
        if all(parameter.default is not parameter.empty for parameter in parameters):
            with torch.device("meta"):  # names and shapes need neither memory nor random numbers
                backbone: Backbone = BACKBONES[name]()
            matches[name] = _match(backbone, published)
    return matches


def _match(backbone: Backbone, published: Published) -> Match:
    """Match under whichever names fit best."""
    matches = [_match_names(backbone, published, names) for names in _spellings(published.names())]
    return min(matches, key=lambda found: found.problems)


def _spellings(names: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield the names as they are, and those of what may be positions in an ``nn.Sequential``; each with its origin."""
    yield dict(names)
    if not all(name.split(".")[0].isdigit() for name in names):
        return
    parts = [(*name.partition(".")[::2], origin) for name, origin in names.items()]
    yield {f"{_RESNET_CHILDREN.get(first, first)}.{rest}": origin for first, rest, origin in parts}
    # MobileNetV2's list of blocks, by itself or as the only child.
    yield {f"features.{first}.{rest}": origin for first, rest, origin in parts}
    yield {f"features.{rest}": origin for _, rest, origin in parts}


def _match_names(backbone: Backbone, published: Published, names: Mapping[str, str]) -> Match:
    # Backbones keep published names, behind "network." where they hold the publisher's whole module.
    expected = {name.removeprefix("network."): (name, tensor) for name, tensor in backbone.state_dict().items()}
    found, missing, reshaped = {}, [], {}
    for name, (own, tensor) in expected.items():
        if name in names:
            theirs = published.tensors[names[name]]
            if theirs.shape == tensor.shape:
                found[own] = names[name]
            else:
                reshaped[name] = (tuple(theirs.shape), tuple(tensor.shape))
        # Files from before torch 0.4.1 lack these counters. No output depends on them.
        elif not name.endswith(".num_batches_tracked"):
            missing.append(name)
    modules = {name.split(".")[0] for name in expected}
    surplus = [origin for name, origin in names.items() if name not in expected and name.split(".")[0] in modules]
    return Match(found, tuple(missing), reshaped, tuple(surplus))


def _listing(result: Match) -> str:
    lines = [
        *(f"{name}: missing" for name in result.missing),
        *(f"{name}: {_size(theirs)}, the backbone has {_size(own)}" for name, (theirs, own) in result.reshaped.items()),
        *(f"{name}: not in the backbone" for name in result.surplus),
    ]
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n".join(f"  - {line}" for line in lines[:_SHOWN] + more)


def _option(result: Match, published: Published) -> str:
    """Say which option may make a network fit: its image size, where only position embeddings differ."""
    theirs, _ = result.reshaped.get("pos_embed", ((), ()))
    if result.problems == 1 and len(theirs) == 3:
        positions = theirs[1] - 1  # [1, 1 + positions, D]: the class token comes first
        patch = published.tensors[f"{published.network.prefix}patch_embed.proj.weight"].shape[-1]
        return f"--set backbone.image_size={math.isqrt(positions) * patch}"
    return "--set backbone.KEY=VALUE"


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a number"
