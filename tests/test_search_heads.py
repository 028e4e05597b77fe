"""The whole search for heads on a few images, and what it does when something is wrong."""

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lightssl
from lightssl.chains import OPERATIONS
from lightssl.config.load import compose, dump, load_recipe
from lightssl.errors import ConfigError, DataError, LightSSLError
from lightssl.files import read_json_lines
from lightssl.pipeline import resume_head_search, retrain_heads, search_heads
from lightssl.pipeline.searching_heads import HeadQuestion
from lightssl.runs import Run
from tests.processes import start

Program = Callable[..., subprocess.CompletedProcess[str]]
SHORT = [
    "train.batch_size=4",
    "train.checkpoint_every=2 steps",
    "train.log_every=1 steps",
    "train.precision=32-true",
    "data.workers=0",
    "heads.duration=5 steps",
]
SMALL = {
    "dino": ["method.hidden=16", "method.bottleneck=8", "method.prototypes=16", "views.local.count=1"],
    "swav": ["method.hidden=16", "method.bottleneck=8", "method.prototypes=16", "views.local.count=1"],
    "mocov2": ["method.bottleneck=8", "method.queue=16"],
    "simsiam": ["method.width=16", "method.predictor_hidden=8"],
    "simclr": ["method.hidden=16", "method.bottleneck=8"],
}


def settings(method: str, *more: str) -> list[str]:
    return [word for option in [*SHORT, *SMALL[method], *more] for word in ("--set", option)]


@pytest.mark.slow
@pytest.mark.parametrize("method", SMALL)  # whose heads can be searched
def test_every_method_ends_in_a_recipe_that_pretrain_runs(method: str, photos: Path, tmp_path: Path) -> None:
    result = search_heads(method, data=str(photos), overrides=[*SHORT, *SMALL[method]], out=tmp_path / "run")
    assert result is not None
    parts = ["projector", "predictor"] if method == "simsiam" else ["projector"]
    assert list(result["genotype"]) == parts
    folder = tmp_path / "run" / "search-heads"
    assert json.loads((folder / "search-heads.json").read_text()) == result
    assert (folder / "heads.png").read_bytes().startswith(b"\x89PNG")
    layers = [f"{part}.{n}" for part in parts for n in range(len(result["genotype"][part].split()))]
    assert list(result["shares"]) == layers
    for layer, shares in result["shares"].items():
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-5)
        assert max(shares.values()) > 1 / len(OPERATIONS)
        part, number = layer.split(".")
        assert max(shares, key=lambda name: shares[name]) == result["genotype"][part].split()[int(number)]
    last = read_json_lines(folder / "metrics.jsonl")[-1]
    assert {f"{layer}.{name}": last[f"{layer}.{name}"] for layer in layers for name in OPERATIONS} == {
        f"{layer}.{name}": share for layer, shares in result["shares"].items() for name, share in shares.items()
    }

    recipe = load_recipe(str(folder / "genotype.yaml"))
    assert {part: getattr(recipe.method, part) for part in parts} == result["genotype"]
    assert recipe.train.duration == load_recipe(result["asked"]["question"]["recipe"]).train.duration
    assert not recipe.card.in_paper
    assert "found by search" in recipe.card.title


@pytest.mark.slow
def test_from_the_command_to_a_network_with_the_heads_it_found(photos: Path, tmp_path: Path, program: Program) -> None:
    asked = ["--method", "simsiam", "--data", str(photos), *settings("simsiam", "train.duration=1 steps")]
    done = program("search-heads", *asked, "--retrain", "--out", "run")
    result = json.loads((tmp_path / "run" / "search-heads" / "search-heads.json").read_text())
    for part, operations in result["genotype"].items():
        assert f"{part}: {operations}" in done.stdout
    assert "on two halves of 30 images" in done.stderr
    assert f"Next: {result['next']}" in done.stdout
    assert shlex.split(result["next"])[:4] == ["lightssl", "pretrain", "--recipe", "run/search-heads/genotype.yaml"]
    run = Run(tmp_path / "run")
    assert lightssl.load_backbone(run).feature_width == 512
    trained = run.recipe()["method"]
    assert {part: trained[part] for part in result["genotype"]} == result["genotype"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["simsiam", "mocov2"])
def test_a_search_that_is_killed_ends_as_one_that_was_not(
    method: str, photos: Path, tmp_path: Path, program: Program
) -> None:
    options = settings(method, "heads.duration=20 steps", "train.checkpoint_every=3 steps")
    asked = ["search-heads", "--method", method, "--data", str(photos), *options, "--out"]
    program(*asked, "whole")

    folder = tmp_path / "broken" / "search-heads"
    process = start([*asked, "broken"], tmp_path)
    deadline = time.monotonic() + 600
    while len(read_json_lines(folder / "metrics.jsonl")) < 8:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the search never got there"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (folder / "genotype.yaml").exists()
    program("search-heads", "--resume", "broken")

    whole = tmp_path / "whole" / "search-heads"
    assert (folder / "genotype.yaml").read_text() == (whole / "genotype.yaml").read_text()
    assert (folder / "heads.png").read_bytes() == (whole / "heads.png").read_bytes()
    rows = [
        [{key: value for key, value in row.items() if key != "images_per_s"} for row in read_json_lines(path)]
        for path in (folder / "metrics.jsonl", whole / "metrics.jsonl")
    ]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_a_search_that_ended_can_still_be_trained_from_and_is_not_begun_again(photos: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "data": str(photos),
        "overrides": [*SHORT, *SMALL["simclr"], "train.duration=1 steps"],
        "out": tmp_path / "run",
    }
    result = search_heads("simclr", **asked)
    with pytest.raises(LightSSLError, match="already holds a search"):
        search_heads("simclr", **asked)
    assert resume_head_search(tmp_path / "run") == result
    assert result is not None
    assert retrain_heads(result).weights_path.exists()
    (photos / "red" / "0.jpg").unlink()
    with pytest.raises(DataError, match="was started on 30 images"):
        resume_head_search(tmp_path / "run")


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Heads are searched for a method.\nName one with --method: dino, swav"),
        ({"method": "simsam"}, "Unknown method 'simsam'.\nDid you mean 'simsiam'"),
        ({"recipe": "resnet18_simsiam"}, "Unknown recipe 'resnet18_simsiam'.\nDid you mean"),
        ({"method": "simclr", "recipe": "resnet18_simsiam_cifar"}, "is of the method simsiam, not simclr"),
        ({"method": "simsiam", "overrides": ["method.name=simclr"]}, "is of the method simclr, not simsiam"),
        ({"method": "simsiam", "overrides": ["heads.length=3 steps"]}, "heads.length: unknown key"),
        ({"method": "simsiam", "overrides": ["heads.optimizer=sgd"]}, "heads.optimizer: input should be 'adamw' or"),
        ({"method": "simsiam", "overrides": ["heads.duration=0 steps"]}, "shorter than one step"),
        ({"method": "simsiam", "overrides": ["method.predictor=id id id id"]}, "chooses method.predictor itself"),
        ({"method": "simsiam", "overrides": ["train.batch_sise=3"]}, "train.batch_sise: unknown key"),
        ({"method": "mocov2", "overrides": ["method.queue=100"]}, "which the batch of 64 images does not divide"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_done(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(LightSSLError, match=message):
        search_heads(**{"out": tmp_path / "run", **options})
    assert not (tmp_path / "run").exists()


def test_too_few_images_for_two_halves_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a batch of 16 cannot be filled from 15.\n.* train.batch_size=8"):
        search_heads("simsiam", data=str(photos), overrides=["train.batch_size=16"], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_search_is_named(tmp_path: Path) -> None:
    with pytest.raises(LightSSLError, match="holds no search-heads"):
        resume_head_search(tmp_path)


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ("relu silu elu id id rulu", r"method.projector: unknown operation 'rulu'. Did you mean 'relu'\? Known: max"),
        ("relu silu", r"method.projector: the projector 'relu silu' has 2 layers instead of 6. Name one of max, avg"),
        ("search", r"method.projector: the projector cannot be left open.* lightssl search-heads"),
    ],
)
def test_a_recipe_with_a_wrong_chain_is_refused(chain: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe("resnet18_simsiam_cifar", overrides=[f"method.projector={chain}"])


# ----------------------------------------------------------------------------------------------- what was published


@pytest.mark.parametrize(
    ("method", "optimizer", "momentum"),
    [("simsiam", "adamw", None), ("mocov2", "adamw", 0.999), ("simclr", "adam", None)],
)
def test_the_paper_scale_searches_as_published(method: str, optimizer: str, momentum: float | None) -> None:
    """NASiam (arXiv 2302.00059), from the authors' code."""
    name = f"resnet18_{method}_cifar"
    question = HeadQuestion(method, name, compose(name), "paper", [])
    options, recipe = question.options(), question.resolve()
    assert (str(options.duration), options.optimizer, options.rate) == ("100 epochs", optimizer, 1e-3)
    assert recipe.train.duration == options.duration
    if momentum is not None:
        assert (recipe.method.momentum, recipe.method.queue, recipe.method.temperature) == (momentum, 4096, 0.1)
        assert load_recipe(name).method.momentum == 0.99
    if method == "simsiam":
        schedule = recipe.schedule
        assert (recipe.train.batch_size, schedule.base_rate, schedule.weight_decay) == (512, 0.06, 5e-4)


@pytest.mark.parametrize(
    ("name", "chains"),
    [
        (
            "resnet18_simsiam_cifar",
            {"projector": "relu silu elu id id relu", "predictor": "hswish avg avg hswish"},
        ),
        ("resnet18_mocov2_cifar", {"projector": "avg avg avg avg"}),
        ("resnet50_simclr_cifar", {"projector": "hswish hswish avg relu relu relu", "hidden": 512}),
    ],
)
def test_recipes_with_published_heads_differ_in_those_alone(name: str, chains: dict[str, Any]) -> None:
    plain, found = dump(load_recipe(name)), dump(load_recipe(f"{name}_nasiam"))
    assert {key for key in plain if plain[key] != found[key]} == {"name", "card", "method"}
    assert found["method"] == plain["method"] | chains
    assert found["card"]["published"] == {}
    assert found["card"]["measured"] == "not run by us yet"
