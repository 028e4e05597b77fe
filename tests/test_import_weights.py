"""From a published checkpoint to a run that everything works on."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
import yaml

import lightssl
from lightssl.errors import CheckpointError, ConfigError, LightSSLError
from lightssl.progress import Silent
from lightssl.runs import Run


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """An SSLight checkpoint of a thin MobileNetV2."""
    torch.manual_seed(0)
    state = {}
    for role in ("student", "teacher"):
        features = torchvision.models.mobilenet_v2(width_mult=0.25).features
        state |= {f"module.{role}.backbone.encoder.{name}": value for name, value in features.state_dict().items()}
        state[f"module.{role}.head.mlp.0.weight"] = torch.zeros(4, 1280)
    path = tmp_path / "dino_mnv2_sslight.pth.tar"
    torch.save({"epoch": 200, "state_dict": state}, path)
    return path


THIN = ["backbone.width=0.25", "evaluation.image_size=32", "data.workers=0"]


def test_a_run_of_imported_weights_works_like_any_other(published: Path, photos: Path, tmp_path: Path) -> None:
    notes = Notes()
    run = lightssl.import_weights(
        published, "sslight", recipe="mobilenetv2_dino", overrides=THIN, out=tmp_path / "run", narrator=notes
    )
    told = "\n".join(notes.lines)
    assert "from sslight: took the student. It also has: teacher (--network)" in told
    assert "Left out: student.head.* (1 tensor), teacher.* (313 tensors)" in told
    assert "images of 32 pixels, mean [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225]" in told

    source = torchvision.models.mobilenet_v2(width_mult=0.25).features.eval()
    saved = torch.load(published)["state_dict"]
    prefix = "module.student.backbone.encoder."
    source.load_state_dict({name.removeprefix(prefix): value for name, value in saved.items() if prefix in name})
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(lightssl.load_backbone(run)(images), source(images).mean(dim=(2, 3)))

    results = lightssl.evaluate(run, tasks=["knn"], data=str(photos))
    assert 0 <= results["knn"]["results"][0]["top1"] <= 100
    assert [file.file for file in lightssl.export(run).files] == [run.onnx_path.name]
    page = lightssl.report(run).read_text(encoding="utf-8")
    assert "The weights were imported from dino_mnv2_sslight.pth.tar (sslight, student)" in page
    assert "--resume" not in page
    assert "Views the network saw" not in page


def test_nobody_takes_it_for_a_training_done_here(published: Path, tmp_path: Path) -> None:
    run = lightssl.import_weights(published, "sslight", recipe="mobilenetv2_dino", overrides=THIN, out=tmp_path / "run")
    card = run.recipe()["card"]
    assert card["title"] == "mobilenetv2, imported from dino_mnv2_sslight.pth.tar"
    assert card["measured"].startswith("weights imported from dino_mnv2_sslight.pth.tar (sslight, student)")
    assert card["published"] == {}
    assert run.environment()["imported"]["network"] == "student"
    with pytest.raises(CheckpointError, match="holds imported weights: no training was started there"):
        lightssl.resume(run)


@pytest.mark.parametrize(("kind", "name"), [("torchvision", "resnet18_dino"), ("swav", "resnet18_swav")])
def test_the_recipe_is_found_by_the_tensors_and_the_kind(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(torchvision.models.resnet18().state_dict(), "file.pth")
    run = lightssl.import_weights("file.pth", kind, overrides=["evaluation.image_size=64"])
    recipe = run.recipe()
    assert (recipe["name"], recipe["scale"], recipe["backbone"]["name"]) == (name, "paper", "resnet18")
    assert recipe["evaluation"]["image_size"] == 64
    assert recipe["data"]["std"][0] == (0.228 if kind == "swav" else 0.229)
    assert run.folder.parent == Path("runs")
    assert lightssl.load_backbone().feature_width == 512  # the latest run


def test_any_network_of_timm(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    source = timm.create_model("mobilenetv3_small_050").eval()
    torch.save(source.state_dict(), tmp_path / "file.pth")
    run = lightssl.import_weights(
        tmp_path / "file.pth",
        "timm",
        recipe="mobilenetv2_dino",
        overrides=["backbone=timm:mobilenetv3_small_050", "evaluation.image_size=64"],
        out=tmp_path / "run",
    )
    source.reset_classifier(0)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(lightssl.load_backbone(run)(images), source(images), atol=1e-5, rtol=1e-5)


def test_nothing_is_written_when_it_does_not_fit(published: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(CheckpointError, match=r"does not fit mobilenetv2 \(width=1.0,"):
        lightssl.import_weights(published, "sslight", recipe="mobilenetv2_dino", out=out)
    with pytest.raises(CheckpointError, match=r"is none of mobilenetv2"):
        lightssl.import_weights(published, "sslight", out=out)
    with pytest.raises(ConfigError, match="unknown key"):
        lightssl.import_weights(
            published, "sslight", recipe="mobilenetv2_dino", overrides=["backbone.widht=1"], out=out
        )
    assert not out.exists()


def test_an_existing_run_is_not_overwritten(published: Path, tmp_path: Path) -> None:
    settings = {"recipe": "mobilenetv2_dino", "overrides": THIN, "out": tmp_path / "run"}
    run = lightssl.import_weights(published, "sslight", **settings)
    before = run.weights_path.read_bytes()
    with pytest.raises(LightSSLError, match="already holds a run"):
        lightssl.import_weights(published, "sslight", network="teacher", **settings)
    assert run.weights_path.read_bytes() == before


@pytest.mark.slow
def test_the_commands_as_processes(
    published: Path, photos: Path, tmp_path: Path, program: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    settings = [argument for override in THIN for argument in ("--set", override)]
    done = program("import", published.name, "--from", "sslight", "--recipe", "mobilenetv2_dino", *settings)
    run = Run(tmp_path / done.stdout.strip())
    assert yaml.safe_load(run.recipe_path.read_text())["scale"] == "paper"
    program("export", "--onnx")
    program("evaluate", "--task", "knn", "--data", str(photos))
    assert run.onnx_path.exists()
    assert run.evaluation_path("knn").exists()
    refused = program("pretrain", "--resume", str(run), check=False)
    assert refused.returncode == 1
    assert "holds imported weights" in refused.stderr
