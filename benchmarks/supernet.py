"""What sharing weights costs: a training step of a supernet beside steps of the same candidates on their own::

    python -m benchmarks.supernet

A step is forward and backward of bare backbones, in fp32, under the sandwich rule: the largest candidate, the smallest
and two random ones, whose gradients add up. Both sides see the same images and candidates, in turns. What counts is for
how many seconds the processor worked, in the median round: that depends less on what else a machine does. One thread.
"""

import argparse
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightssl.files import write_json
from lightssl.layers import use_training_layers
from lightssl.machine import describe_machine, versions
from lightssl.search.spaces import SPACES, Candidate, Space
from lightssl.search.supernet import Supernet, activate
from lightssl.train.host import prepare_host

RESULT = Path(__file__).parent / "results" / "supernet.json"
RANDOM_CANDIDATES = 2


def main() -> None:
    """Time every space, print a table and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=96, help="of the images, in pixels")
    options = parser.parse_args()
    prepare_host()
    torch.set_num_threads(1)
    rows = []
    for space in SPACES.values():
        rows.append(
            measure(space, rounds=options.rounds, images=torch.randn(options.batch, 3, options.size, options.size))
        )
        print("{space}: {supernet_s} s, alone {alone_s} s, ratio {ratio}".format(**rows[-1]), flush=True)
    write_json(
        RESULT,
        {
            "what": "processor seconds of forward and backward of four candidates, in a supernet and on their own",
            "measured": datetime.now(UTC).date().isoformat(),
            "rounds": options.rounds,
            "batch": options.batch,
            "image_size": options.size,
            "machine": describe_machine(),
            "versions": versions(),
            "rows": rows,
        },
    )


def measure(space: Space, *, rounds: int, images: Tensor) -> dict[str, Any]:
    """Time one space."""
    generator = np.random.default_rng(0)
    images = images.contiguous(memory_format=torch.channels_last)
    supernet = as_trained(Supernet(space))
    supernet_s, alone_s = [], []
    for _ in range(1 + rounds):
        drawn = space.sample(generator, RANDOM_CANDIDATES)
        candidates = [space.largest, space.smallest, *map(space.decode, drawn)]
        alone = [as_trained(space.build(candidate)) for candidate in candidates]
        start = time.process_time()
        shared_step(supernet, candidates, images)
        middle = time.process_time()
        for network in alone:
            step(network, images)
        supernet_s.append(middle - start)
        alone_s.append(time.process_time() - middle)
    ratios = [ours / theirs for ours, theirs in zip(supernet_s[1:], alone_s[1:], strict=True)]  # the first warms up
    return {
        "space": space.name,
        "supernet_s": round(median(supernet_s[1:]), 2),
        "alone_s": round(median(alone_s[1:]), 2),
        "ratio": round(median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def as_trained(network: nn.Module) -> nn.Module:
    """Put a network into the memory layout, and give it the layers, that training does."""
    holder = nn.Sequential(network).train()
    use_training_layers(holder, torch.device("cpu"))
    return holder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def shared_step(supernet: nn.Module, candidates: Sequence[Candidate], images: Tensor) -> None:
    """Let a supernet be one candidate after the other, and add up their gradients."""
    supernet.zero_grad(set_to_none=True)
    for candidate in candidates:
        activate(supernet, candidate)
        supernet(images).square().sum().backward()


def step(network: nn.Module, images: Tensor) -> None:
    """Compute the gradients of a network of its own."""
    network.zero_grad(set_to_none=True)
    network(images).square().sum().backward()


if __name__ == "__main__":
    main()
