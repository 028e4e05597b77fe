"""The whole search on a few images, and what it does when something is wrong."""

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

import lightssl
from lightssl.backbones.cost import count_cost
from lightssl.config.load import load_recipe
from lightssl.config.schema import Recipe
from lightssl.data.sources import Source, open_source
from lightssl.deploy.onnx import export_onnx
from lightssl.deploy.profile import Profile, load_profile
from lightssl.errors import ConfigError, DataError, LightSSLError
from lightssl.files import read_json_lines
from lightssl.pipeline import build_backbone, laboratory, resume_search, search_network
from lightssl.pipeline.question import Question
from lightssl.progress import Silent
from lightssl.runs import Run
from lightssl.search.cost import CostTable
from lightssl.search.sandwich import sandwich
from lightssl.search.spaces import SPACES
from lightssl.search.task import Stopped
from lightssl.train.architecture import ArchitectureSteps
from lightssl.train.loop import Trainer
from lightssl.types import Batch
from lightssl.units import Duration
from tests.processes import kill_when, start
from tests.reports.html import Page

LIMITS = {"flops": 100e6}
SHORT = [
    "train.batch_size=4",
    "train.checkpoint_every=1 steps",
    "train.log_every=1 steps",
    "train.precision=32-true",
    "data.workers=0",
    "views.local.count=2",
    "method.hidden=16",
    "method.bottleneck=8",
    "method.prototypes=16",
]
EVOLVE = ["search.supernet=2 steps", "search.candidates=4", "search.population=2", "search.images=8", "search.middle=1"]
DIFFERENTIABLE = ["search.supernet=6 steps", "search.candidates=4", "search.images=8", "search.every=2"]
ZERO_COST = ["search.candidates=2", "search.population=2", "search.images=4"]


def search(photos: Path, out: Path, *options: str, limits: Mapping[str, float] = LIMITS, **more: Any) -> dict[str, Any]:
    result = search_network(limits, data=str(photos), overrides=[*SHORT, *options], out=out, **more)
    assert result is not None
    return result


@pytest.mark.slow
def test_a_search_ends_in_a_recipe_that_pretrain_runs_and_export_ships(
    photos: Path, tmp_path: Path, program: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    settings = [word for option in [*SHORT, *EVOLVE] for word in ("--set", option)]
    done = program("search", "--flops", "100M", "--data", str(photos), *settings, "--out", "run")
    folder = tmp_path / "run" / "search"
    result = json.loads((folder / "search.json").read_text())
    rows = read_json_lines(folder / "candidates.jsonl")
    winner = result["winner"]
    assert len(rows) == result["candidates"] == 4
    assert winner["score"] == max(row["score"] for row in rows)
    assert all(0.95 <= row["budget_share"] <= 1.0 for row in rows)
    assert f"Winner: {winner['candidate']}" in done.stdout
    assert "100,000,000 flops at 224 pixels" in done.stderr
    assert "views of 32 pixels" in done.stderr

    # What was promised is what is built.
    recipe = load_recipe(str(folder / "winner.yaml"))
    assert recipe.evaluation.image_size == recipe.views.global_.size == 224
    assert count_cost(build_backbone(recipe), 224) == (winner["flops"], winner["parameters"])

    page = Page(folder / "search.html")
    assert page.tags.count("img") == 1
    assert all(address.startswith("data:") for address in page.loads)
    for words in (winner["candidate"], "mobilenetv2", *winner["candidate"].split()[1:], result["next"]):
        assert words in page.text
    assert (folder / "pareto.png").read_bytes().startswith(b"\x89PNG")

    run = lightssl.pretrain(
        str(folder / "winner.yaml"),
        data=str(photos),
        overrides=[*SHORT, "train.duration=1 steps"],
        out=tmp_path / "run",
    )
    assert run.recipe()["backbone"]["topology"] in winner["candidate"]
    assert lightssl.export(run).output.width == 1280


class Told(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("evolve", [*EVOLVE, "search.supernet=4 steps"]),
        ("differentiable", [*DIFFERENTIABLE, "search.warmup=1 steps", "search.rate=0.1"]),
    ],
)
def test_a_search_that_is_killed_twice_ends_as_one_that_was_not(
    strategy: str,
    options: list[str],
    photos: Path,
    tmp_path: Path,
    program: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Once while the supernet is trained, and once while candidates are scored."""
    settings = [word for option in [*SHORT, *options] for word in ("--set", option)]
    asked = ["search", "--flops", "100M", "--strategy", strategy, "--data", str(photos), *settings, "--out"]
    program(*asked, "whole")

    folder = tmp_path / "broken" / "search"
    process = start([*asked, "broken"], tmp_path)
    kill_when(process, lambda: len(read_json_lines(folder / "metrics.jsonl")) >= 2)
    assert scored(folder / "candidates.db") == 0
    process = start(["search", "--resume", "broken"], tmp_path)
    kill_when(process, lambda: scored(folder / "candidates.db") >= 1)
    assert not (folder / "candidates.jsonl").exists()
    program("search", "--resume", "broken")

    whole = tmp_path / "whole" / "search"
    assert (folder / "candidates.jsonl").read_text() == (whole / "candidates.jsonl").read_text()
    for name in ("loss", "expected_flops"):
        assert [row.get(name) for row in read_json_lines(folder / "metrics.jsonl")] == [
            row.get(name) for row in read_json_lines(whole / "metrics.jsonl")
        ]


def scored(database: Path) -> int:
    """Return how many candidates are scored in a database that may not be one yet."""
    import sqlite3

    if not database.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT COUNT(*) FROM trials WHERE state = 'COMPLETE'").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


@pytest.mark.slow
def test_other_strategies_end_alike(photos: Path, tmp_path: Path) -> None:
    found = {
        "differentiable": search(photos, tmp_path / "d", *DIFFERENTIABLE, strategy="differentiable"),
        "random": search(photos, tmp_path / "r", *[o for o in EVOLVE if "population" not in o], strategy="random"),
        "zero-cost": search(photos, tmp_path / "z", *ZERO_COST, strategy="zero-cost"),
        "labels": search(photos, tmp_path / "l", *EVOLVE, labels=True),
    }
    for result in found.values():
        assert 0.95 <= result["winner"]["budget_share"] <= 1.0
    assert {"agreement", "loss", "rank", "probability"} <= found["differentiable"]["winner"].keys()
    assert found["differentiable"]["winner"]["score"] == found["differentiable"]["winner"]["probability"]
    rows = read_json_lines(tmp_path / "d" / "search" / "candidates.jsonl")
    assert all(0.95 <= row["budget_share"] <= 1.0 for row in rows)
    (last,) = read_json_lines(tmp_path / "d" / "search" / "metrics.jsonl")[-1:]
    assert {"expected_flops", "entropy", "entropy_stage7"} <= last.keys()
    assert {"naswot", "synflow", "rank"} <= found["zero-cost"]["winner"].keys()
    assert not (tmp_path / "z" / "search" / "checkpoints").exists()
    assert found["labels"]["winner"]["score"] == found["labels"]["winner"]["knn"]


@pytest.mark.slow
def test_further_workers_and_other_folders(photos: Path, tmp_path: Path) -> None:
    search(photos, tmp_path / "run", *EVOLVE)
    assert resume_search(tmp_path / "run", join=True) is None  # there is nothing left to do
    with pytest.raises(LightSSLError, match="already holds a search"):
        search(photos, tmp_path / "run", *EVOLVE)
    (photos / "red" / "0.jpg").unlink()
    with pytest.raises(DataError, match="was started on 30 images"):
        resume_search(tmp_path / "run")
    storage = f"sqlite:///{tmp_path / 'run' / 'search' / 'candidates.db'}"
    with pytest.raises(LightSSLError, match="holds another search by the name 'run'"):
        search(photos, tmp_path / "elsewhere" / "run", *ZERO_COST, strategy="zero-cost", storage=storage)


def test_weights_and_architecture_learn_from_different_images(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[str]] = {}

    def names(source: Source) -> set[str]:
        return {source.item_name(index) for index in range(len(source))}

    def fit(trainer: Trainer, recipe: Recipe, source: Source, *_: Any) -> bool:
        seen["weights"] = names(source)
        assert trainer.architecture is not None
        trainer.architecture.batches(0)
        return False

    def training_batches(recipe: Recipe, source: Source, *_: Any, **__: int) -> tuple[Batch, ...]:
        seen["architecture"] = names(source)
        return ()

    monkeypatch.setattr(laboratory, "fit", fit)
    monkeypatch.setattr(laboratory, "training_batches", training_batches)
    space = SPACES["mobilenetv2"]
    lab = laboratory.Laboratory(
        load_recipe("mobilenetv2_dino", scale="quick", overrides=SHORT),
        space,
        open_source(str(photos)),
        supernet_options={},
        deployed_options={},
        run=Run(tmp_path),
        question="",
        fabric=Fabric(accelerator="cpu", devices=1),
        narrator=Silent(),
    )
    logits = [torch.nn.Parameter(torch.zeros(3))]
    with pytest.raises(Stopped):
        lab.train(
            Duration(2, "steps"),
            sandwich(space, middle=1, seed=0),
            lambda clock, batches: ArchitectureSteps(logits, torch.optim.Adam(logits), batches),
        )
    assert len(seen["weights"]) == len(seen["architecture"]) == 12  # of 30 images, 6 are held out
    assert not seen["weights"] & seen["architecture"]


def asked_for_latency(limits: dict[str, float], target: Path | str, threads: int | None = None) -> Question:
    return Question(
        strategy="zero-cost",
        space="mobilenetv2",
        limits=limits,
        image_size=64,
        recipe="mobilenetv2_dino",
        composed={},
        scale="quick",
        overrides=[],
        target=str(target),
        threads=threads,
    )


def test_questions_about_other_devices_are_others() -> None:
    asked = [
        asked_for_latency({"latency_ms": 20.0}, "predict:raspberry-pi-4"),
        asked_for_latency({"latency_ms": 21.0}, "predict:raspberry-pi-4"),
        asked_for_latency({"latency_ms": 20.0}, "predict:raspberry-pi-4", threads=4),
        asked_for_latency({"latency_ms": 20.0}, "predict:raspberry-pi-5"),
    ]
    assert len({question.digest for question in asked}) == 4
    assert asked[0].budget == "20 ms on predict:raspberry-pi-4"
    both = asked_for_latency({"flops": 3e8, "latency_ms": 1.5}, "cpu")
    assert both.budget == "300,000,000 flops, 1.5 ms on cpu"


LATENCY: dict[str, Any] = {"image_size": 64, "strategy": "zero-cost", "limits": {"latency_ms": 6.0}}


@pytest.mark.slow
def test_a_search_for_a_latency_says_what_is_predicted(photos: Path, tmp_path: Path) -> None:
    target = "predict:raspberry-pi-4"
    told = Told()
    result = search(photos, tmp_path / "run", *ZERO_COST, **LATENCY, target=target, threads=4, narrator=told)
    winner, latency, folder = result["winner"], result["latency"], tmp_path / "run" / "search"
    assert 5.7 <= winner["latency_ms"] <= 6.0
    assert latency["threads"] == 4
    assert latency["latency_ms_p50"] == winner["latency_ms"]
    assert latency["latency_ms_low"] * latency["latency_ms_high"] == pytest.approx(winner["latency_ms"] ** 2)
    text = "predicted {latency_ms_p50:.3g} ms ({latency_ms_low:.3g} to {latency_ms_high:.3g}".format(**latency)
    page = Page(folder / "search.html")
    for place in (page.text, (folder / "winner.yaml").read_text()):
        assert text in place
        assert "6 ms on predict:raspberry-pi-4" in place
    assert any("threads: 4: networks left out of the fit were 12 % off" in line for line in told.lines)
    assert all(5.7 <= row["latency_ms"] <= 6.0 for row in read_json_lines(folder / "candidates.jsonl"))

    # What was promised is predicted of the file that is exported, by the copy of the profile.
    recipe = load_recipe(str(folder / "winner.yaml"))
    model = tmp_path / "model.onnx"
    export_onnx(
        build_backbone(recipe),
        model,
        input_size=recipe.evaluation.image_size,
        mean=recipe.data.mean,
        std=recipe.data.std,
        include_normalisation=True,
        metadata={},
        images=None,
    )
    rows = {row["threads"]: row for row in lightssl.bench([model], target=str(folder / "latency.yaml"))}
    for name in ("latency_ms_p50", "latency_ms_low", "latency_ms_high"):
        assert rows[4][name] == pytest.approx(latency[name], rel=1e-9)


@pytest.mark.slow
def test_a_device_is_measured_once(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pi = load_profile("predict:raspberry-pi-4")
    board = pi.model_copy(update={"settings": {**pi.settings, "device": "a board"}})
    asked: list[str] = []

    def measure(profile: Profile, _table: CostTable, **_arguments: Any) -> Profile:
        asked.append(profile.target)
        return board

    monkeypatch.setattr("lightssl.pipeline.searching.measure", measure)
    result = search(photos, tmp_path / "run", *ZERO_COST, **LATENCY, target="cpu")
    assert asked == ["cpu"]
    assert result["latency"]["device"] == "a board"
    again = resume_search(tmp_path / "run")
    assert again is not None
    assert again["winner"] == result["winner"]
    assert resume_search(tmp_path / "run", join=True) is None
    kept = tmp_path / "run" / "search" / "latency.yaml"
    other = search(photos, tmp_path / "other", *ZERO_COST, **LATENCY, target=kept)
    assert other["winner"] == result["winner"]
    assert asked == ["cpu"]

    # What was measured stays, for another limit.
    with pytest.raises(ConfigError, match="is that small"):
        search(photos, tmp_path / "low", **{**LATENCY, "limits": {"latency_ms": 0.01}}, target="cpu")
    assert [path.name for path in (tmp_path / "low" / "search").iterdir()] == ["latency.yaml"]
    kept.unlink()
    with pytest.raises(ConfigError, match=r"Cannot read the device profile .*latency\.yaml"):
        resume_search(tmp_path / "run")


# --------------------------------------------------------------------------------------------------------- bad input

PI = {"target": "predict:raspberry-pi-4"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limits": {"flops": 1e6}}, r"flops: the limit is 1,000,000, mobilenetv2@224 .* has 69,696,032"),
        ({"limits": {"flops": 300e6, "parameters": 1e3}}, "parameters: the limit is 1,000"),
        ({"strategy": "evolv"}, "Unknown search strategy 'evolv'.\nDid you mean 'evolve'"),
        ({"space": "mobilnet"}, "Unknown search space 'mobilnet'.\nDid you mean 'mobilenetv2'"),
        ({"recipe": "resnet50_din"}, "Unknown recipe 'resnet50_din'"),
        ({"overrides": ["search.candidate=3"]}, "search.candidate: unknown key. Did you mean 'candidates'"),
        ({"overrides": ["search.score=top1"]}, "search.score"),
        ({"overrides": ["train.compile=true"]}, "train.compile=true does not go with a supernet"),
        ({"overrides": ["backbone=resnet18"]}, "The networks of the space mobilenetv2 are mobilenetv2, not resnet18"),
        ({"overrides": ["backbone.width=0.5"]}, "a search chooses widths itself"),
        ({"limits": {"latency_ms": 20.0}}, r"limit of latency is of a device\.\nName it: --target"),
        ({"target": "cpu"}, r"--target and --threads .*\nGive one, such as --latency 20ms"),
        ({"threads": 2}, "--target and --threads"),
        ({"limits": {"latency_ms": 20.0}, **PI, "threads": 0}, "--threads is 0"),
        ({"limits": {"latency_ms": 20.0}, **PI, "threads": 3}, "no fit for --threads 3"),
        ({"limits": {"latency_ms": 20.0}, "target": "predict:pixel"}, "Did you mean 'predict:pixel1'"),
        ({"limits": {"latency_ms": 20.0}, "target": "none.yaml"}, r"Cannot read the device profile none\.yaml"),
        ({"limits": {"latency_ms": 20.0}, "target": "web"}, "cannot measure in a browser"),
        ({"limits": {"latency_ms": 20.0}, "target": "ssh"}, "Which host"),
        ({"limits": {"latency_ms": 20.0}, **PI}, r"latency_ms: the limit is 20 ms, mobilenetv2@224 .* has 22\.94 ms"),
        ({"limits": {"latency_ms": 9e3}, **PI}, r"is that large:\n.*the limit is 9,000 ms, .* has 217\.6 ms"),
        ({"limits": {"flops": 3e8, "latency_ms": 0.5}, **PI}, r"latency_ms: the limit is 0\.5 ms"),
        ({"limits": {"latency_ms": 90.0}, **PI, "space": "vit"}, "not fitted on: matmul, normalisation"),
        # What a device has to be measured for is not waited for where another limit is out of reach.
        ({"limits": {"flops": 1e6, "latency_ms": 20.0}, "target": "cpu"}, "flops: the limit is 1,000,000"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_done(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        search_network(**{"limits": LIMITS, "out": tmp_path / "run", **options})
    assert not (tmp_path / "run").exists()


def test_labels_that_are_not_there_are_missed_at_once(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no labels, which a score by labels needs"):
        search_network(LIMITS, data=str(photos / "red"), labels=True, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_search_is_named(tmp_path: Path) -> None:
    with pytest.raises(LightSSLError, match="holds no search"):
        resume_search(tmp_path)


def test_the_space_and_the_size_are_those_of_the_recipe() -> None:
    with pytest.raises(ConfigError, match=r"resnet_basic@32 32x1 64x1 128x1 256x1 has"):
        search_network({"flops": 1.0}, recipe="resnet18_simsiam_cifar")
    with pytest.raises(ConfigError, match=r"vit@160 128x8-h2m2 has"):
        search_network({"flops": 1.0}, recipe="vit_tiny_swav", image_size=160)
    with pytest.raises(ConfigError, match=r"resnet_bottleneck@224 32x1 64x1 128x1 256x1 has 471,252,992"):
        search_network({"flops": 1.0}, space="resnet_bottleneck")
