"""All candidates of a space in one network that share their weights (Once-for-All, Cai et al. 2019, arXiv 1908.09791).

The supernet is the largest network of the space. A candidate computes with parts of its tensors: the first channels,
the middle of the kernels, the first heads, the first blocks of a stage. For that, each module takes the shape of its
twin in the standalone network; what runs is the code of the backbone itself.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lightssl.backbones import BACKBONES
from lightssl.backbones.base import Backbone
from lightssl.backbones.topology import TopologyBackbone
from lightssl.search.masks import Gates, Masked, Masks
from lightssl.search.spaces import Candidate, Space

# In what a module differs from its twin in a smaller network, besides its tensors.
_SHAPE_ATTRIBUTES = {
    *("in_channels", "out_channels", "kernel_size", "padding", "groups"),  # convolutions
    *("in_features", "out_features", "num_features", "normalized_shape"),  # linear layers, batch and layer norm
    *("num_heads", "attn_dim", "use_res_connect"),  # attention, MobileNetV2's blocks
    *("stages", "map_ends"),  # backbones
}


class Supernet(Backbone):
    """A backbone that is any candidate of a space, one at a time, with weights that all candidates share.

    It starts as the largest candidate. Its features are always as wide as the largest candidate's, so that one head
    serves all: those that a candidate lacks are 0. Running statistics of batch norm are shared as well, and are right
    for no candidate: estimate those of a :meth:`subnet` before it is evaluated. Drop path has the rates of the largest.
    Kernels are taken as they are, without the transformations that Once-for-All learns. To ``torch.compile``, each
    candidate is another network.

    Args:
        space: The candidates.
        options: Of the backbone, as for :meth:`Space.build`.
    """

    active: Candidate

    def __init__(self, space: Space, **options: Any) -> None:
        super().__init__()
        self.space = space
        self.network = space.build(space.largest, **options)
        self.feature_width = self.network.feature_width
        self.smallest_image = self.network.smallest_image
        self._options = options
        self._shapes: dict[str, torch.Size] = {}  # of the tensors that the candidate has, by their names here
        self._masks: Masks | None = None  # of the space, once they are needed
        self._masked: Masked | None = None  # while gates choose the candidate
        _make_children_optional(self.network)
        self.activate(space.largest)

    def activate(self, candidate: Candidate) -> None:
        """Become another candidate.

        Raises:
            ConfigError: It is not in the space.
        """
        self.active = self.space.candidate(candidate.topology, candidate.image_size)
        outline = _outline(self.space.backbone, topology=self.active.topology, **self.space.options, **self._options)
        names = self._own_names(outline)
        twins = {names[name]: module for name, module in outline.named_modules()}
        for name, module in self.network.named_modules():
            if isinstance(module, _OptionalChildren):
                module.present = [child for child in module._modules if f"{name}.{child}" in twins]
            if name in twins:
                for attribute in _SHAPE_ATTRIBUTES & vars(twins[name]).keys():
                    setattr(module, attribute, getattr(twins[name], attribute))
        self._shapes = {_own_tensor(name, names): tensor.shape for name, tensor in outline.state_dict().items()}
        self.stages = self.network.stages
        self._masked = None

    def choose(self, gates: Gates) -> None:
        """Compute as gates choose, with gradients for all of them, until another candidate is activated.

        The largest network then computes all of it, and masks leave out what is not chosen: see
        :mod:`lightssl.search.masks`. Running statistics of batch norm stay as they are.

        Args:
            gates: Of each gene [choices], 1 for the choice and 0 for the others, on the device. Their graph serves one
                backward pass.
        """
        self.activate(self.space.largest)
        if self._masks is None:
            self._masks = Masks(self.space, self.network)
        self._masked = self._masks.of(gates)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W] to pooled features [B, D]; the last are 0 if the candidate has fewer."""
        with self._applied_masks():
            features: Tensor = functional_call(self.network, self._active_tensors(), (images,), tie_weights=False)
        features = F.pad(features, (0, self.feature_width - features.shape[1]))
        if features.requires_grad:
            lacking = [weight for name, weight in self.network.named_parameters() if name not in self._shapes]
            features = _GradientForAll.apply(features, *lacking)
        return features

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Map normalised images [B, 3, H, W] to the candidate's maps: see :meth:`Backbone.feature_maps`."""
        tensors = {f"network.{name}": tensor for name, tensor in self._active_tensors().items()}
        with self._applied_masks():
            maps: list[Tensor] = functional_call(_FeatureMaps(self.network), tensors, (images,), tie_weights=False)
        return maps

    def subnet(self, candidate: Candidate) -> TopologyBackbone:
        """Return a candidate as a network of its own, with a copy of its weights, on the same device.

        Raises:
            ConfigError: It is not in the space.
        """
        candidate = self.space.candidate(candidate.topology, candidate.image_size)
        with _WithoutInitialisation():
            network = self.space.build(candidate, **self._options).to(next(self.parameters()))
        names, whole = self._own_names(network), self.network.state_dict()
        tensors = {}
        for name, tensor in network.state_dict().items():
            own = _own_tensor(name, names)
            tensors[name] = self._part(own, whole[own], tensor.shape)
        network.load_state_dict(tensors)
        return network.train(self.training)

    def _own_names(self, other: TopologyBackbone) -> dict[str, str]:
        """Return the names of the modules of another candidate, each with the name of its twin here."""
        stages = zip(self.network.block_names(), other.block_names(), strict=True)
        moved = {theirs: ours for stage in stages for ours, theirs in zip(*stage, strict=False)}
        names: dict[str, str] = {}
        for name, _ in other.named_modules():
            parent, dot, child = name.rpartition(".")
            names[name] = moved.get(name) or (f"{names[parent]}.{child}" if dot else child)
        return names

    def _applied_masks(self) -> AbstractContextManager[None]:
        return nullcontext() if self._masked is None else self._masked.applied(self.network)

    def _active_tensors(self) -> dict[str, Tensor]:
        if self._masked is not None:
            weights = {name: self.network.get_parameter(name) * mask for name, mask in self._masked.factors.items()}
            return {**weights, **{name: buffer.clone() for name, buffer in self.network.named_buffers()}}
        tensors = chain(self.network.named_parameters(), self.network.named_buffers())
        return {
            name: self._part(name, tensor, self._shapes[name])
            for name, tensor in tensors
            if self._shapes.get(name, tensor.shape) != tensor.shape
        }

    def _part(self, name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
        """Return the part of a tensor that a candidate computes with."""
        groups = next((count for layer, count in self.network.row_groups.items() if f".{layer}." in name), 1)
        if groups == 1:
            return _cut(tensor, shape)
        grouped = tensor.unflatten(0, (groups, -1))
        return _cut(grouped, torch.Size((groups, shape[0] // groups, *shape[1:]))).flatten(0, 1)


def _own_tensor(name: str, own_names: Mapping[str, str]) -> str:
    """Return the name here of a tensor of another candidate, given those of its modules."""
    module, _, key = name.rpartition(".")
    return f"{own_names[module]}.{key}"


def activate(module: nn.Module, candidate: Candidate) -> None:
    """Let every supernet in a module, such as the student and the teacher of a method, become a candidate."""
    for child in module.modules():
        if isinstance(child, Supernet):
            child.activate(candidate)


class _FeatureMaps(nn.Module):
    """Makes a backbone's feature maps what a call returns."""

    def __init__(self, network: Backbone) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.network.feature_maps(images)


class _OptionalChildren(nn.Sequential):
    """An ``nn.Sequential`` that goes past those of its modules that are not in ``present``."""

    def __init__(self, modules: OrderedDict[str, nn.Module]) -> None:
        super().__init__(modules)
        self.present = list(modules)

    def __iter__(self) -> Iterator[nn.Module]:
        return (self._modules[name] for name in self.present)


def _make_children_optional(network: nn.Module) -> None:
    for parent in reversed(list(network.modules())):
        for name, child in parent.named_children():
            if type(child) is nn.Sequential:
                setattr(parent, name, _OptionalChildren(OrderedDict(child.named_children())))


def _cut(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Return a view of the first rows and columns of a tensor, and of the middle of a kernel."""
    starts = [0] * tensor.ndim
    if tensor.ndim == 4:  # of a convolution
        starts[2:] = ((full - size) // 2 for full, size in zip(tensor.shape[2:], shape[2:], strict=True))
    index = tuple(slice(start, start + size) for start, size in zip(starts, shape, strict=True))
    return _Cut.apply(tensor, index) if tensor.requires_grad else tensor[index]  # type: ignore[no-any-return]


class _Cut(torch.autograd.Function):
    """Indexing whose gradient is written once: torch's own makes one of full size for each dimension."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, index: tuple[slice, ...]) -> Tensor:
        ctx.index, ctx.shape, ctx.strides = index, tensor.shape, tensor.stride()
        return tensor[index]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        full = gradient.new_empty_strided(ctx.shape, ctx.strides).zero_()
        full[ctx.index] = gradient
        return full, None


class _GradientForAll(torch.autograd.Function):
    """Gives weights that the candidate lacks the gradient 0, as it has in weights of which the candidate has a part.

    Processes that train together wait for the gradients of all.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, *lacking: Tensor) -> Tensor:
        ctx.lacking = lacking
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return gradient, *map(torch.zeros_like, ctx.lacking)


@lru_cache(maxsize=16)
def _outline(backbone: str, **options: Any) -> TopologyBackbone:
    """Return a network that has shapes but no values. Student and teacher ask for the same one."""
    with torch.device("meta"), _WithoutInitialisation():
        network: TopologyBackbone = BACKBONES[backbone](**options)
    return network


class _WithoutInitialisation(TorchFunctionMode):
    """Leaves tensors as they are made: what would be written into them is not needed, and takes most of the time.

    In place of random numbers there are zeros: torch draws those of a truncated distribution until all are within its
    bounds, where what happens to be in memory may never be.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if not name.endswith("_") or name.endswith("__"):
            return func(*args, **kwargs)
        tensor = (*args, *kwargs.values())[0]
        if name in ("normal_", "uniform_"):
            with torch.no_grad():
                tensor.zero_()
        return tensor
