"""Whether the two hot paths are as fast as they were, told by ratios within one run::

    python -m benchmarks.check_speed            # fails if one has become slower
    python -m benchmarks.check_speed --record   # keeps today's ratios to compare with

From JPEG bytes to views, on one core: images a second as a share of those of decoding alone. The training step, DINO on
MobileNetV2 in fp32: as a share of those of the bare backbone. Both sides run in processes of their own, in turns; the
median round counts.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from benchmarks import input_pipeline, training_step
from lightssl.files import write_json
from lightssl.machine import describe_machine, versions

RECORD = Path(__file__).parent / "results" / "check_speed.json"
SMALLEST_SHARE = 0.75  # of the recorded ratio: machines differ, and are noisy
IMAGES, HEIGHT, WIDTH = 64, 375, 500


def main() -> None:
    """Measure both ratios and compare them with the recorded ones, or record them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        write_photographs(Path(folder))
        found = {
            "input pipeline": median(input_ratio(folder) for _ in range(options.rounds)),
            "training step": median(step_ratio() for _ in range(options.rounds)),
        }
    if options.record:
        record = {
            "what": "images a second as a share of decoding alone, and of the bare backbone; medians over rounds",
            "measured": datetime.now(UTC).date().isoformat(),
            "rounds": options.rounds,
            "machine": describe_machine(),
            "versions": versions(),
            "ratios": {name: round(ratio, 3) for name, ratio in found.items()},
        }
        write_json(RECORD, record)
    recorded = json.loads(RECORD.read_text())["ratios"]
    for name, ratio in found.items():
        print(f"{name}: {ratio:.3f} of its bound, recorded {recorded[name]:.3f}")
    slower = [name for name, ratio in found.items() if ratio < SMALLEST_SHARE * recorded[name]]
    if slower:
        raise SystemExit(f"Slower than it was: {', '.join(slower)}")


def write_photographs(folder: Path) -> None:
    """Write images that cost a decoder about as much as photographs of their size do."""
    generator = np.random.default_rng(0)
    for index in range(IMAGES):
        coarse = cv2.resize(generator.uniform(0, 255, (12, 16, 3)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        fine = generator.normal(0, 12, (HEIGHT, WIDTH, 3))
        cv2.imwrite(str(folder / f"{index}.jpg"), (coarse + fine).clip(0, 255).astype(np.uint8))


def input_ratio(folder: str) -> float:
    """Views to decoding alone, of one round."""
    options = argparse.Namespace(data=folder, seconds=3.0)
    views, decoding = (input_pipeline.in_its_own_process(name, options) for name in ("lightssl", "decoding alone"))
    return views / decoding


def step_ratio() -> float:
    """The training step to the bare backbone, of one round."""
    step, bare = (
        training_step.in_its_own_process(side, "dino", "mobilenetv2", 5)["images_per_s"]
        for side in ("lightssl", "bare")
    )
    return step / bare


if __name__ == "__main__":
    main()
