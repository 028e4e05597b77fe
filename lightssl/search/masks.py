"""A candidate computed by the whole supernet: what the candidate lacks is multiplied by 0.

That gives every choice a gradient, also those that were not made: how the loss would change if a little of what they
add were there. Gates are one vector a gene, 1 for the choice that is made and 0 for the others; masks are sums of
their products. Each path through the network is masked once, and behind its activation: neither the square of a gate
nor a ReLU has a gradient at 0.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightssl.backbones.topology import BlockPart, TopologyBackbone
from lightssl.search.spaces import Space

Gates = Sequence[Tensor]  # of each gene, [choices]


@dataclass
class Masked:
    """What makes the largest network of a space compute as another one: masks of one set of gates.

    Args:
        before: Hooks on what layers are given, by their names.
        behind: Hooks on what layers return, by their names, in this order.
        factors: Of weights, by their names.
        off: Modules, by their names, and their attributes that are False meanwhile.
    """

    before: list[tuple[str, Callable[..., Any]]] = field(default_factory=list)
    behind: list[tuple[str, Callable[..., Any]]] = field(default_factory=list)
    factors: dict[str, Tensor] = field(default_factory=dict)
    off: list[tuple[str, str]] = field(default_factory=list)

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Mask a network, but for its weights."""
        hooks = [network.get_submodule(name).register_forward_pre_hook(hook) for name, hook in self.before]
        hooks += [network.get_submodule(name).register_forward_hook(hook) for name, hook in self.behind]
        switched = [(network.get_submodule(name), attribute) for name, attribute in self.off]
        values = [getattr(module, attribute) for module, attribute in switched]
        for module, attribute in switched:
            setattr(module, attribute, False)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for (module, attribute), value in zip(switched, values, strict=True):
                setattr(module, attribute, value)


class _Block(NamedTuple):
    """Masks of one block, for each combination of the choices that it depends on: [N, ...], 1 for what is there."""

    name: str
    genes: tuple[int, ...]  # whose choices are combined, those of the last one fastest
    outputs: Tensor | None  # [N, C]
    inputs: Mapping[str, Tensor]  # [N, C]
    norms: Mapping[str, Tensor]  # [N, C]
    kernels: Mapping[str, Tensor]  # [N, 1, 1, K, K]
    adds_input: Tensor | None  # [N]; None where that does not depend on choices
    projection: str
    switch: str


class Masks:
    """The masks of all candidates of a space.

    Args:
        space: The candidates.
        network: The largest of them, on its device.
    """

    def __init__(self, space: Space, network: TopologyBackbone) -> None:
        self._space = space
        self._stages: list[list[_Block]] = []
        like = next(network.parameters())
        widths: Sequence[int | None] = (None,)  # of the stage before
        genes: tuple[int, ...] = ()  # for them
        # The blocks of a stage; what follows the last stage depends on no choice.
        names = network.block_names()[: len(space.stages)]
        for number, (stage, at, blocks) in enumerate(zip(space.stages, space.columns, names, strict=True)):
            masks = []
            for position, name in enumerate(blocks):
                parts = [
                    network.block_part(number, position, width if position else before, width, settings)
                    for before, width, settings in product(widths, stage.widths, stage.blocks)
                ]
                masks.append(_block_masks(name, (*genes, at.width, at.blocks.start + position), parts, like))
                widths, genes = (None,), ()  # further blocks come after one of their own stage
            self._stages.append(masks)
            widths, genes = stage.widths, (at.width,)

    def of(self, gates: Gates) -> Masked:
        """Return what masks the network to what gates choose, with gradients for them."""
        masked = Masked()
        for stage, at, blocks in zip(self._space.stages, self._space.columns, self._stages, strict=True):
            outputs: list[Tensor] = []  # of the blocks of this stage, while the network computes
            for block in blocks:
                _mask_block(masked, block, gates)
                if len(stage.depths) > 1:
                    masked.behind.append((block.name, partial(_keep, outputs)))
            if len(stage.depths) > 1:
                masked.behind.append((blocks[-1].name, partial(_choose, outputs, stage.depths, gates[at.depth])))
        return masked


def _block_masks(name: str, genes: tuple[int, ...], parts: Sequence[BlockPart], like: Tensor) -> _Block:
    def channels(counts: Sequence[int]) -> Tensor:
        return (torch.arange(max(counts)) < torch.tensor(counts)[:, None]).to(like)

    def kernels(sides: Sequence[int]) -> Tensor:
        distance = (torch.arange(max(sides)) - max(sides) // 2).abs()  # from the middle
        inside = distance <= torch.tensor(sides)[:, None] // 2
        return (inside[:, :, None] & inside[:, None, :]).to(like)[:, None, None]

    largest = parts[-1]
    adds_input = [part.adds_input for part in parts]
    return _Block(
        name,
        genes,
        channels([part.outputs or 0 for part in parts]) if largest.outputs is not None else None,
        {layer: channels([part.inputs[layer] for part in parts]) for layer in largest.inputs},
        {layer: channels([part.norms[layer] for part in parts]) for layer in largest.norms},
        {layer: kernels([part.kernels[layer] for part in parts]) for layer in largest.kernels},
        torch.tensor(adds_input).to(like) if len(set(adds_input)) > 1 else None,
        largest.projection,
        largest.switch,
    )


def _mask_block(masked: Masked, block: _Block, gates: Gates) -> None:
    chosen = gates[block.genes[0]]  # of each combination, 1 for the one that is made
    for gene in block.genes[1:]:
        chosen = (chosen[:, None] * gates[gene]).flatten()

    def mask(masks: Tensor) -> Tensor:
        return torch.tensordot(chosen.to(masks), masks, dims=1)

    masked.before += [(layer, partial(_mask_input, mask(masks))) for layer, masks in block.inputs.items()]
    # A layer that several blocks name, such as the one behind all, is masked once.
    known = {layer for layer, _ in masked.behind}
    norms = {layer: masks for layer, masks in block.norms.items() if layer not in known}
    masked.behind += [(layer, partial(_normalise, mask(masks))) for layer, masks in norms.items()]
    masked.factors |= {f"{layer}.weight": mask(masks) for layer, masks in block.kernels.items()}
    if block.adds_input is not None:
        share = mask(block.adds_input)
        if block.projection:
            masked.behind.append((block.projection, partial(_pass_or_project, share)))
        else:
            masked.off.append((block.name, block.switch))
            masked.behind.append((block.name, partial(_add_input, share)))
    if block.outputs is not None:
        masked.behind.append((block.name, partial(_mask_output, mask(block.outputs))))


# ----------------------------------------------------------------------------------------------------------- hooks


def _mask_input(mask: Tensor, _layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (_times(inputs[0], mask),)


def _mask_output(mask: Tensor, _block: nn.Module, _inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return _times(output, mask)


def _times(x: Tensor, mask: Tensor) -> Tensor:
    """Multiply the channels of maps [B, C, H, W], or of tokens [B, N, C]."""
    return x * mask.to(x.dtype).view(-1, *[1] * (x.ndim - 2 if x.ndim == 4 else 0))


def _normalise(mask: Tensor, norm: nn.LayerNorm, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """Normalise over the channels [B, N, C] that are there."""
    x, count = inputs[0].to(mask.dtype), mask.sum()
    centred = x - (x * mask).sum(dim=-1, keepdim=True) / count
    variance = (centred.square() * mask).sum(dim=-1, keepdim=True) / count
    normalised = centred * torch.rsqrt(variance + norm.eps)
    return ((normalised * norm.weight + norm.bias) * mask).to(output.dtype)


def _pass_or_project(passes: Tensor, _projection: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    passes = passes.to(output.dtype)
    return passes * _fit(inputs[0], output) + (1 - passes) * output


def _add_input(share: Tensor, _block: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output + share.to(output.dtype) * _fit(inputs[0], output)


def _fit(x: Tensor, like: Tensor) -> Tensor:
    """Give maps as many channels as others have."""
    return F.pad(x[:, : like.shape[1]], (0, 0, 0, 0, 0, max(0, like.shape[1] - x.shape[1])))


def _keep(outputs: list[Tensor], _block: nn.Module, _inputs: tuple[Tensor], output: Tensor) -> None:
    outputs.append(output)


def _choose(
    outputs: list[Tensor],
    depths: Sequence[int],
    gates: Tensor,
    _block: nn.Module,
    _inputs: tuple[Tensor],
    output: Tensor,
) -> Tensor:
    """Return the output of the block at which a stage ends."""
    chosen = sum(gate.to(output) * outputs[depth - 1] for gate, depth in zip(gates, depths, strict=True))
    outputs.clear()
    return chosen  # type: ignore[return-value]
