"""Checkpoints that others published: how their files are laid out, and which of their tensors are a backbone.

Each layout was read in the publisher's own code. Names are told apart in two steps. A file holds one or more networks,
each behind a prefix (``teacher.backbone.``): :func:`read_published` takes one of them. What follows the prefix are the
names of torchvision or timm, which this project's backbones keep, or positions in an ``nn.Sequential`` of their parts:
:mod:`lightssl.backbones.matching` finds out which.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from lightssl.checkpoint import load_safely
from lightssl.errors import CheckpointError, ConfigError
from lightssl.registry import did_you_mean


class Network(NamedTuple):
    """Where one of the networks of a checkpoint lies."""

    role: str  # as --network names it
    prefix: str  # of its tensors; empty for the state dict of one network, which has no other in it
    method: str = "dino"  # that trained it, as recipes are named


@dataclass(frozen=True)
class Kind:
    """What is known of one publisher's checkpoints.

    Args:
        paper: What a recipe's card says of where the weights are from.
        networks: First those that the publisher evaluates. Of prefixes with one role, the first in the file counts.
        overrides: What a recipe needs so that images are fed as in training.
    """

    paper: str
    networks: tuple[Network, ...]
    overrides: tuple[str, ...] = ()


KINDS: Mapping[str, Kind] = {
    # DINO's student is evaluated, unlike in DINO itself. Convolutional networks are in an nn.Sequential, "encoder".
    "sslight": Kind(
        "SSLight: arXiv 2210.02808 (ICLR 2023)",
        (
            Network("student", "student.backbone.encoder."),
            Network("student", "student.backbone."),
            Network("teacher", "teacher.backbone.encoder."),
            Network("teacher", "teacher.backbone."),
            Network("network", "network.backbone.encoder.", "swav"),
            Network("query", "encoder_q.backbone.encoder.", "mocov2"),
            Network("key", "encoder_k.backbone.encoder.", "mocov2"),
        ),
    ),
    "dino": Kind(
        "DINO: arXiv 2104.14294",
        (
            Network("teacher", "teacher.backbone."),
            Network("student", "student.backbone."),
            Network("backbone", ""),
        ),
    ),
    # The authors divide red by 0.228, where others divide by 0.229.
    "swav": Kind(
        "SwAV: arXiv 2006.09882",
        (Network("backbone", "", "swav"),),
        overrides=("data.std=[0.228, 0.224, 0.225]",),
    ),
    "moco": Kind(
        "MoCo-v2: arXiv 2003.04297",
        (Network("query", "encoder_q.", "mocov2"), Network("key", "encoder_k.", "mocov2")),
    ),
    # Of any method's example or benchmark: "backbone" is the teacher of DINO's benchmark and the query of MoCo.
    "lightly": Kind(
        "lightly's examples and benchmarks (github.com/lightly-ai/lightly)",
        (
            Network("teacher", "teacher_backbone."),
            Network("backbone", "backbone.vit."),
            Network("backbone", "backbone."),
            Network("student", "student_backbone.vit."),
            Network("student", "student_backbone."),
            Network("key", "key_backbone."),
            Network("key", "backbone_momentum."),
        ),
    ),
    "torchvision": Kind("torchvision (github.com/pytorch/vision)", (Network("backbone", ""),)),
    "timm": Kind("timm (github.com/huggingface/pytorch-image-models)", (Network("backbone", ""),)),
}


@dataclass(frozen=True)
class Published:
    """One network of a published checkpoint.

    Args:
        path: The file.
        kind: A name in :data:`KINDS`.
        network: Which network of the file this is.
        others: Roles of the other networks in the file.
        tensors: All tensors of the file, of other networks and heads as well.
    """

    path: Path
    kind: str
    network: Network
    others: tuple[str, ...]
    tensors: Mapping[str, Tensor]

    def names(self) -> dict[str, str]:
        """Names of the network's tensors behind its prefix, each with its name in the file."""
        prefix = self.network.prefix
        return {name.removeprefix(prefix): name for name in self.tensors if name.startswith(prefix)}

    def left_out(self, used: Iterable[str]) -> list[str]:
        """Group the tensors of the file that are not among ``used``: ``["fc.* (2 tensors)", "queue"]``."""
        used = set(used)
        groups = Counter(_branch(name, self.network.prefix) for name in self.tensors if name not in used)
        return [
            group if group in self.tensors else f"{group}.* ({count} tensor{'s' * (count > 1)})"
            for group, count in groups.items()
        ]


def _branch(name: str, prefix: str) -> str:
    """Return the start of a name up to the part at which it leaves the prefix, or to the first part behind it."""
    parts = name.split(".")
    shared = 0
    for part, taken in zip(parts, prefix.split("."), strict=False):
        if part != taken:
            break
        shared += 1
    return ".".join(parts[: shared + 1])


def read_published(path: Path, kind: str, *, network: str | None = None) -> Published:
    """Read one network of a published checkpoint; nothing in the file is executed.

    Args:
        path: What ``torch.save`` or safetensors wrote.
        kind: A name in :data:`KINDS`.
        network: Role of one of the networks in the file; by default the one that the publisher evaluates.

    Raises:
        ConfigError: There is no such kind, or no such network in the file.
        CheckpointError: The file is missing, damaged, unsafe, or of another kind.
    """
    if kind not in KINDS:
        hint = " ".join(filter(None, [did_you_mean(kind, list(KINDS)), f"Known: {', '.join(KINDS)}."]))
        raise ConfigError(f"Unknown kind of checkpoint {kind!r}.", hint)
    tensors = _read_tensors(path)
    present = _networks(kind, tensors)
    if not present:
        raise CheckpointError(
            f"{path} is not laid out as one of {kind}: "
            f"no tensor is called {' or '.join(f'{found.prefix}*' for found in KINDS[kind].networks)}. "
            f"It has {overview(tensors)}.",
            likely_kinds(tensors, but=kind) or "Say who published it with --from.",
        )
    role = network or next(iter(present))
    if role not in present:
        raise ConfigError(f"{path} has no network {role!r}.", f"It has: {', '.join(present)}.")
    return Published(path, kind, present[role], tuple(other for other in present if other != role), tensors)


def _networks(kind: str, tensors: Iterable[str]) -> dict[str, Network]:
    """Return the networks that a file holds, by role."""
    found: dict[str, Network] = {}
    for network in KINDS[kind].networks:
        if network.prefix and any(name.startswith(network.prefix) for name in tensors):
            found.setdefault(network.role, network)
    return found or {network.role: network for network in KINDS[kind].networks if not network.prefix}


def likely_kinds(tensors: Iterable[str], *, but: str) -> str | None:
    """Say which kinds of checkpoint, ``but`` one, have networks behind prefixes like those in a file; None if none."""
    kinds = [kind for kind in KINDS if kind != but and any(found.prefix for found in _networks(kind, tensors).values())]
    return f"It looks like --from {' or '.join(kinds)}." if kinds else None


def overview(tensors: Iterable[str]) -> str:
    """Say how the names of tensors begin: ``"conv1.*, layer1.*, queue"``."""
    parts = [name.partition(".") for name in tensors]
    starts = list(dict.fromkeys(f"{first}.*" if rest else first for first, _, rest in parts))
    return ", ".join([*starts[:8], *(["..."] if len(starts) > 8 else [])])


# --------------------------------------------------------------------------------------------------- reading the file


class _Ignored:
    """Stands in for an object that no weight depends on: takes whatever the file gives it, and keeps nothing."""

    def __new__(cls, *_: object) -> "_Ignored":
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


class _IgnoredMapping:
    """Stands in for a dictionary of a class of its own: becomes a plain one."""

    def __new__(cls, *_: object) -> Any:
        return OrderedDict()


# What official training checkpoints hold beside tensors and plain values: their options, and learning rates that numpy
# computed. None of these classes is loaded: ours stand in for them, and do nothing.
_STAND_INS = {
    "argparse.Namespace": _Ignored,  # DINO, timm
    "numpy.dtype": _Ignored,
    "numpy.core.multiarray.scalar": _Ignored,  # DINO, SSLight
    "numpy._core.multiarray.scalar": _Ignored,  # the same, of numpy 2
    "fvcore.common.config.CfgNode": _IgnoredMapping,  # SSLight
}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, without the ``module.`` that training on several devices puts in front."""
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.", "Name the checkpoint that was downloaded.")
    content = load_safely(
        path,
        if_unsafe="If you trust it, save its state dict alone, with torch.save, and import that.",
        if_damaged="Download it again.",
        stand_ins=_STAND_INS,
    )
    if isinstance(content, Mapping):
        content = next(
            (content[key] for key in ("state_dict", "model") if isinstance(content.get(key), Mapping)), content
        )
    tensors = {}
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(value, Tensor):
            tensors[str(name).removeprefix("module.")] = value
        # DINO has a state dict for each of its networks.
        elif isinstance(value, Mapping) and all(isinstance(tensor, Tensor) for tensor in value.values()):
            tensors |= {f"{name}.{str(inner).removeprefix('module.')}": tensor for inner, tensor in value.items()}
    if not tensors:
        raise CheckpointError(f"{path} holds no state dict: no tensors by name.", "Name a checkpoint of a network.")
    return tensors
