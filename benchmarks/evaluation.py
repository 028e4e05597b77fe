"""How long evaluations take on features as large as CIFAR-10's, beside scikit-learn and lightly::

    pip install -e '.[benchmarks]'
    python -m benchmarks.evaluation --data 'data/photos-*.tar'

Features
    From image files to features, beside the bare forward pass over the same batches, decoded in memory: the embedded
    sample at 32 pixels, five times over, and photographs at 224, four times.
kNN
    10,000 test images against 50,000, 1280 wide, with 20 neighbours; lightly's kNN in equal chunks.
Linear probe
    50,000 features for eight weight decays at once; scikit-learn's logistic regression for one after the other.

Extraction and kNN run in turns with what stands beside them. The features of the last two are those of the sample by
a network at random initialisation, mixed with others of their class to be as many.
"""

import argparse
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightssl.config.load import load_recipe
from lightssl.data.sources import Subset, open_source
from lightssl.evaluation.features import Features, extract_features
from lightssl.evaluation.held_out import accuracy
from lightssl.evaluation.knn import knn_accuracy
from lightssl.evaluation.linear import WEIGHT_DECAYS
from lightssl.evaluation.logistic_regression import fit_classifiers
from lightssl.files import write_json
from lightssl.images import normalise
from lightssl.machine import describe_machine, versions
from lightssl.pipeline.building import build_backbone, estimate_batch_norm_on, evaluation_batches
from lightssl.pipeline.extracting import features_of_splits
from lightssl.train.host import prepare_host

RESULTS = Path(__file__).parent / "results"
TRAIN, TEST, CLASSES = 50_000, 10_000, 10
CHUNK, K, TEMPERATURE = 256, 20, 0.07


def main() -> None:
    """Time everything, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="photographs; by default the sample alone")
    parser.add_argument("--label", default="photographs of about 500 x 375 pixels", help="what results call them")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    prepare_host()
    extraction = [extract("sample", 5, "the sample, five times", "quick", options.rounds)]
    if options.data:
        extraction.append(extract(options.data, 4, f"{options.label}, four times", "paper", options.rounds))
    features = mixed_features()
    write_json(
        RESULTS / "evaluation.json",
        {
            "what": "seconds of evaluations, medians of rounds in turns",
            "measured": datetime.now(UTC).date().isoformat(),
            "rounds": options.rounds,
            "threads": torch.get_num_threads(),
            "machine": describe_machine(),
            "versions": versions() | _beside(),
            "extraction": extraction,
            "knn": knn(features, options.rounds),
            "linear": linear(features),
        },
    )


def _beside() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("lightly", "scikit-learn")}


def seconds(work: Callable[[], Any]) -> float:
    """Time one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def extract(data: str, times: int, label: str, scale: str, rounds: int) -> dict[str, Any]:
    """Time features from files, and the forward pass alone."""
    recipe = load_recipe("mobilenetv2_dino", scale=scale)
    network, once = build_backbone(recipe), open_source(data)
    source = Subset(once, np.tile(np.arange(len(once)), times), once.name)
    mean, std = recipe.data.mean, recipe.data.std

    def loader() -> Any:
        return evaluation_batches(source, recipe)

    batches = [normalise(images, mean, std) for images, _ in loader()]

    def bare() -> None:
        network.eval()
        with torch.inference_mode():
            for images in batches:
                network(images)

    found: dict[str, list[float]] = {"lightssl": [], "bare forward": []}
    for _ in range(rounds):
        found["lightssl"].append(seconds(lambda: extract_features(network, loader(), mean=mean, std=std)))
        found["bare forward"].append(seconds(bare))
    ratio = median(ours / theirs for ours, theirs in zip(*found.values(), strict=True))
    return {
        "images": f"{len(source):,} images: {label}; at {recipe.evaluation.image_size} pixels",
        "seconds": {name: round(median(values), 2) for name, values in found.items()},
        "ratio": round(ratio, 3),
    }


def mixed_features() -> Features:
    """Return as many features as CIFAR-10 has images, made of those of the sample."""
    recipe = load_recipe("mobilenetv2_dino", scale="quick")
    network = build_backbone(recipe)
    splits = open_source("sample", split="train"), open_source("sample", split="test")
    estimate_batch_norm_on(network, splits[0], recipe)
    found = features_of_splits(network, *splits, recipe)
    generator = torch.Generator().manual_seed(0)

    def mixed(features: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
        order = labels.argsort()
        counts = labels.bincount()
        rows = torch.randint(len(labels), (count,), generator=generator)
        of_class = labels[rows]
        place = (torch.rand(count, generator=generator) * counts[of_class]).long()
        partners = order[(counts.cumsum(0) - counts)[of_class] + place]
        return 0.7 * features[rows] + 0.3 * features[partners], of_class

    train, train_labels = mixed(found.train, found.train_labels, TRAIN)
    test, test_labels = mixed(found.test, found.test_labels, TEST)
    return Features(train, train_labels, test, test_labels, found.classes, torch.arange(TRAIN), torch.arange(TEST))


def knn(features: Features, rounds: int) -> dict[str, Any]:
    """Time kNN, and measure by how much the memory of the process grows."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _peak_gib()
    times: dict[str, list[float]] = {"lightssl": [], "lightly": []}
    top1: dict[str, float] = {}
    grown = 0.0
    for _ in range(rounds):
        started = time.perf_counter()
        top1["lightssl"] = knn_accuracy(features, k=K, temperature=TEMPERATURE, chunk=CHUNK)["top1"]
        times["lightssl"].append(time.perf_counter() - started)
        grown = grown or _peak_gib() - before
        started = time.perf_counter()
        top1["lightly"] = _lightly_knn(features)
        times["lightly"].append(time.perf_counter() - started)
    return {
        "seconds": {name: round(median(values), 2) for name, values in times.items()},
        "top1": {name: round(value, 2) for name, value in top1.items()},
        "memory_gib_beyond_features": round(grown, 2),
    }


def _lightly_knn(features: Features) -> float:
    from lightly.utils.benchmarking.knn import knn_predict
    from torch.nn.functional import normalize

    bank, test = normalize(features.train, dim=1).T.contiguous(), normalize(features.test, dim=1)
    predicted = [
        knn_predict(chunk, bank, features.train_labels, CLASSES, knn_k=K, knn_t=TEMPERATURE)[:, 0]
        for chunk in test.split(CHUNK)
    ]
    return accuracy(torch.cat(predicted), features.test_labels)


def _peak_gib() -> float:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 2**20


def linear(features: Features) -> dict[str, Any]:
    """Time the solver for all weight decays at once, and scikit-learn's for one after the other."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    started = time.perf_counter()
    ours = fit_classifiers(features.train, features.train_labels, CLASSES, WEIGHT_DECAYS)
    took = time.perf_counter() - started
    started = time.perf_counter()
    scaler = StandardScaler().fit(features.train.numpy())
    train, test = scaler.transform(features.train.numpy()), scaler.transform(features.test.numpy())
    theirs = [
        LogisticRegression(C=1 / (weight_decay * TRAIN), max_iter=1000, tol=1e-3).fit(
            train, features.train_labels.numpy()
        )
        for weight_decay in WEIGHT_DECAYS
    ]
    their_time = time.perf_counter() - started
    top1 = {
        "lightssl": [accuracy(one.predict(features.test), features.test_labels) for one in ours],
        "scikit-learn": [accuracy(torch.from_numpy(one.predict(test)), features.test_labels) for one in theirs],
    }
    return {
        "weight_decays": WEIGHT_DECAYS,
        "seconds": {"lightssl": round(took, 1), "scikit-learn": round(their_time, 1)},
        "top1": {name: [round(value, 2) for value in values] for name, values in top1.items()},
    }


if __name__ == "__main__":
    main()
