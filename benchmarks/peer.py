"""lightssl beside lightly: DINO on the same network, images and cores for as long, and kNN on the same test images::

    pip install -e '.[benchmarks]'
    python -m benchmarks.peer --data 'data/cifar10-*.tar' --label CIFAR-10

lightssl
    ``lightssl pretrain --recipe mobilenetv2_dino --scale quick``, from the start of the command to its end.
lightly
    The loop of its DINO example (examples/pytorch/dino.py), with everything it sets: batch size, heads, Adam, the
    teacher's momentum, its own transform. Around it is changed what small images and a fair comparison need: views are
    shrunk from 224 and 96 pixels to 32 and 14, the blur with them, the network is MobileNetV2, and one worker process
    makes views, as ours do. It is given the wall-clock that lightssl took, its start included, and ends with the step
    in which that is over.

Both train on one thread; trainings of as many seeds as ``--jobs`` run side by side, those of one side at a time. Both
networks are evaluated by the same command, lightly's as it ends and, as ours, with batch norm estimated on training
images. What was finished is kept.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.training import lightssl
from lightssl.files import write_json
from lightssl.machine import describe_machine, versions
from lightssl.runs import Run

RESULTS = Path(__file__).parent / "results"
RECIPE, NETWORK = "mobilenetv2_dino", "mobilenetv2"
GLOBAL, LOCAL, PUBLISHED = 32, 14, 224  # pixels of views; 14 is to 32 as lightly's 96 is to 224
SMALL = ("evaluation.image_size=32", "evaluation.crop_share=1.0")  # how both are evaluated
AS_IT_ENDS, ESTIMATED = "lightly", "lightly, batch norm estimated"


def main() -> None:
    """Train both, evaluate both, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--label", help="what the results call the data")
    parser.add_argument("--duration", default="100k examples", help="of lightssl's training")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side")
    parser.add_argument("--out", type=Path, default=Path("runs/peer"))
    parser.add_argument("--only", type=float, metavar="SECONDS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only is not None:
        train_lightly(options.only, options.seeds[0], options.data, options.out)
        return
    with ThreadPoolExecutor(options.jobs) as pool:
        ours = list(pool.map(lambda seed: run_lightssl(seed, options), options.seeds))
        seconds = [found["seconds"] for found in ours]
        theirs = list(pool.map(lambda seed, limit: run_lightly(seed, limit, options), options.seeds, seconds))
        top1 = list(pool.map(lambda seed: evaluate(seed, options), options.seeds))
    write_result(ours, theirs, top1, options)


def run_lightssl(seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Train with lightssl, without a break; return the seconds of the whole command, and images seen."""
    kept, run = options.out / f"lightssl-seed{seed}.json", options.out / f"lightssl-seed{seed}"
    if not kept.exists():
        started = time.perf_counter()
        what = ["--recipe", RECIPE, "--scale", "quick", "--set", f"train.duration={options.duration}"]
        lightssl("pretrain", *what, "--data", options.data, "--seed", str(seed), "--out", str(run))
        seconds = time.perf_counter() - started
        rows = [json.loads(line) for line in Run(run).metrics_path.read_text(encoding="utf-8").splitlines()]
        images = (rows[-1]["step"] + 1) * Run(run).recipe()["train"]["batch_size"]
        write_json(kept, {"seconds": round(seconds, 1), "images": images})
    found: dict[str, float] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def run_lightly(seed: int, seconds: float, options: argparse.Namespace) -> dict[str, float]:
    """Train with lightly in a process of its own; return its seconds, and images seen."""
    folder = options.out / f"lightly-seed{seed}"
    if not (folder / "done.json").exists():
        command = [sys.executable, "-m", "benchmarks.peer", "--only", str(seconds), "--seeds", str(seed)]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "LIGHTLY_DID_VERSION_CHECK": "True"}
        subprocess.run([*command, "--data", options.data, "--out", str(folder)], env=env, check=True)
    found: dict[str, float] = json.loads((folder / "done.json").read_text(encoding="utf-8"))
    return found


def train_lightly(seconds: float, seed: int, data: str, folder: Path) -> None:
    """Run the loop of lightly's DINO example for so long; write the student's backbone as it ends, and as estimated."""
    started = time.perf_counter()
    import torch
    from lightly.loss import DINOLoss
    from lightly.models.modules import DINOProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from lightly.transforms import DINOTransform
    from torch.utils.data import DataLoader

    from benchmarks.training_step import WIDTHS, torchvision_backbone
    from lightssl.config.load import load_recipe
    from lightssl.data.sources import open_source
    from lightssl.pipeline.building import estimate_batch_norm_on

    torch.manual_seed(seed)
    source = open_source(data, split="train")
    blur = (0.1 * GLOBAL / PUBLISHED, 2 * GLOBAL / PUBLISHED)
    transform = DINOTransform(global_crop_size=GLOBAL, local_crop_size=LOCAL, sigmas=blur)
    pictures: Any = Pictures(source, transform)
    batches: DataLoader[Any] = DataLoader(
        pictures, batch_size=64, shuffle=True, drop_last=True, num_workers=1, persistent_workers=True
    )
    backbone = torchvision_backbone(NETWORK)
    head = DINOProjectionHead(WIDTHS[NETWORK], 512, 64, 2048)
    teacher_backbone, teacher_head = deepcopy(backbone), DINOProjectionHead(WIDTHS[NETWORK], 512, 64, 2048)
    deactivate_requires_grad(teacher_backbone)
    deactivate_requires_grad(teacher_head)
    criterion = DINOLoss(output_dim=2048, warmup_teacher_temp_epochs=5)
    optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()], lr=0.001)

    images, epoch, losses = 0, 0, []
    while time.perf_counter() - started < seconds:
        for views in batches:
            teacher = [teacher_head(teacher_backbone(view)) for view in views[:2]]
            student = [head(backbone(view)) for view in views]
            loss = criterion(teacher, student, epoch=epoch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            update_momentum(backbone, teacher_backbone, m=0.99)
            update_momentum(head, teacher_head, m=0.99)
            losses.append(loss.item())
            images += len(views[0])
            if images % 6400 == 0:
                print(f"lightly, seed {seed}: {images:,} images, loss {mean(losses[-100:]):.3f}", flush=True)
            if time.perf_counter() - started >= seconds:
                break
        epoch += 1
    took = time.perf_counter() - started
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(backbone.state_dict(), folder / "as-it-ends.pth")
    estimate_batch_norm_on(backbone, source, load_recipe(RECIPE, scale="quick", overrides=[f"train.seed={seed}"]))
    torch.save(backbone.state_dict(), folder / "estimated.pth")
    write_json(folder / "done.json", {"seconds": round(took, 1), "images": images, "loss": mean(losses[-100:])})


class Pictures:
    """The images of a source as lightly's transform takes them, for torch's loader."""

    def __init__(self, source: Any, transform: Any) -> None:
        self._source, self._transform = source, transform

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        from lightssl.data.decode import decode

        return self._transform(Image.fromarray(decode(self._source.read(index))))


def evaluate(seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Return the kNN accuracy on the test images of each network, and of lightssl's before training."""
    folder = options.out / f"lightly-seed{seed}"
    runs = {"lightssl": options.out / f"lightssl-seed{seed}"}
    for name, file in ((AS_IT_ENDS, "as-it-ends"), (ESTIMATED, "estimated")):
        runs[name] = folder / file
        if not runs[name].exists():
            settings = [word for setting in SMALL for word in ("--set", setting)]
            weights = str(folder / f"{file}.pth")
            lightssl("import", weights, "--from", "torchvision", *settings, "--out", str(runs[name]))
    found = {}
    for name, folder in runs.items():
        path = Run(folder).evaluation_path("knn")
        if not path.exists():
            lightssl("evaluate", str(folder), "--task", "knn", "--data", options.data)
        for row in json.loads(path.read_text(encoding="utf-8"))["results"]:
            if row["network"] == "pre-trained":
                found[name] = row["top1"]
            elif name == "lightssl":
                found["not trained"] = max(row["top1"], found.get("not trained", 0.0))
    return found


def write_result(
    ours: Sequence[Mapping[str, float]],
    theirs: Sequence[Mapping[str, float]],
    top1: Sequence[Mapping[str, float]],
    options: argparse.Namespace,
) -> None:
    """Write the table."""
    ahead = [by_name["lightssl"] - max(by_name[AS_IT_ENDS], by_name[ESTIMATED]) for by_name in top1]
    write_json(
        RESULTS / "peer.json",
        {
            "what": f"DINO on {NETWORK}, {options.duration} with lightssl at the quick scale, lightly for as long; kNN",
            "data": options.label or options.data,
            "measured": datetime.now(UTC).date().isoformat(),
            "seeds": options.seeds,
            "threads": 1,
            "machine": describe_machine(),
            "versions": versions() | {"lightly": metadata.version("lightly")},
            "lightssl": list(ours),
            "lightly": list(theirs),
            "knn": {name: [round(by_name[name], 2) for by_name in top1] for name in top1[0]},
            "ahead": {"mean": round(mean(ahead), 2), "stdev": round(stdev(ahead), 2) if len(ahead) > 1 else None},
        },
    )


if __name__ == "__main__":
    main()
