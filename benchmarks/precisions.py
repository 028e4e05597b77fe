"""What the smaller precisions cost: size of the file, error of the features, and kNN accuracy on labelled images::

    python -m benchmarks.precisions

MobileNetV2 as `make demo` trains it, on the embedded sample at the quick scale, is exported in every precision, and all
files are compared with torch on its test images, none of which calibrated them. Here, the int8 file for ARM is computed
in floating point as its nodes say, since x86 kernels may saturate where those of ARM do not; then ARM's build of ONNX
Runtime computes all files once more in an emulator, on fewer images.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.training import train
from lightssl.files import write_json
from lightssl.machine import describe_machine, versions
from lightssl.pipeline import export, verify

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Train, unless that was done, export, compare, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/precisions"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run = train("mobilenetv2_dino", data="sample", folder=options.out, seed=options.seed, settings=[])
    export(run, fp16=True, int8=True)
    verified = {"here": verify(run=run), "aarch64 under qemu": verify(run=run, arch="aarch64")}
    table = {
        "what": "mobilenetv2_dino, scale quick, trained on the embedded sample; kNN and features on its test images",
        "measured": datetime.now(UTC).date().isoformat(),
        "seed": options.seed,
        "machine": describe_machine(),
        "versions": versions(),
        "verified": {
            where: {
                "train_images": result["train_images"],
                "rows": [{**row, "model": Path(row["model"]).name} for row in result["rows"]],
            }
            for where, result in verified.items()
        },
    }
    write_json(RESULTS / "precisions.json", table)
    print(json.dumps(table["verified"], indent=2))


if __name__ == "__main__":
    main()
