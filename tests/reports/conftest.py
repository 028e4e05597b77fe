import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

MALICIOUS = "photos/<script>alert('&')</script>\" onload=\"x.jpg"
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture
def bare_run(tmp_path: Path) -> Path:
    """A run folder with nothing but the recipe."""
    run = tmp_path / "a run"
    run.mkdir()
    recipe = {
        "name": "tiny_dino",
        "scale": "quick",
        "card": {"title": "A tiny recipe", "published": {"linear_top1": 68.3}},
        "views": {
            "global": {"count": 2, "size": 32, "scale": [0.3, 1.0]},
            "local": {"count": 6, "size": 18, "scale": [0.05, 0.3]},
            "balance": {"global": 0.4, "local": 0.6},
        },
        "method": {"name": "dino"},
    }
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return run


@pytest.fixture
def full_run(bare_run: Path) -> Path:
    """A run folder that holds everything the page can show, with a hostile file name and a log that was cut short."""
    run = bare_run
    environment = {
        "started": "2026-01-02T03:04:05+00:00",
        "command": ["lightssl", "pretrain", "--data", MALICIOUS],
        "data": MALICIOUS,
        "machine": {"cpu": "A Processor", "accelerators": []},
        "versions": {"torch": "2.14.1", "onnx": None},
    }
    write(run / "environment.json", environment)
    rows = [
        {"step": step, "epoch": step / 10, "loss": 8 - step / 100, "weight_decay": 1e-6, "temperature_of_tea": step / 7}
        for step in range(400)
    ]
    log = "".join(json.dumps(row) + "\n" for row in rows)
    (run / "metrics.jsonl").write_text(log + '{"step": 400, "lo', encoding="utf-8")
    for task, (trained, fresh, estimated) in {"knn": (61.2, 51.3, 58.4), "linear": (60.0, 70.0, 65.0)}.items():
        results = [
            {"network": "pre-trained", "top1": trained, "test_images": 10000},
            {"network": "random, fresh batch-norm statistics", "top1": fresh, "test_images": 10000},
            {"network": "random, estimated batch-norm statistics", "top1": estimated, "test_images": 10000},
        ]
        write(run / "evaluate" / f"{task}.json", {"task": task, "results": results, "data": {"train": MALICIOUS}})
    queries = [
        {
            "image": PIXEL,
            "label": "Coat",
            "neighbours": [
                {"image": PIXEL, "label": "<b>Bag</b>", "similarity": 0.91},
                {"image": "https://example.org/tracker.png", "label": "Coat", "similarity": 0.9},
            ],
        }
    ]
    write(run / "evaluate" / "neighbours.json", {"seed": 5, "queries": queries})
    cv2.imwrite(str(run / "views.png"), np.zeros((4, 6, 3), np.uint8))
    exported = {"file": "model.onnx", "sha256": "0f", "precision": "fp32", "opset": 18, "parity": {"max_error": 1.5e-6}}
    write(run / "export" / "manifest.json", {"files": [exported]})
    write(run / "export" / "verify.json", {"rows": [{"model": "torch"}, {"sha256": "0f", "top1": 44.5}]})
    (run / "export" / "model.onnx").write_bytes(bytes(2_500_000))
    rows = [
        {"device": "A Processor", "runtime": "onnxruntime", "threads": 1, "latency_ms_p50": 12.345, "load_ms": 50.2},
        {"device": "A Processor", "runtime": "torch", "threads": 1, "latency_ms_p50": 23.456, "load_ms": None},
    ]
    rows[0]["operators"] = [{"node": "conv_1", "operator": "Conv", "ms": 9.5}]
    write(run / "bench" / "cpu.json", {"rows": rows})
    cv2.imwrite(str(run / "bench" / "cpu.operators.png"), np.zeros((3, 5, 3), np.uint8))
    bad = {"index": 3, "name": MALICIOUS, "reason": "truncated"}
    (run / "skipped.jsonl").write_text(json.dumps(bad) + "\n", encoding="utf-8")
    return run
