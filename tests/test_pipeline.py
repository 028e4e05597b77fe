"""The whole flow on a few images, and what it does when something is wrong."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest
import safetensors.torch
import torch

import lightssl
from lightssl import files
from lightssl.checkpoint import load_checkpoint
from lightssl.config.load import available, load_recipe
from lightssl.errors import CheckpointError, ConfigError, DataError, LightSSLError, TrainingError
from lightssl.files import read_json_lines
from lightssl.pipeline import build_method, default_scale
from lightssl.progress import Silent
from lightssl.runs import Run
from lightssl.train.loop import Trainer
from lightssl.types import Batch, Clock, StepOutput
from tests.processes import start


def weights(run: Run | Path) -> dict[str, torch.Tensor]:
    folder = run.folder if isinstance(run, Run) else run
    return safetensors.torch.load_file(folder / "backbone.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


SCALED = ["mobilenetv2_dino", "resnet18_swav", "vit_tiny_mocov2", "mobilenetv2_simsiam_cifar", "vit_tiny_simclr_cifar"]
SCALED += ["resnet18_rotation", "mobilenetv2_exemplar", "resnet18_relative_patch", "resnet50_jigsaw"]


@pytest.mark.parametrize(
    ("name", "scale"),
    [(name, "paper") for name in available()] + [(name, scale) for name in SCALED for scale in available("scales")],
)
def test_every_recipe_builds_and_steps_at_a_tiny_size(name: str, scale: str, make_tiny) -> None:
    recipe = load_recipe(name, scale=scale, overrides=make_tiny(name))
    method = build_method(recipe)
    kinds = [kind for kind in (recipe.views.global_, recipe.views.local) if kind.count]
    views = [torch.randn(kind.count, 8, 3, kind.size, kind.size) for kind in kinds]
    clock = Clock(0, 10, 5, 8)
    method.check(clock)
    output = method(views, clock)
    output.loss.backward()
    method.after_backward(clock)
    method.after_step(clock)
    assert math.isfinite(output.loss.item())
    assert output.features.shape == (8, method.encoder.feature_width)


def test_from_a_folder_of_images_to_a_timed_onnx_file(photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    run = lightssl.pretrain("mobilenetv2_dino", data=str(photos), overrides=tiny, out=tmp_path / "run")
    rows = read_json_lines(run.metrics_path)
    assert [row["step"] for row in rows] == list(range(6))
    assert all(math.isfinite(row["loss"]) and row["effective_rank"] > 1 for row in rows)
    assert {"learning_rate", "weight_decay", "images_per_s", "feature_std", "teacher_entropy"} <= rows[0].keys()
    assert list((run.folder / "tensorboard").iterdir())
    assert run.views_path.stat().st_size > 1000

    results = lightssl.evaluate(run)
    assert set(results) == {"knn", "linear"}
    networks = [row["network"] for row in results["knn"]["results"]]
    assert networks == ["pre-trained", "random, batch norm as initialised", "random, batch norm estimated"]
    assert all(0 <= row["top1"] <= 100 for task in results.values() for row in task["results"])

    exported = lightssl.export(run)
    assert [run.onnx_path.with_name(file.file) for file in exported.files] == [run.onnx_path]
    assert exported.output.width == lightssl.load_backbone(run).feature_width

    page = lightssl.report(run)
    text = page.read_text(encoding="utf-8")
    assert "mobilenetv2_dino" in text
    assert "Distributions of area, pixel scale and overlap" in text
    assert "http://" not in text.replace("http://www.w3.org", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone",
    [
        "{name: mobilenetv2, topology: 8x1-k3e1 8x1-k5e3 16x2-k3e4-k7e3 16x1-k3e3 24x1-k3e3 24x1-k3e3 32x1-k5e3}",
        "{name: resnet, topology: 16x1 16x2 32x1 32x1, block: bottleneck}",
        "{name: vit, topology: 48x2-h1m2-h2m3, patch: 8, image_size: 32}",
    ],
)
def test_a_topology_goes_from_a_recipe_to_an_onnx_file(backbone: str, photos: Path, tmp_path: Path, make_tiny) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"extends: mobilenetv2_dino\nbackbone: {backbone}\n")
    run = lightssl.pretrain(str(recipe), data=str(photos), overrides=make_tiny("dino"), out=tmp_path / "run")
    network = lightssl.load_backbone(run)
    assert run.recipe()["backbone"]["topology"] in backbone
    assert lightssl.export(run).output.width == network.feature_width


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone",
    [
        "{name: resnet50_v2, width_factor: 1, depths: [1, 1, 1, 1], stem: small, final_relu: false}",
        "{name: revnet50, width_factor: 1, depths: [2, 1, 1, 1], stem: small}",
        "{name: vgg19_bn, width_factor: 1, image_size: 32}",
    ],
)
def test_networks_of_any_width_go_from_a_recipe_to_an_onnx_file(
    backbone: str, photos: Path, tmp_path: Path, make_tiny
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"extends: mobilenetv2_dino\nbackbone: {backbone}\n")
    run = lightssl.pretrain(str(recipe), data=str(photos), overrides=make_tiny("dino"), out=tmp_path / "run")
    losses = [row["loss"] for row in read_json_lines(run.metrics_path) if "loss" in row]
    assert losses
    assert all(map(math.isfinite, losses))
    assert lightssl.load_backbone(run).feature_width == 512
    assert lightssl.export(run).output.width == 512


def test_knn_is_watched_during_training_if_asked(photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    """At steps where nothing else is due, without changing what is trained."""
    watched = [*tiny, "train.log_every=100%", "train.checkpoint_every=100%", "evaluation.monitor_every=3 steps"]
    run = lightssl.pretrain(data=str(photos), overrides=watched, out=tmp_path / "watched")
    assert [row["step"] for row in read_json_lines(run.metrics_path) if "knn_top1" in row] == [2, 5]
    alone = lightssl.pretrain(data=str(photos), overrides=tiny, out=tmp_path / "alone")
    assert same(weights(run), weights(alone))
    final = lightssl.evaluate(run, tasks=["knn"])["knn"]["results"][0]["top1"]
    assert final == pytest.approx(read_json_lines(run.metrics_path)[-1]["knn_top1"])


def test_the_evaluated_network_is_the_saved_one(photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    run = lightssl.pretrain(data=str(photos), overrides=tiny, out=tmp_path / "run")
    images = torch.randn(2, 3, 32, 32)
    by_run, by_file = lightssl.load_backbone(run.folder), lightssl.load_backbone(run.weights_path)
    assert not by_run.training
    torch.testing.assert_close(by_run(images), by_file(images))


def test_seeds_decide_everything(photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    runs = [
        lightssl.pretrain(data=str(photos), overrides=tiny, seed=seed, out=tmp_path / name)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    a, b, c = map(weights, runs)
    assert same(a, b)
    assert not same(a, c)


def test_workers_change_nothing(photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    alone = lightssl.pretrain(data=str(photos), overrides=tiny, out=tmp_path / "alone")
    helped = lightssl.pretrain(data=str(photos), overrides=[*tiny, "data.workers=2"], out=tmp_path / "helped")
    assert same(weights(alone), weights(helped))


def test_the_device_may_augment_in_place_of_the_workers(photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    losses = {}
    for place in ("workers", "device"):
        settings = [*tiny, "train.precision=32-true", f"data.augment_on={place}", "data.workers=1"]
        run = lightssl.pretrain(data=str(photos), overrides=settings, out=tmp_path / place)
        losses[place] = [row["loss"] for row in read_json_lines(run.metrics_path)]
    # Levels are not rounded on the device; the tiny network soon makes more of that.
    assert losses["device"][0] == pytest.approx(losses["workers"][0], rel=0.02)
    assert losses["device"][0] != losses["workers"][0]


@pytest.mark.parametrize("recipe", ["mobilenetv2_dino", "mobilenetv2_swav", "mobilenetv2_mocov2"])
def test_a_plan_may_vary_over_the_training_and_a_resumed_run_draws_the_same(
    recipe: str, photos: Path, tmp_path: Path, make_tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    varied = ["views.start={boundary: 0.14, local_size: 26}", "views.local.min_count=1", "views.local.count=3"]
    settings = [*make_tiny(recipe), *varied, "views.global.first_scale=[0.5, 1]", "data.workers=1"]
    seen: list[tuple[int, ...]] = []
    train_step = Trainer.train_step

    def watch(trainer: Trainer, batch: Batch, clock: Clock) -> StepOutput:
        seen.append(tuple(batch.views[1].shape[:3:2]))
        if stop and clock.step == 3:
            raise KeyboardInterrupt
        return train_step(trainer, batch, clock)

    monkeypatch.setattr(Trainer, "train_step", watch)
    stop = False
    whole = lightssl.pretrain(recipe, data=str(photos), overrides=settings, out=tmp_path / "whole")
    assert [size for _, size in seen] == [26, 24, 23, 21, 20, 18]
    assert len({count for count, _ in seen}) > 1
    expected, stop = list(seen), True
    with pytest.raises(KeyboardInterrupt):
        lightssl.pretrain(recipe, data=str(photos), overrides=settings, out=tmp_path / "broken")
    stop = False
    seen.clear()
    broken = lightssl.resume(tmp_path / "broken")
    assert seen == expected[2:]
    assert same(weights(whole), weights(broken))


def wait_for_step(process: subprocess.Popen[str], metrics: Path, step: int) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if any(row["step"] >= step for row in read_json_lines(metrics)):
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    raise AssertionError("the run never got there")


LONG = ["train.duration=40 steps", "train.checkpoint_every=5 steps", "data.workers=1"]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_resumes_to_bit_identical_weights(
    how: signal.Signals, photos: Path, tmp_path: Path, tiny: list[str], program, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [argument for override in [*tiny, *LONG] for argument in ("--set", override)]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    program("pretrain", "--data", str(photos), *settings, "--out", str(whole))

    process = start(["pretrain", "--data", str(photos), *settings, "--out", str(broken)], tmp_path)
    wait_for_step(process, broken / "metrics.jsonl", 12)
    os.killpg(process.pid, signal.SIGSTOP)
    written = (broken / "metrics.jsonl").read_bytes()
    monkeypatch.setattr(files, "_LEAVING_S", 0.1)
    with pytest.raises(LightSSLError, match=f"Another process is training in {broken}"):
        lightssl.resume(broken)
    assert (broken / "metrics.jsonl").read_bytes() == written
    os.killpg(process.pid, signal.SIGCONT)
    os.killpg(process.pid, how)  # as a terminal does: the workers are told, too
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 0)
    assert not (broken / "backbone.safetensors").exists()
    if how == signal.SIGINT:
        assert f"lightssl pretrain --resume {broken}" in stderr

    program("pretrain", "--resume", str(broken))
    assert same(weights(whole), weights(broken))
    losses = [[(row["step"], row["loss"]) for row in read_json_lines(run / "metrics.jsonl")] for run in (whole, broken)]
    assert losses[0] == losses[1]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds processes as Linux lists them")
def test_processes_stop_together_where_one_is_told_to(photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    settings = [argument for override in [*tiny, *LONG, "train.duration=400 steps"] for argument in ("--set", override)]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = start(["pretrain", "--data", str(photos), *settings, "--out", "run"], tmp_path, launcher=launcher)
    wait_for_step(process, tmp_path / "run" / "metrics.jsonl", 12)
    _, second = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(second), signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "lightssl pretrain --resume run" in stderr
    last = read_json_lines(tmp_path / "run" / "metrics.jsonl")[-1]["step"]
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["step"] == last + 1 < 400


@pytest.mark.slow
def test_two_processes_follow_the_loss_of_one(photos: Path, tmp_path: Path, tiny: list[str], program) -> None:
    # A low rate: rounding grows fast through batches of eight images.
    exact = [*tiny, "schedule.base_rate=0.005", "train.precision=32-true"]
    settings = [argument for override in exact for argument in ("--set", override)]
    program("pretrain", "--data", str(photos), *settings, "--out", "one")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "lightssl", "pretrain", "--data", str(photos), *settings, "--out", "two"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, two = (read_json_lines(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert [row["step"] for row in two] == list(range(6))
    # The first loss sees equal weights, later ones what rounding made of them.
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-6)
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=1e-3)
    for name, tensor in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], tensor, atol=1e-3, rtol=1e-2)


# --------------------------------------------------------------------------------------------------------- bad input


def test_resuming_with_other_images_is_refused(photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    run = lightssl.pretrain(data=str(photos), overrides=tiny, out=tmp_path / "run")
    (photos / "red" / "0.jpg").unlink()
    with pytest.raises(DataError, match=r"was started on 30 images; .* now holds 29"):
        lightssl.resume(run)


def test_resuming_with_a_changed_recipe_is_refused(photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    run = lightssl.pretrain(data=str(photos), overrides=tiny, out=tmp_path / "run")
    text = run.recipe_path.read_text()
    run.recipe_path.write_text(
        text.replace("base_rate: 0.2", "base_rate: 0.3").replace("base_rate: 0.1", "base_rate: 0.3")
    )
    with pytest.raises(CheckpointError, match=r"schedule.base_rate: the checkpoint has"):
        lightssl.resume(run)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(
    photos: Path, tmp_path: Path, tiny: list[str]
) -> None:
    overrides = [*tiny, "schedule.base_rate=1e30", "schedule.warmup=0 steps", "train.duration=40 steps"]
    with pytest.raises(TrainingError, match=r"The loss is (nan|inf|-inf) at step \d+") as caught:
        lightssl.pretrain(data=str(photos), overrides=overrides, out=tmp_path / "run")
    step = int(str(caught.value).split("at step ")[1].split(".")[0])
    rows = read_json_lines(tmp_path / "run" / "metrics.jsonl")
    assert all(row["step"] < step for row in rows)
    checkpoint = tmp_path / "run" / "checkpoints" / "last.pt"
    if checkpoint.exists():
        assert torch.load(checkpoint, weights_only=True)["step"] <= step


def test_a_batch_larger_than_the_data_is_refused(photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    with pytest.raises(DataError, match="A batch of 64 images cannot be filled from 30"):
        lightssl.pretrain(data=str(photos), overrides=[*tiny, "train.batch_size=64"], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("recipe", "change", "message"),
    [
        ("mobilenetv2_mocov2", "method.queue=20", r"method.queue is 20, which the batch of 8 images does not divide"),
        ("mobilenetv2_swav", "method.queue=4", r"method.queue is 4, less than one batch of 8 images"),
        ("mobilenetv2_dino", "method.prototypes=10_000_000_000", r"need [\d,.]+ GiB to be trained"),
        ("vit_tiny_dino", "views.local.size=3", r"views.local.size is 3 pixels; vit_tiny needs at least 4"),
        ("vit_tiny_dino", "views.start.local_size=3", r"views.start.local_size is 3 pixels; vit_tiny needs at least 4"),
        ("vit_tiny_dino", "evaluation.image_size=2", r"evaluation.image_size is 2 pixels; vit_tiny needs at least 4"),
        ("mobilenetv2_dino", "backbone=timm:mobilnetv3_small_100", r"timm has no network 'mobilnetv3_small_100'"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_training(
    recipe: str, change: str, message: str, photos: Path, tmp_path: Path, make_tiny
) -> None:
    settings = [text for text in make_tiny(recipe) if not (change.startswith("backbone=") and "backbone" in text)]
    with pytest.raises(ConfigError, match=message):
        lightssl.pretrain(recipe, data=str(photos), overrides=[*settings, change], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_probe_shows_learning_and_changes_nothing(photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    probed = lightssl.pretrain(data=str(photos), overrides=[*tiny, "train.probe=true"], out=tmp_path / "probed")
    rows = read_json_lines(probed.metrics_path)
    assert all(0 <= row["probe_top1"] <= 100 and row["probe_loss"] > 0 for row in rows)
    alone = lightssl.pretrain(data=str(photos), overrides=tiny, out=tmp_path / "alone")
    assert same(weights(probed), weights(alone))
    assert [row["loss"] for row in rows] == [row["loss"] for row in read_json_lines(alone.metrics_path)]


def test_a_probe_needs_labels(photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    with pytest.raises(DataError, match=r"no labels, which train.probe=true needs"):
        lightssl.pretrain(data=str(photos / "red"), overrides=[*tiny, "train.probe=true"], out=tmp_path / "run")


def test_a_network_without_batch_norm_has_one_random_baseline(photos: Path, tmp_path: Path, make_tiny) -> None:
    settings = [*make_tiny("vit_tiny_mocov2"), "train.duration=1 steps"]
    run = lightssl.pretrain("vit_tiny_mocov2", data=str(photos), overrides=settings, out=tmp_path / "run")
    results = lightssl.evaluate(run, tasks=["knn"])["knn"]["results"]
    assert [row["network"] for row in results] == ["pre-trained", "random"]


def test_too_many_bad_images_stop_the_run(photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    for i in range(5):
        (photos / "red" / f"{i}.jpg").write_bytes(b"no image")
    overrides = [*tiny, "train.duration=10 epochs"]
    with pytest.raises(DataError, match="could not be used"):
        lightssl.pretrain(data=str(photos), overrides=overrides, out=tmp_path / "run")
    listed = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert {entry["name"] for entry in listed} <= {f"red/{i}.jpg" for i in range(5)}
    assert listed

    allowed = [*overrides, "data.max_bad_share=0.5"]
    run = lightssl.pretrain(data=str(photos), overrides=allowed, out=tmp_path / "patient")
    assert len(run.skipped_path.read_text().splitlines()) == 5


def test_an_existing_run_is_not_overwritten(photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    lightssl.pretrain(data=str(photos), overrides=tiny, out=tmp_path / "run")
    with pytest.raises(LightSSLError, match="already holds a run"):
        lightssl.pretrain(data=str(photos), overrides=tiny, out=tmp_path / "run")


def test_there_is_no_run_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (lightssl.evaluate, lightssl.export, lightssl.bench, lightssl.report, lightssl.load_backbone):
        with pytest.raises(LightSSLError, match="There is no run below"):
            command()


def test_an_unfinished_run_has_no_backbone(photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    run = lightssl.pretrain(data=str(photos), overrides=tiny, out=tmp_path / "run")
    run.weights_path.unlink()
    with pytest.raises(CheckpointError, match="has not come to an end"):
        lightssl.export(run)


def test_every_stage_is_measured_if_asked(photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    run = lightssl.pretrain(data=str(photos), overrides=tiny, out=tmp_path / "run")
    knn = lightssl.evaluate(run, tasks=["knn"], overrides=["knn.k=[5, 1]"], stages=True)["knn"]["results"]
    alone = lightssl.evaluate(run, tasks=["knn"], overrides=["knn.k=[5, 1]"])["knn"]["results"]
    stages = len(lightssl.load_backbone(run).stages)
    assert stages > 1
    assert [row.get("stage") for row in knn[:stages]] == [None, *(f"stage {i} of {stages}" for i in range(1, stages))]
    assert [row for row in knn if "stage" not in row] == alone
    assert all(row["k"] == 5 and "k 1, temperature 0.07" in row["others"] for row in knn)


@pytest.mark.parametrize("task", ["labelfree", "semi"])
def test_stages_are_of_features_as_they_are(task: str, photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    run = lightssl.pretrain(data=str(photos), overrides=tiny, out=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"Stages are measured by features as they are: not by .*labelfree"):
        lightssl.evaluate(run, tasks=["knn", task], stages=True)


def test_images_that_cannot_be_used_are_left_out_and_told(photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    run = lightssl.pretrain(data=str(photos), overrides=tiny, out=tmp_path / "run")
    whole = lightssl.evaluate(run, tasks=["knn"], overrides=["knn.k=3"], random=False)["knn"]
    for image in sorted(photos.rglob("*.jpg"))[::3]:
        image.write_bytes(image.read_bytes()[:300])

    class Listener(Silent):
        said: ClassVar[list[str]] = []

        def say(self, text: str) -> None:
            self.said.append(text)

    narrator = Listener()
    part = lightssl.evaluate(run, tasks=["knn"], overrides=["knn.k=3"], random=False, narrator=narrator)["knn"]
    counts = [(one["data"]["train_images"], one["data"]["test_images"]) for one in (whole, part)]
    assert counts[0] == (24, 6)
    assert sum(counts[1]) == 20
    assert part["results"][0]["test_images"] == counts[1][1]
    assert [line for line in narrator.said if "cannot be used" in line] == [
        f"{all_of_it - used} of {all_of_it} {name} images cannot be used, and are left out."
        for name, all_of_it, used in zip(("training", "test"), *counts, strict=True)
        if used < all_of_it
    ]


def test_what_one_task_has_found_stays_where_a_later_one_cannot_be_done(
    photos: Path, tmp_path: Path, tiny: list[str]
) -> None:
    run = lightssl.pretrain(data=str(photos), overrides=tiny, out=tmp_path / "run")
    with pytest.raises(DataError, match="fewer than the 2 classes"):
        lightssl.evaluate(run, tasks=["knn", "semi"], overrides=["knn.k=3"], random=False)
    assert run.evaluation_path("knn").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mlp.weight_decays=[1.0]", "there is no task 'mlp' here"),
        ("linear.weight_decays=[]", "linear.weight_decays: "),
        ("knn.temperature=[]", "knn.temperature: "),
        ("knn.neighbours=3", "neighbours: unknown key"),
        ("knn.k=0", "knn.k: input should be greater than 0 (got 0)"),
    ],
)
def test_wrong_options_of_a_task_are_named(
    override: str, message: str, photos: Path, tmp_path: Path, tiny: list[str]
) -> None:
    run = lightssl.pretrain(data=str(photos), overrides=tiny, out=tmp_path / "run")
    with pytest.raises(ConfigError) as refused:
        lightssl.evaluate(run, tasks=["knn", "linear"], overrides=[override])
    assert message in str(refused.value)


def test_unknown_tasks_and_recipes_are_named(photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    run = lightssl.pretrain(data=str(photos), overrides=tiny, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="Unknown evaluation task 'nn'"):
        lightssl.evaluate(run, tasks=["nn"])
    with pytest.raises(ConfigError, match="Unknown recipe"):
        lightssl.pretrain("mobilenet")


def test_the_sample_is_quick() -> None:
    assert default_scale("sample") == "quick"


def test_random_networks_can_be_left_out(photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    run = lightssl.pretrain("mobilenetv2_dino", data=str(photos), overrides=tiny, out=tmp_path / "run")
    options = {"tasks": ["knn", "semi"], "overrides": ["knn.k=3", "semi.labels=[1]", "semi.epochs=[1]"]}
    alone, beside = lightssl.evaluate(run, random=False, **options), lightssl.evaluate(run, **options)
    for task, result in alone.items():
        assert result["results"] == beside[task]["results"][:1]
