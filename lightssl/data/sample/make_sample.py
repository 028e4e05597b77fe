"""Make ``fashion_mnist.npz`` from the original files of Fashion-MNIST. The same files give the same bytes.

Debian ships them: ``apt-get download dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb unpacked``, then

    python make_sample.py unpacked/usr/share/datasets/fashion-mnist
"""

import argparse
import gzip
from pathlib import Path

import numpy as np

PER_CLASS = {"train": 800, "test": 200}
FILES = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes: magic 0, 0, 8, dimensions; their sizes, big-endian; the bytes."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\0\0\x08":
        raise SystemExit(f"{path} is not an IDX file of unsigned bytes.")
    dimensions = data[3]
    shape = np.frombuffer(data, ">u4", dimensions, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def balanced(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Return the positions of the first ``per_class`` images of every class, in their original order."""
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:per_class] for label in np.unique(labels)]))


def main() -> None:
    """Read the folder named on the command line and write the sample beside this script, or where --out says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder with the four *-ubyte.gz files")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("fashion_mnist.npz"))
    arguments = parser.parse_args()
    arrays = {}
    for split, prefix in FILES.items():
        images = read_idx(arguments.folder / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(arguments.folder / f"{prefix}-labels-idx1-ubyte.gz")
        chosen = balanced(labels, PER_CLASS[split])
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images[chosen], labels[chosen]
    np.savez_compressed(arguments.out, **arrays)


if __name__ == "__main__":
    main()
