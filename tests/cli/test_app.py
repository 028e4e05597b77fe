"""The program as people call it: real processes."""

import json
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torchvision
import typer
from onnx import helper
from typer.testing import CliRunner

from lightssl.cli.app import app
from lightssl.cli.terminal import print_warnings
from lightssl.deploy.kernels import count_kernels
from lightssl.deploy.prediction import features
from lightssl.errors import ConfigError, LightSSLWarning

Program = Callable[..., subprocess.CompletedProcess[str]]


def commands(group: typer.core.TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("module", ["lightssl", "lightssl.cli.app"])
def test_importing_does_not_import_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'albumentations')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_functions_are_reachable_and_survive_imports_of_submodules() -> None:
    code = (
        "import lightssl, importlib, pkgutil\n"
        "for m in pkgutil.walk_packages(lightssl.__path__, 'lightssl.'):\n"
        "    if m.name.endswith(('__main__', 'make_sample')) or '.runtimes.' in m.name: continue\n"
        "    importlib.import_module(m.name)\n"
        "assert all(callable(getattr(lightssl, n)) for n in lightssl.__all__ if n != '__version__'), lightssl.__all__\n"
        "assert set(lightssl.__all__) <= set(dir(lightssl))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_ends_its_help_in_examples_of_itself(path: tuple[str, ...]) -> None:
    epilogue = COMMANDS[path].epilog
    lines = [line for line in epilogue.splitlines() if line.startswith("lightssl")]
    assert lines
    for line in lines:
        words = shlex.split(line)[1:]
        assert tuple(words[: len(path)]) == path
        known = {name for parameter in COMMANDS[path].params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.slow
def test_the_examples_run_as_written(program: Program, tmp_path: Path, photos: Path, tiny: list[str]) -> None:
    """All but what takes minutes, an emulator or a browser; a tiny run on a few images stands for the latest."""
    lines = [
        line for command in COMMANDS.values() for line in command.epilog.splitlines() if line.startswith("lightssl")
    ]
    trainings = [
        line for line in lines if line.startswith(("lightssl pretrain", "lightssl search", "lightssl views sweep"))
    ]
    program(*shlex.split(next(line for line in trainings if "5 steps" in line))[1:])
    settings = [argument for override in [*tiny, "train.keep_every=3 steps"] for argument in ("--set", override)]
    program("pretrain", "--data", str(photos), *settings)
    published = torchvision.models.mobilenet_v2().state_dict()
    torch.save(published, tmp_path / "mobilenet_v2-7ebf99e0.pth")
    both = {
        f"module.{role}.backbone.encoder.{name.removeprefix('features.')}": tensor
        for role in ("student", "teacher")
        for name, tensor in published.items()
        if name.startswith("features.")
    }
    torch.save({"state_dict": both}, tmp_path / "dino_mnv2_sslight.pth.tar")
    for name in ("measured.json", "before.json", "after.json"):
        write_measurements(tmp_path / name)
    # Imports come last: they make runs, and the tiny one is to stay the latest.
    for line in sorted(lines, key=lambda line: line.startswith("lightssl import")):
        if line not in trainings and not any(word in line for word in ("--target web", "--arch", "--task detect")):
            program(*shlex.split(line)[1:])
    assert (tmp_path / "mine.yaml").exists()
    assert (tmp_path / "board.yaml").exists()
    assert (tmp_path / "features.onnx").exists()
    assert (tmp_path / "page.html").exists()
    assert (tmp_path / "runs" / "teacher" / "backbone.safetensors").exists()


def write_measurements(path: Path) -> None:
    """Models of one to four convolutions, with times that follow the model of a profile exactly."""
    rows = []
    for width, depth in ((4, 1), (4, 2), (16, 1), (16, 3), (32, 2), (8, 4)):
        shapes = [(width, 3 if layer == 0 else width, 3, 3) for layer in range(depth)]
        weights = [helper.make_tensor(f"w{i}", 1, shape, np.zeros(shape)) for i, shape in enumerate(shapes)]
        nodes = [helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(depth)]
        image = helper.make_tensor_value_info("x0", 1, ["n", 3, 32, 32])
        output = helper.make_tensor_value_info(f"x{depth}", 1, None)
        model = path.with_name(f"{width}x{depth}.onnx")
        onnx.save(helper.make_model(helper.make_graph(nodes, "g", [image], [output], weights)), model)
        latency_ms = float(features(count_kernels(model)) @ [1e4, 0, 0, 0, 0, 1e4, 1e3])
        row = {"model": str(model), "device": "board", "runtime": "onnxruntime", "threads": 1, "precision": "fp32"}
        rows.append({**row, "latency_ms_p50": latency_ms})
    path.write_text(json.dumps(rows))


def test_measuring_learning_and_predicting_fit_together(program: Program, tmp_path: Path) -> None:
    write_measurements(tmp_path / "measured.json")
    assert "0.0 %" in program("fit-profile", "measured.json", "board.yaml").stdout
    printed = program("bench", "16x3.onnx", "--target", "board.yaml").stdout
    assert "predicted for board: nothing was run" in printed
    (row,) = json.loads(program("bench", "16x3.onnx", "--target", "predict:board.yaml", "--json").stdout)
    (measured,) = [row for row in json.loads((tmp_path / "measured.json").read_text()) if "16x3" in row["model"]]
    assert row["kind"] == "predicted"
    assert row["latency_ms_p50"] == pytest.approx(measured["latency_ms_p50"], rel=1e-2)


def test_results_are_held_against_the_first_file(program: Program, tmp_path: Path) -> None:
    write_measurements(tmp_path / "before.json")
    rows = json.loads((tmp_path / "before.json").read_text())
    faster = [{**row, "latency_ms_p50": row["latency_ms_p50"] / 4} for row in rows]
    (tmp_path / "after.json").write_text(json.dumps(faster))
    done = program("bench", "--compare", "before.json", "after.json", "--out", "page.html")
    assert "that of the baseline, before.json" in done.stdout
    assert done.stdout.count("0.25") == len(rows)
    assert "page.html" in done.stderr
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    printed = json.loads(program("bench", "--compare", "before.json", "after.json", "--json").stdout)
    assert [row["ratio"] for row in printed] == [1, 0.25] * len(rows)


def test_what_is_left_out_is_said_in_a_plain_sentence(program: Program, tmp_path: Path) -> None:
    write_measurements(tmp_path / "measured.json")
    changes = ["threads=[1, 4096]", "min_samples=3", "min_seconds=0"]
    done = program("bench", "4x1.onnx", "--json", *(part for change in changes for part in ("--set", change)))
    assert [row["threads"] for row in json.loads(done.stdout)] == [1]
    assert re.search(r"^Note: Not timed with 4096 threads: \d+ cores can be used here\.$", done.stderr, re.MULTILINE)
    assert "Warning" not in done.stderr
    assert ".py" not in done.stderr


def test_warnings_of_other_libraries_stay_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs: list[str] = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *arguments: theirs.append(message))
    print_warnings()
    warnings.showwarning("of theirs", UserWarning, "there.py", 7)
    warnings.showwarning("of ours", LightSSLWarning, "here.py", 7)
    assert theirs == ["of theirs"]
    assert capsys.readouterr().err == "Note: of ours\n"


def test_json_output_is_json_alone(program: Program) -> None:
    machine = json.loads(program("doctor", "--json").stdout)
    assert machine["versions"]["torch"]
    assert machine["machine"]["usable_cores"] >= 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["pretrain", "--recipe", "mobilenet"], 2, "Unknown recipe 'mobilenet'"),
        (["pretrain", "--set", "train.batch=3"], 2, "train.batch: unknown key. Did you mean 'batch_size'?"),
        (["pretrain", "--data", "nowhere"], 1, "nowhere"),
        (["pretrain", "--resume", "nowhere"], 1, "nowhere is not a run"),
        (["pretrain", "--resume", "nowhere", "--seed", "3"], 2, "cannot be combined with --seed"),
        (["import", "none.pth", "--from", "dino"], 1, "There is no file none.pth"),
        (["import", "none.pth", "--from", "dyno"], 2, "Did you mean 'dino'?"),
        (["import", "none.pth"], 2, "Missing option '--from'"),
        (["evaluate"], 1, "There is no run"),
        (["evaluate", "--task", "knn", "--set", "linear.seed=1"], 1, "There is no run"),
        (["embed", "--out", "features.csv"], 2, "Name a file that ends in .npz or .parquet"),
        (["embed"], 1, "There is no run"),
        (["export"], 2, "Name the format"),
        (["export", "--onnx", "--calibrate", "sample"], 2, "Add --int8"),
        (["verify"], 1, "There is no run"),
        (["verify", "none.onnx"], 1, "none.onnx does not lie in a run"),
        (["verify", "--arch", "riscv64"], 2, "There is no emulator for riscv64 processors"),
        (["bench", "none.onnx"], 1, "none.onnx"),
        (["bench", "none.onnx", "--target", "toaster"], 2, "toaster"),
        (["bench", "none.onnx", "--target", "predict:pixel1"], 1, "none.onnx"),
        (["bench", "--compare", "none.json", "other.json"], 2, "Cannot read the results none.json"),
        (["bench", "--compare"], 2, "Name two files"),
        (["bench", "none.onnx", "--out", "page.html"], 2, "--out names the page of --compare"),
        (["bench", "none.onnx", "--target", "predict:pixel1", "--operators"], 2, "operator_runs: Unexpected keyword"),
        (["fit-profile", "none.json", "board.yaml"], 2, "none.json"),
        (["fit-profile", "none.json", "board"], 2, "End it in .yaml"),
        (["bench", "none.onnx", "--lan"], 2, "lan: Unexpected keyword argument"),
        (["bench", "none.onnx", "--target", "web", "--set", "threads=[0]"], 2, "threads.0: Input should be greater"),
        (["views", "sweep"], 2, "A sweep needs an axis"),
        (["views", "sweep", "--axis", "boundry=0.1,0.2"], 2, "Did you mean 'boundary'?"),
        (["views", "sweep", "--axis", "boundary=0.1,0.2", "--seeds", "a"], 2, "--seeds a are no whole numbers"),
        (["views", "sweep", "--resume", "nowhere"], 1, "nowhere holds no sweep"),
        (["views", "sweep", "--resume", "nowhere", "--recipe", "resnet18_dino"], 2, "cannot be combined with --recipe"),
        (["views", "sweep", "--point", "recipe-seed0"], 2, "Name the sweep's folder with --resume"),
        (["recipes", "show", "mobilenetv2_dyno"], 2, "Did you mean 'mobilenetv2_dino'?"),
        (["pretrian"], 2, "No such command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_user_errors_are_clear_and_without_a_traceback(
    arguments: list[str], status: int, message: str, program: Program, tmp_path: Path
) -> None:
    done = program(*arguments, check=False)
    assert done.returncode == status
    assert message in re.sub(r"\s+", " ", done.stderr)
    assert "Traceback" not in done.stderr + done.stdout
    assert not (tmp_path / "runs").exists()


def test_a_read_only_place_is_an_error_before_training(program: Program, tmp_path: Path, tiny: list[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    settings = [argument for override in [*tiny, "train.keep_every=3 steps"] for argument in ("--set", override)]
    done = program("pretrain", *settings, "--out", "file/run", check=False)
    assert done.returncode == 1
    assert "Cannot write" in done.stderr
    assert "Traceback" not in done.stderr


def test_recipes_are_listed_shown_copied_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        return CliRunner().invoke(app, ["recipes", *arguments], catch_exceptions=False).stdout

    rows = {line.split()[1]: line for line in call("ls").splitlines() if line.count("│") > 3}
    assert "68.3" in rows["mobilenetv2_dino"]
    assert "66.2" in rows["mobilenetv2_dino_baseline"]
    assert "not in the paper" in rows["resnet50_swav"]
    assert "base_rate: 0.48" in call("show", "mobilenetv2_dino", "--scale", "paper")
    call("cp", "mobilenetv2_dino", "mine.yaml", "--set", "train.batch_size=512")
    assert "batch_size: 512" in (tmp_path / "mine.yaml").read_text()
    with pytest.raises(ConfigError, match=r"mine.yaml exists"):
        call("cp", "mobilenetv2_dino", "mine.yaml")
    assert "valid" in call("validate", "mine.yaml")
