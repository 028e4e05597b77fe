"""A run is a folder: the resolved recipe, checkpoints, metrics, and everything later made from them."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from lightssl.errors import LightSSLError
from lightssl.files import write_json, write_text

DEFAULT_ROOT = Path("runs")


class Run:
    """The folder of one run, and where things lie in it.

    Args:
        folder: The folder.
        results: Where evaluations lie in it, if not beside each other in ``evaluate``.
    """

    def __init__(self, folder: Path | str, results: str = "evaluate") -> None:
        self.folder = Path(folder)
        self.results = self.folder / results

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def recipe_path(self) -> Path:
        """The resolved recipe. A folder with this file is a run."""
        return self.folder / "recipe.yaml"

    @property
    def environment_path(self) -> Path:
        """Machine, versions, seed and command."""
        return self.folder / "environment.json"

    @property
    def checkpoint_path(self) -> Path:
        """The newest state of the training, to resume from."""
        return self.folder / "checkpoints" / "last.pt"

    def kept_path(self, step: int) -> Path:
        """The backbone after so many steps, as safetensors beside its description."""
        return self.checkpoint_path.with_name(f"backbone-{step:08}.safetensors")

    def kept(self) -> dict[int, Path]:
        """Return the backbones that were kept, by the steps done."""
        paths = sorted(self.checkpoint_path.parent.glob("backbone-*.safetensors"))
        return {int(path.stem.removeprefix("backbone-")): path for path in paths}

    @property
    def metrics_path(self) -> Path:
        """One JSON object for each logged step."""
        return self.folder / "metrics.jsonl"

    @property
    def skipped_path(self) -> Path:
        """One JSON object for each image that could not be used."""
        return self.folder / "skipped.jsonl"

    @property
    def weights_path(self) -> Path:
        """The network, as safetensors; a JSON file of the same name describes it.

        That is the pre-trained backbone, or what a training with labels made of it: a classifier or a detector.
        """
        made = [path for path in (self.classifier_path, self.detector_path) if path.exists()]
        return made[0] if made else self.folder / "backbone.safetensors"

    @property
    def classifier_path(self) -> Path:
        """The network with a classifier on its features, in the folder of one that was fine-tuned."""
        return self.folder / "classifier.safetensors"

    @property
    def detector_path(self) -> Path:
        """The network with what finds objects by its feature maps, in the folder of one that was trained to."""
        return self.folder / "detector.safetensors"

    def made_by(self, task: str) -> "Run":
        """Return what a task made of this run: a run of its own, to be exported and timed."""
        beside = self.folder if self.results.parent == self.folder else self.results
        return Run(beside / task)

    def on(self, suite: str, data: str) -> "Run":
        """Return this run with its evaluations on one of the data sets of a suite."""
        plain = re.sub(r"[^A-Za-z0-9.-]+", "_", data).strip("_")
        # Two data sets have no folder in common.
        name = plain if plain == data else f"{plain}-{sha256(data.encode(errors='surrogateescape')).hexdigest()[:8]}"
        return Run(self.folder, f"evaluate/suites/{suite}/{name}")

    def suite_path(self, suite: str) -> Path:
        """Results of a suite in one table."""
        return self.folder / "evaluate" / "suites" / f"{suite}.json"

    @property
    def views_path(self) -> Path:
        """Contact sheet of the views that the network saw."""
        return self.folder / "views.png"

    @property
    def image_sizes_path(self) -> Path:
        """Height and width of some of the training images, by their positions in the source."""
        return self.folder / "image_sizes.json"

    @property
    def onnx_path(self) -> Path:
        """The exported network. Other precisions and the manifest lie beside it."""
        return self.folder / "export" / "model.onnx"

    @property
    def verification_path(self) -> Path:
        """The exported files beside the torch network."""
        return self.folder / "export" / "verify.json"

    @property
    def report_path(self) -> Path:
        """The page about this run."""
        return self.folder / "report.html"

    def evaluation_path(self, task: str) -> Path:
        """Result of an evaluation task."""
        return self.results / f"{task}.json"

    def under_way_path(self, task: str) -> Path:
        """Folder for the state of what an evaluation task trains, until its result is written."""
        return self.results / f"{task}-under-way"

    def picture_path(self, task: str) -> Path:
        """Picture that an evaluation task draws."""
        return self.results / f"{task}.png"

    def checkpoints_path(self, task: str) -> Path:
        """Result of an evaluation task for the backbones that were kept."""
        return self.results / "checkpoints" / f"{task}.json"

    def labels_path(self, task: str, share: str) -> Path:
        """Names of the images whose labels an evaluation was given, one a line."""
        return self.results / f"{task}-{share}.txt"

    def bench_path(self, target: str, model: str = "model.onnx") -> Path:
        """Latencies on a target, of an exported file: ``cpu.json``, and ``cpu.int8.arm.json`` for another precision."""
        other = Path(model).stem.removeprefix(self.onnx_path.stem)
        return self.folder / "bench" / f"{target}{other}.json"

    def recipe(self) -> dict[str, Any]:
        """Read the resolved recipe."""
        try:
            recipe = yaml.safe_load(self.recipe_path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise LightSSLError(
                f"{self.folder} is not a run: its recipe.yaml cannot be read ({error}).",
                "Name the folder that 'lightssl pretrain' wrote.",
            ) from error
        if not isinstance(recipe, dict):
            raise LightSSLError(f"{self.recipe_path} does not hold a recipe.", "Was it changed by hand?")
        return recipe

    def write_start(self, recipe: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        """Write what is known before training starts."""
        write_text(self.recipe_path, yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True, width=120))
        write_json(self.environment_path, dict(environment))

    def environment(self) -> dict[str, Any]:
        """Read machine, versions, seed and command; empty if they are missing."""
        try:
            value = json.loads(self.environment_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}


def new_run(out: Path | None, recipe_name: str) -> Run:
    """Choose the folder of a new run: ``out``, or one named by time and recipe below ``runs/``.

    Raises:
        LightSSLError: ``out`` already holds a run.
    """
    folder = out or DEFAULT_ROOT / f"{datetime.now():%Y%m%d-%H%M%S}-{recipe_name}"
    run = Run(folder)
    if run.recipe_path.exists():
        raise LightSSLError(
            f"{folder} already holds a run.",
            f"Continue it with --resume {folder}, or choose another folder with --out.",
        )
    return run


def find_run(folder: Path | str | None = None) -> Run:
    """Return the run in ``folder``, or the latest one below ``runs/`` if none is named.

    Raises:
        LightSSLError: There is no run.
    """
    if folder is not None:
        run = Run(folder)
        if not run.recipe_path.exists():
            raise LightSSLError(
                f"{folder} is not a run: it has no recipe.yaml.", "Name the folder that 'lightssl pretrain' wrote."
            )
        return run
    found = sorted(DEFAULT_ROOT.glob("*/recipe.yaml"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise LightSSLError(
            "There is no run below ./runs yet.", "Make one with 'lightssl pretrain', or name the folder of a run."
        )
    return Run(found[-1].parent)
