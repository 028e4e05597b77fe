"""From JPEG bytes to a batch of views: images a second on one core, beside lightly and LightlyTrain::

    pip install -e '.[benchmarks]'
    python -m benchmarks.input_pipeline --data 'photos/*.tar'

All make the same views, SSLight's for convolutional networks: two of 224 and six of 128 pixels. Every pipeline runs in
processes of its own, in turns, as its project sets it up: LightlyTrain and lightly hand over normalised floats,
lightssl bytes that it normalises on the device.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from lightssl.data.sources import Source, open_source
from lightssl.files import write_json
from lightssl.machine import describe_machine, versions

RESULTS = Path(__file__).parent / "results"
BATCH = 32
GLOBAL, LOCAL = (224, (0.3, 1.0)), (128, (0.05, 0.3))  # size, scale

MakeBatch = Callable[[Sequence[int]], Any]


def main() -> None:
    """Time every pipeline in turns and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each pipeline in each round")
    parser.add_argument("--only", choices=PIPELINES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(images_per_second(PIPELINES[options.only](open_source(options.data)), options))
        return
    rates: dict[str, list[float]] = {name: [] for name in PIPELINES}
    for _ in range(options.rounds):
        for name in PIPELINES:
            rates[name].append(in_its_own_process(name, options))
            print(f"{name:24} {rates[name][-1]:8.1f} images/s")
    source = open_source(options.data)
    ours = rates["lightssl"]
    result = {
        "what": "JPEG bytes to a batch of 2 views of 224 and 6 of 128 pixels, on one core",
        "images": len(source),
        "mean_kilobytes": round(sum(len(encoded(source, i)) for i in range(len(source))) / len(source) / 1000),
        "measured": datetime.now(UTC).date().isoformat(),
        "rounds": options.rounds,
        "machine": describe_machine(),
        "versions": versions() | {peer: metadata.version(peer) for peer in ("lightly", "lightly-train")},
        "rows": [
            {
                "pipeline": name,
                "images_per_s": round(median(found), 1),
                "lowest": round(min(found), 1),
                "highest": round(max(found), 1),
                # Of each round on its own: what slows the machine down for a while slows both.
                "lightssl_is_faster_by": round(median(a / b for a, b in zip(ours, found, strict=True)), 2),
            }
            for name, found in rates.items()
        ],
    }
    write_json(RESULTS / "input_pipeline.json", result)
    print(json.dumps(result["rows"], indent=2))


def in_its_own_process(name: str, options: argparse.Namespace) -> float:
    """Time one pipeline in a fresh process of one thread."""
    command = [sys.executable, "-m", "benchmarks.input_pipeline", "--data", options.data, "--only", name]
    command += ["--seconds", str(options.seconds)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def images_per_second(make_batch: MakeBatch, options: argparse.Namespace) -> float:
    """Make batches of other images each time until the time is over; the first batch warms up."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    images = len(open_source(options.data))
    make_batch(range(BATCH))
    done, started = 0, time.process_time()
    while time.process_time() - started < options.seconds:
        make_batch([(done + position) % images for position in range(BATCH)])
        done += BATCH
    return done / (time.process_time() - started)


def lightssl(source: Source) -> MakeBatch:
    """lightssl, as a worker process of its loader does it."""
    from lightssl.config.load import load_recipe
    from lightssl.data.loader import ViewBatches
    from lightssl.train.host import prepare_host
    from lightssl.views.maker import ViewMaker

    prepare_host()
    recipe = load_recipe("mobilenetv2_dino", scale="paper")
    make_views = ViewMaker(recipe.views, recipe.augment, seed=0)
    batches = ViewBatches(source, make_views, images=BATCH, slots=1, shared=True, total_steps=1)
    return lambda indices: batches[0, 0, [(0, index) for index in indices]]


def lightly_train(source: Source) -> MakeBatch:
    """LightlyTrain's DINO transform, on images read by its own function, collated by torch."""
    from lightly_train._data.file_helpers import ImageMode, open_image_numpy
    from lightly_train._methods.dino.dino_transform import DINOTransform, DINOTransformArgs
    from torch.utils.data import default_collate

    settings: Any = DINOTransformArgs()
    settings.random_resize.min_scale = GLOBAL[1][0]
    settings.local_view.view_size = (LOCAL[0], LOCAL[0])
    settings.local_view.random_resize.max_scale = LOCAL[1][1]
    transform = DINOTransform(settings)
    folder = TemporaryDirectory()  # it reads from files only; these lie in the page cache
    files = [Path(folder.name, f"{index}.jpg") for index in range(len(source))]
    for index, file in enumerate(files):
        file.write_bytes(encoded(source, index))

    def views(index: int) -> list[Any]:
        return [view["image"] for view in transform({"image": open_image_numpy(files[index], mode=ImageMode.RGB)})]

    def make_batch(indices: Sequence[int], _folder: TemporaryDirectory[str] = folder) -> Any:
        return default_collate([views(index) for index in indices])

    return make_batch


def lightly(source: Source) -> MakeBatch:
    """lightly's DINO transform, on images opened by Pillow, collated by torch."""
    from lightly.transforms import DINOTransform
    from PIL import Image
    from torch.utils.data import default_collate

    transform = DINOTransform(
        global_crop_size=GLOBAL[0], global_crop_scale=GLOBAL[1], local_crop_size=LOCAL[0], local_crop_scale=LOCAL[1]
    )
    return lambda indices: default_collate(
        [transform(Image.open(io.BytesIO(encoded(source, index))).convert("RGB")) for index in indices]
    )


def encoded(source: Source, index: int) -> bytes:
    """An image's file."""
    content = source.read(index)
    if not isinstance(content, bytes):
        raise SystemExit("Give JPEG files: a folder or tar files.")
    return content


def decoding(source: Source) -> MakeBatch:
    """Decoding alone, which no pipeline can do without."""
    from lightssl.data.decode import decode
    from lightssl.train.host import prepare_host

    prepare_host()

    def decode_all(indices: Sequence[int]) -> None:
        for index in indices:
            decode(source.read(index))

    return decode_all


PIPELINES = {"lightssl": lightssl, "LightlyTrain": lightly_train, "lightly": lightly, "decoding alone": decoding}


if __name__ == "__main__":
    main()
