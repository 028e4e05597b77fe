"""Images a second and memory of one training step, beside lightly's example of the same method and the bare backbone::

    pip install -e '.[benchmarks]'
    python -m benchmarks.training_step

All train the same torchvision network on the same views, two of 96 and six of 56 pixels, with heads of the same widths
and SGD with momentum. Every side runs in processes of its own, in turns, in fp32 unless it says otherwise. The sides:

lightssl
    The training loop's own step, from uint8 views: normalisation, forward, backward, optimiser, moving average.
lightssl, bf16
    The same with train.precision=bf16-mixed, where the CPU computes in bfloat16 itself.
lightly
    The loop of lightly's published example of the method, from normalised float views. Its MoCo example has two views:
    here every view but the key's is a query, each compared with the key by lightly's loss as the example does with one.
bare
    Forward and backward of the backbone alone over the views that the method trains on, in our layout (channels_last)
    and with our settings of the allocator: what no method can do without.
bare, averaged too
    The same, and the forward of a second, untrained copy over the views that the teacher or the key encoder sees. Not
    for SwAV, which has no such copy.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from lightssl.files import write_json
from lightssl.machine import describe_machine, has_native_bf16, versions

RESULTS = Path(__file__).parent / "results"
THREADS = 2
BATCH = 32
VIEWS = ((2, 96), (6, 56))  # how many, and of how many pixels
HIDDEN, PROTOTYPES, QUEUE = 2048, 4096, 4096
BOTTLENECK = {"dino": 256, "swav": 128, "mocov2": 128}
WIDTHS = {"mobilenetv2": 1280, "resnet18": 512}
RATE, MOMENTUM = 0.01, 0.9

Step = Callable[[], Any]


def main() -> None:
    """Time every side of every pair of method and network in turns, and write the table."""
    parser = step_options(__doc__)
    parser.add_argument("--only", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        step = SIDES[options.only](options.methods[0], options.networks[0])
        print(json.dumps(measure(step, options.steps)))
        return
    compare_pairs(compare, options, result="training_step", how=f"{THREADS} threads")


def step_options(description: str | None) -> argparse.ArgumentParser:
    """Make the options of what times steps."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=BOTTLENECK, default=list(BOTTLENECK))
    parser.add_argument("--networks", nargs="+", choices=WIDTHS, default=list(WIDTHS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="of each side in each round, after two that warm up")
    return parser


def compare_pairs(
    compare: Callable[[str, str, argparse.Namespace], dict[str, Any]],
    options: argparse.Namespace,
    *,
    result: str,
    how: str,
) -> None:
    """Make a row of every pair of method and network, and write the table after each."""
    views = " and ".join(f"{count} views of {size}" for count, size in VIEWS)
    rows: list[dict[str, Any]] = []
    for network in options.networks:
        for method in options.methods:
            rows.append({"network": network, "method": method, **compare(method, network, options)})
            table = {
                "what": f"one training step on {views} pixels of {BATCH} images, {how}",
                "hidden": HIDDEN,
                "prototypes": PROTOTYPES,
                "queue": QUEUE,
                "measured": datetime.now(UTC).date().isoformat(),
                "rounds": options.rounds,
                "steps": options.steps,
                "machine": describe_machine(),
                "versions": versions() | {"lightly": metadata.version("lightly")},
                "rows": rows,
            }
            write_json(RESULTS / f"{result}.json", table)


def compare(method: str, network: str, options: argparse.Namespace) -> dict[str, Any]:
    """Time all sides of one pair, round by round; ratios are medians over rounds of lightssl in fp32 to the side."""
    left_out = {"bare, averaged too"} if method == "swav" else set()
    left_out |= set() if has_native_bf16() else {"lightssl, bf16"}
    sides = [side for side in SIDES if side not in left_out]
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(options.rounds):
        for side in sides:
            found[side].append(in_its_own_process(side, method, network, options.steps))
            print(f"{network:12} {method:7} {side:20} {found[side][-1]}", flush=True)

    def ratio(side: str, figure: str) -> float:
        # Of each round on its own: what slows the machine down for a while slows both.
        pairs = zip(found["lightssl"], found[side], strict=True)
        return round(median(ours[figure] / theirs[figure] for ours, theirs in pairs), 3)

    return {
        "sides": {
            side: {
                "images_per_s": round(median(one["images_per_s"] for one in runs), 2),
                "lowest": round(min(one["images_per_s"] for one in runs), 2),
                "highest": round(max(one["images_per_s"] for one in runs), 2),
                "peak_mib": round(median(one["peak_mib"] for one in runs)),
                "lightssl_speed_ratio": ratio(side, "images_per_s"),
                "lightssl_memory_ratio": ratio(side, "peak_mib"),
            }
            for side, runs in found.items()
        },
    }


def in_its_own_process(side: str, method: str, network: str, steps: int) -> dict[str, float]:
    """Time one side in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.training_step", "--only", side, "--steps", str(steps)]
    command += ["--methods", method, "--networks", network]
    env = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "LIGHTLY_DID_VERSION_CHECK": "True"}
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(step: Step, steps: int) -> dict[str, float]:
    """Take steps; two warm up."""
    for _ in range(2):
        step()
    started = time.perf_counter()
    for _ in range(steps):
        step()
    rate = steps * BATCH / (time.perf_counter() - started)
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS
    return {"images_per_s": rate, "peak_mib": kibibytes / (2**20 if sys.platform == "darwin" else 2**10)}


def lightssl(method: str, network: str, *, precision: str) -> Step:
    """lightssl's training step; under torchrun, that of this process on its share of the batch."""
    # lightning-fabric imports it, 100 MiB, where it finds it: here lightly brought it, lightssl does not.
    sys.modules["torchmetrics"] = None  # type: ignore[assignment]
    import torch

    from lightssl.backbones import BACKBONES
    from lightssl.data.loader import BadImages
    from lightssl.methods import METHODS
    from lightssl.optim import parameter_groups, sgd
    from lightssl.runs import Run
    from lightssl.train.fabric import make_fabric
    from lightssl.train.host import prepare_host
    from lightssl.train.loop import Plan, Trainer
    from lightssl.train.schedule import Schedule
    from lightssl.types import Batch
    from lightssl.units import Duration

    prepare_host()
    torch.manual_seed(0)
    at_once = {"freeze_prototypes": Duration(0, "steps")}
    options: dict[str, dict[str, Any]] = {
        "dino": {"prototypes": PROTOTYPES, **at_once},
        "swav": {"prototypes": PROTOTYPES, "queue": 0, **at_once},
        "mocov2": {"queue": QUEUE},
    }
    built = METHODS[method](
        BACKBONES[network](), (1 / 7, 6 / 7), hidden=HIDDEN, bottleneck=BOTTLENECK[method], **options[method]
    )
    plan = Plan(10**6, steps_per_epoch=1000, batch_size=BATCH, log_every=10**6, checkpoint_every=10**6)
    optimizer = sgd(parameter_groups(built), momentum=MOMENTUM)
    fabric = make_fabric(precision)
    trainer = Trainer(
        built,
        optimizer,
        Schedule(base_rate=RATE * 256 / BATCH),
        fabric=fabric,
        run=Run(Path("unused")),
        recipe={},
        plan=plan,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        seed=0,
        bad_images=BadImages(BATCH),
        max_bad_share=0.0,
    )
    built.train()
    images = BATCH // fabric.world_size
    views = [torch.randint(256, (count, images, size, size, 3), dtype=torch.uint8) for count, size in VIEWS]
    batch = Batch(views, torch.arange(images))

    def step() -> None:
        clock = plan.clock(trainer.step)
        trainer.schedule.apply(optimizer, clock)
        trainer.train_step(batch, clock)
        trainer.step += 1

    return step


def bare(method: str, network: str, *, averaged: bool) -> Step:
    """Forward and backward of the backbone, one forward for each resolution."""
    import torch

    from lightssl.train.host import prepare_host

    prepare_host()
    torch.manual_seed(0)
    backbone = torchvision_backbone(network).to(memory_format=torch.channels_last)
    average = deepcopy(backbone).requires_grad_(False)
    groups = [torch.randn(count, BATCH, size, size, 3).movedim(-1, -3) for count, size in VIEWS]
    seen_by_average = groups[0]
    if method == "mocov2":
        seen_by_average, groups[0] = groups[0][:1], groups[0][1:]

    def step() -> None:
        backbone.zero_grad(set_to_none=True)
        if averaged:
            with torch.no_grad():
                average(seen_by_average.flatten(0, 1))
        torch.autograd.backward([backbone(group.flatten(0, 1)).sum() for group in groups])

    return step


def lightly(method: str, network: str) -> Step:
    """The loop of lightly's example, from https://docs.lightly.ai/self-supervised-learning/examples/models.html."""
    import torch

    torch.manual_seed(0)
    views = [torch.randn(BATCH, 3, size, size) for count, size in VIEWS for _ in range(count)]
    make = {"dino": lightly_dino, "swav": lightly_swav, "mocov2": lightly_moco}[method]
    model, loss_of, move_average = make(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)

    def step() -> None:
        move_average()
        loss = loss_of(views)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def lightly_dino(network: str) -> tuple[Any, Callable[[list[Any]], Any], Step]:
    """DINO: model, loss of the views, update of the teacher."""
    from lightly.loss import DINOLoss
    from lightly.models.modules import DINOProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from torch import nn

    student_backbone = torchvision_backbone(network)
    sizes = (WIDTHS[network], HIDDEN, BOTTLENECK["dino"], PROTOTYPES)
    student_head = DINOProjectionHead(*sizes, batch_norm=True)
    teacher_backbone = deepcopy(student_backbone)
    teacher_head = DINOProjectionHead(*sizes, batch_norm=True)
    deactivate_requires_grad(teacher_backbone)
    deactivate_requires_grad(teacher_head)
    criterion = DINOLoss(PROTOTYPES)

    def loss_of(views: list[Any]) -> Any:
        teacher = [teacher_head(teacher_backbone(view).flatten(start_dim=1)) for view in views[:2]]
        student = [student_head(student_backbone(view).flatten(start_dim=1)) for view in views]
        return criterion(teacher, student, epoch=0)

    def move_average() -> None:
        update_momentum(student_backbone, teacher_backbone, m=0.996)
        update_momentum(student_head, teacher_head, m=0.996)

    return nn.ModuleList([student_backbone, student_head, teacher_backbone, teacher_head]), loss_of, move_average


def lightly_swav(network: str) -> tuple[Any, Callable[[list[Any]], Any], Step]:
    """SwAV: model, loss of the views, and what is done before a step."""
    from lightly.loss import SwaVLoss
    from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes
    from torch import nn

    backbone = torchvision_backbone(network)
    head = SwaVProjectionHead(WIDTHS[network], HIDDEN, BOTTLENECK["swav"])
    prototypes = SwaVPrototypes(BOTTLENECK["swav"], n_prototypes=PROTOTYPES)
    criterion = SwaVLoss()

    def scores(view: Any) -> Any:
        return prototypes(nn.functional.normalize(head(backbone(view).flatten(start_dim=1)), dim=1, p=2))

    def loss_of(views: list[Any]) -> Any:
        outputs = [scores(view) for view in views]
        return criterion(outputs[:2], outputs[2:])

    return nn.ModuleList([backbone, head, prototypes]), loss_of, prototypes.normalize


def lightly_moco(network: str) -> tuple[Any, Callable[[list[Any]], Any], Step]:
    """MoCo: model, loss of the views, update of the key encoder."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from torch import nn

    backbone = torchvision_backbone(network)
    head = MoCoProjectionHead(WIDTHS[network], HIDDEN, BOTTLENECK["mocov2"])
    key_backbone, key_head = deepcopy(backbone), deepcopy(head)
    deactivate_requires_grad(key_backbone)
    deactivate_requires_grad(key_head)
    criterion = NTXentLoss(memory_bank_size=(QUEUE, BOTTLENECK["mocov2"]))

    def loss_of(views: list[Any]) -> Any:
        key = key_head(key_backbone(views[0]).flatten(start_dim=1)).detach()
        queries = [head(backbone(view).flatten(start_dim=1)) for view in views[1:]]
        return sum(criterion(query, key) for query in queries) / len(queries)

    def move_average() -> None:
        update_momentum(backbone, key_backbone, m=0.99)
        update_momentum(head, key_head, m=0.99)

    return nn.ModuleList([backbone, head, key_backbone, key_head]), loss_of, move_average


def torchvision_backbone(network: str) -> Any:
    """torchvision's network without its classifier."""
    from torch import nn
    from torchvision.models import mobilenet_v2, resnet18

    backbone = {"mobilenetv2": mobilenet_v2, "resnet18": resnet18}[network]()
    setattr(backbone, "classifier" if network == "mobilenetv2" else "fc", nn.Identity())
    return backbone.train()


SIDES: dict[str, Callable[[str, str], Step]] = {
    "lightssl": partial(lightssl, precision="32-true"),
    "lightssl, bf16": partial(lightssl, precision="bf16-mixed"),
    "lightly": lightly,
    "bare": partial(bare, averaged=False),
    "bare, averaged too": partial(bare, averaged=True),
}


if __name__ == "__main__":
    main()
