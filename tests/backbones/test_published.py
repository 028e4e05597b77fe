"""Files laid out as publishers lay theirs out, with random weights: the features must be those of their network."""

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from lightssl.backbones import BACKBONES
from lightssl.backbones.matching import recognise, weights_for
from lightssl.backbones.published import KINDS, read_published
from lightssl.errors import CheckpointError, ConfigError

State = dict[str, Tensor]


def network(name: str, seed: int = 0) -> nn.Module:
    """A network of torchvision or timm with random weights and batch-norm statistics, and features as its output."""
    torch.manual_seed(seed)
    built = timm.create_model(name) if "vit" in name or "100" in name else getattr(torchvision.models, name)()
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    for attribute in ("fc", "classifier", "head"):
        if hasattr(built, attribute):
            setattr(built, attribute, nn.Identity())
    return built.eval()


def children(built: nn.Module, *, without: int) -> nn.Sequential:
    return nn.Sequential(*list(built.children())[:-without])


def under(prefix: str, part: nn.Module | State) -> State:
    state = part if isinstance(part, dict) else part.state_dict()
    return {prefix + name: tensor for name, tensor in state.items()}


def head(*names: str) -> State:
    return {name: torch.zeros(2) for name in names}


class File(NamedTuple):
    """What a publisher's file holds, and what importing it should give."""

    kind: str
    content: Any
    source: nn.Module
    backbone: str
    role: str
    method: str
    others: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def sslight_dino(name: str, backbone: str, encode: Callable[[nn.Module], nn.Module] | None) -> File:
    """A training checkpoint with the options as the authors' configuration class, and learning rates of numpy."""
    student, teacher = network(name), network(name, seed=1)
    inner = "backbone.encoder." if encode else "backbone."
    encode = encode or nn.Module.eval
    state = {
        **under(f"module.student.{inner}", encode(student)),
        **head("module.student.head.mlp.0.weight", "module.student.head.last_layer.weight_v"),
        **under(f"module.teacher.{inner}", encode(teacher)),
        **head("module.teacher.head.mlp.0.weight"),
    }
    content = {
        "config": CfgNode({"MODEL": CfgNode({"BACKBONE_ARCH": name}), "LRS": [0.48, 1.92]}),
        "epoch": 200,
        "state_dict": state,
        "optimizer": {"state": {0: {"mu": torch.zeros(3)}}, "param_groups": [{"lr": np.float64(0.1), "params": [0]}]},
        "loss": {"center": torch.zeros(1, 8)},
        "fp16_scaler": {"scale": 65536.0},
    }
    teacher_count = len(teacher.state_dict()) + 1
    left_out = ("student.head.* (2 tensors)", f"teacher.* ({teacher_count} tensors)")
    return File("sslight", content, student, backbone, "student", "dino", ("teacher",), left_out)


def sslight_swav() -> File:
    source = network("mobilenet_v2")
    state = {
        **under("module.network.backbone.encoder.", source.features),
        **head("module.network.head.projection.mlp.0.weight", "module.network.head.prototypes.weight"),
    }
    return File(
        "sslight", {"state_dict": state}, source, "mobilenetv2", "network", "swav", (), ("network.head.* (2 tensors)",)
    )


def sslight_moco() -> File:
    query, key = network("mobilenet_v2"), network("mobilenet_v2", seed=1)
    state = {
        **head("module.queue", "module.queue_ptr"),
        **under("module.encoder_q.backbone.encoder.", query.features),
        **under("module.encoder_k.backbone.encoder.", key.features),
    }
    return File("sslight", {"state_dict": state}, query, "mobilenetv2", "query", "mocov2", ("key",))


def dino_full(name: str, backbone: str, wrapped: str) -> File:
    """Convolutional teachers are wrapped as students are, transformers' are not."""
    student, teacher = network(name), network(name, seed=1)
    content = {
        "student": {**under("module.backbone.", student), **head("module.head.mlp.0.weight")},
        "teacher": {**under(f"{wrapped}backbone.", teacher), **head(f"{wrapped}head.mlp.0.weight")},
        "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(5e-4), "weight_decay": np.float64(0.4)}]},
        "epoch": 100,
        "args": argparse.Namespace(arch=name, lr=5e-4, local_crops_scale=(0.05, 0.4)),
        "dino_loss": {"center": torch.zeros(1, 8)},
    }
    count = len(student.state_dict()) + 1
    left_out = (f"student.* ({count} tensors)", "teacher.head.* (1 tensor)", "dino_loss.* (1 tensor)")
    return File("dino", content, teacher, backbone, "teacher", "dino", ("student",), left_out)


def dino_bare() -> File:
    source = network("resnet18")
    return File("dino", source.state_dict(), source, "resnet18", "backbone", "dino")


def swav() -> File:
    source = network("resnet50")
    heads = head("module.projection_head.0.weight", "module.projection_head.3.bias", "module.prototypes.weight")
    left_out = ("projection_head.* (2 tensors)", "prototypes.* (1 tensor)")
    return File(
        "swav", {**under("module.", source), **heads}, source, "resnet50", "backbone", "swav", left_out=left_out
    )


def moco() -> File:
    query, key = network("resnet18"), network("resnet18", seed=1)
    state = {
        **head("module.queue", "module.queue_ptr"),
        **under("module.encoder_q.", query),
        **head("module.encoder_q.fc.0.weight", "module.encoder_q.fc.2.bias"),
        **under("module.encoder_k.", key),
    }
    content = {"epoch": 200, "arch": "resnet18", "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}
    left_out = ("queue", "queue_ptr", "encoder_q.fc.* (2 tensors)", f"encoder_k.* ({len(key.state_dict())} tensors)")
    return File("moco", content, query, "resnet18", "query", "mocov2", ("key",), left_out)


def lightning(state: State) -> dict[str, Any]:
    return {
        "epoch": 10,
        "global_step": 1950,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.3), "dirpath": "checkpoints"}},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.06}]}],
        "hyper_parameters": {"num_classes": 1000},
    }


def lightly_dino_example() -> File:
    student, teacher = network("resnet18"), network("resnet18", seed=1)
    state = {
        **under("student_backbone.", children(student, without=1)),
        **head("student_head.layers.0.weight"),
        **under("teacher_backbone.", children(teacher, without=1)),
        **head("criterion.center.center"),
    }
    return File("lightly", lightning(state), teacher, "resnet18", "teacher", "dino", ("student",))


def lightly_moco_example() -> File:
    query, key = network("resnet18"), network("resnet18", seed=1)
    state = {
        **under("backbone.", children(query, without=1)),
        **head("projection_head.layers.0.weight"),
        **under("backbone_momentum.", children(key, without=1)),
    }
    return File("lightly", lightning(state), query, "resnet18", "backbone", "dino", ("key",))


def lightly_dino_benchmark(name: str, backbone: str, wrapped: str) -> File:
    teacher, student = network(name), network(name, seed=1)
    state = {
        **under(f"backbone.{wrapped}", teacher),
        **head("projection_head.layers.0.weight"),
        **under(f"student_backbone.{wrapped}", student),
    }
    return File("lightly", lightning(state), teacher, backbone, "backbone", "dino", ("student",))


def lightly_mobilenet(encode: Callable[[nn.Module], nn.Module]) -> File:
    source = network("mobilenet_v2")
    return File("lightly", lightning(under("backbone.", encode(source))), source, "mobilenetv2", "backbone", "dino")


def bare(kind: str, name: str, backbone: str, classifier: str) -> File:
    source = network(name)
    content = {**source.state_dict(), **head(f"{classifier}.weight", f"{classifier}.bias")}
    left_out = (f"{classifier.split('.')[0]}.* (2 tensors)",)
    return File(kind, content, source, backbone, "backbone", "dino", left_out=left_out)


def timm_training() -> File:
    source = network("vit_tiny_patch16_224")
    content = {
        "epoch": 299,
        "arch": "vit_tiny_patch16_224",
        "state_dict": under("module.", source),
        "optimizer": {"state": {}, "param_groups": []},
        "version": 2,
        "args": argparse.Namespace(model="vit_tiny_patch16_224"),
        "metric": np.float64(72.1),
    }
    return File("timm", content, source, "vit_tiny", "backbone", "dino")


FILES: dict[str, Callable[[], File]] = {
    "sslight-dino-mobilenetv2": lambda: sslight_dino("mobilenet_v2", "mobilenetv2", lambda net: net.features),
    "sslight-dino-resnet18": lambda: sslight_dino("resnet18", "resnet18", lambda net: children(net, without=2)),
    "sslight-dino-vit": lambda: sslight_dino("vit_tiny_patch16_224", "vit_tiny", None),
    "sslight-swav": sslight_swav,
    "sslight-moco": sslight_moco,
    "dino-full-resnet": lambda: dino_full("resnet18", "resnet18", "module."),
    "dino-full-vit": lambda: dino_full("vit_tiny_patch16_224", "vit_tiny", ""),
    "dino-bare": dino_bare,
    "swav": swav,
    "moco": moco,
    "lightly-dino-example": lightly_dino_example,
    "lightly-moco-example": lightly_moco_example,
    "lightly-dino-benchmark": lambda: lightly_dino_benchmark("resnet18", "resnet18", ""),
    "lightly-vit-benchmark": lambda: lightly_dino_benchmark("vit_tiny_patch16_224", "vit_tiny", "vit."),
    "lightly-mobilenet-children": lambda: lightly_mobilenet(lambda net: children(net, without=1)),
    "lightly-mobilenet-features": lambda: lightly_mobilenet(lambda net: net.features),
    "torchvision-mobilenetv2": lambda: bare("torchvision", "mobilenet_v2", "mobilenetv2", "classifier.1"),
    "torchvision-resnet34": lambda: bare("torchvision", "resnet34", "resnet34", "fc"),
    "timm-vit": lambda: bare("timm", "vit_tiny_patch16_224", "vit_tiny", "head"),
    "timm-training": timm_training,
}


def saved(file: File, path: Path, **options: Any) -> Path:
    torch.save(file.content, path, **options)
    return path


@torch.no_grad()
def features(built: nn.Module, size: int) -> Tensor:
    torch.manual_seed(7)
    return built(torch.randn(2, 3, size, size)).flatten(1)


def imported(path: Path, kind: str, **options: Any) -> nn.Module:
    published = read_published(path, kind, **options)
    backbone = BACKBONES[recognise(published)]()
    tensors, _ = weights_for(backbone, "the backbone", published)
    backbone.load_state_dict(tensors)
    return backbone.eval()


@pytest.mark.parametrize("name", FILES)
def test_features_are_those_of_the_published_network(name: str, tmp_path: Path) -> None:
    file = FILES[name]()
    path = saved(file, tmp_path / "file.pth")
    published = read_published(path, file.kind)
    assert (published.network.role, published.network.method) == (file.role, file.method)
    assert published.others == file.others
    assert recognise(published) == file.backbone

    backbone = BACKBONES[file.backbone]()
    tensors, left_out = weights_for(backbone, "the backbone", published)
    assert not file.left_out or tuple(left_out) == file.left_out
    backbone.load_state_dict(tensors)
    size = 224 if file.backbone == "vit_tiny" else 64
    torch.testing.assert_close(features(backbone.eval(), size), features(file.source, size), atol=1e-5, rtol=1e-5)


def test_every_kind_is_tested() -> None:
    assert {name.split("-")[0] for name in FILES} == set(KINDS)


def test_another_network_of_the_file_can_be_chosen(tmp_path: Path) -> None:
    file = dino_full("resnet18", "resnet18", "module.")
    path = saved(file, tmp_path / "file.pth")
    student = network("resnet18")
    torch.testing.assert_close(features(imported(path, "dino", network="student"), 64), features(student, 64))
    with pytest.raises(ConfigError, match=r"no network 'query'.\s*It has: teacher, student"):
        read_published(path, "dino", network="query")


def test_files_of_other_formats(tmp_path: Path) -> None:
    """torch.save before 1.6 wrote no zip file; timm publishes safetensors; half precision becomes single."""
    file = bare("timm", "resnet18", "resnet18", "fc")
    expected = features(file.source, 64)
    old = saved(file, tmp_path / "old.pth.tar", _use_new_zipfile_serialization=False)
    torch.testing.assert_close(features(imported(old, "timm"), 64), expected)
    safe = tmp_path / "model.safetensors"
    safetensors.torch.save_file(file.content, safe)
    torch.testing.assert_close(features(imported(safe, "timm"), 64), expected)
    half = tmp_path / "half.pth"
    torch.save(
        {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in file.content.items()}, half
    )
    rounded = imported(half, "timm")
    assert next(rounded.parameters()).dtype == torch.float32
    torch.testing.assert_close(features(rounded, 64), expected, atol=0.05, rtol=0.05)


def test_batch_norm_counters_may_be_missing(tmp_path: Path) -> None:
    """The first files of torchvision are older than these counters."""
    source = network("resnet18")
    state = {name: tensor for name, tensor in source.state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "file.pth")
    torch.testing.assert_close(features(imported(tmp_path / "file.pth", "torchvision"), 64), features(source, 64))


# -------------------------------------------------------------------------------------------------------- what is wrong


class Bomb:
    def __reduce__(self) -> tuple:
        return (os.system, ("touch exploded",))


@pytest.mark.parametrize("old", [False, True], ids=["zip", "pickle"])
@pytest.mark.parametrize("wrap", [lambda bomb: bomb, lambda bomb: argparse.Namespace(callback=bomb)])
def test_code_in_a_file_does_not_run(
    wrap: Callable[[Any], Any], old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"conv1.weight": torch.zeros(1), "args": wrap(Bomb())}
    torch.save(content, "file.pth", _use_new_zipfile_serialization=not old)
    with pytest.raises(CheckpointError, match="could run code"):
        read_published(Path("file.pth"), "torchvision")
    assert not Path("exploded").exists()


def test_stand_ins_do_nothing_with_what_a_file_gives_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may say argparse.Namespace and mean harm: neither the class nor what it is given is used."""
    monkeypatch.setattr(argparse.Namespace, "__setattr__", lambda *_: pytest.fail("the class itself was used"))
    namespace = argparse.Namespace()
    namespace.__dict__["__class__"] = "harm"
    torch.save({"fc.weight": torch.zeros(1), "args": namespace}, tmp_path / "file.pth")
    assert set(read_published(tmp_path / "file.pth", "timm").tensors) == {"fc.weight"}


@pytest.mark.parametrize("content", [b"", b"<!doctype html>", b"PK\x03\x04 cut short"])
@pytest.mark.parametrize("name", ["file.pth", "file.safetensors"])
def test_damaged_files_are_named(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name} is damaged or not a checkpoint.*\n?Download it again"):
        read_published(tmp_path / name, "dino")


@pytest.mark.parametrize("content", [[torch.zeros(1)], {}, {"epoch": 3}, {"state_dict": {}}, {"optimizer": {"lr": 1}}])
def test_files_without_a_state_dict(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        read_published(tmp_path / "file.pth", "dino")


def test_kinds_and_files_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"There is no file .*none.pth"):
        read_published(tmp_path / "none.pth", "dino")
    with pytest.raises(ConfigError, match=r"Unknown kind of checkpoint 'torchvison'.\s*Did you mean 'torchvision'\?"):
        read_published(tmp_path / "none.pth", "torchvison")


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    path = saved(sslight_moco(), tmp_path / "file.pth")
    with pytest.raises(CheckpointError) as caught:
        read_published(path, "lightly")
    assert "not laid out as one of lightly: no tensor is called teacher_backbone.* or backbone" in str(caught.value)
    assert "It has queue, queue_ptr, encoder_q.*, encoder_k.*." in str(caught.value)
    assert "It looks like --from sslight or moco." in str(caught.value)
    with pytest.raises(CheckpointError, match="It looks like --from sslight or moco"):
        recognise(read_published(path, "torchvision"))


def misfit(state: State, backbone: str, tmp_path: Path, **options: Any) -> str:
    torch.save(state, tmp_path / "file.pth")
    published = read_published(tmp_path / "file.pth", "torchvision")
    with pytest.raises(CheckpointError) as caught:
        weights_for(BACKBONES[backbone](**options), backbone, published)
    return str(caught.value)


def test_the_wrong_architecture(tmp_path: Path) -> None:
    message = misfit(network("resnet34").state_dict(), "mobilenetv2", tmp_path)
    assert re.search(r"The backbone of .*file.pth does not fit mobilenetv2:\n  - features.0.0.weight: missing", message)
    assert "and 252 more" in message
    assert message.endswith("It fits resnet34.")


def test_a_deeper_network_of_the_same_names_does_not_fit(tmp_path: Path) -> None:
    """All of ResNet18's tensors are in a ResNet34, under the same names and with the same shapes."""
    message = misfit(network("resnet34").state_dict(), "resnet18", tmp_path)
    assert "layer1.2.conv1.weight: not in the backbone" in message
    assert message.endswith("It fits resnet34.")


def test_missing_tensors_are_listed(tmp_path: Path) -> None:
    state = network("resnet18").state_dict()
    del state["layer1.0.conv1.weight"], state["bn1.running_mean"]
    message = misfit(state, "resnet18", tmp_path)
    assert "\n  - bn1.running_mean: missing\n  - layer1.0.conv1.weight: missing\n" in message
    with pytest.raises(CheckpointError, match=r"(?s)is none of .*The closest is resnet18:.*bn1.running_mean: missing"):
        recognise(read_published(tmp_path / "file.pth", "torchvision"))


def test_other_shapes_are_listed_with_the_option_that_may_differ(tmp_path: Path) -> None:
    message = misfit(network("resnet18").state_dict(), "resnet18", tmp_path, stem="small")
    assert "\n  - conv1.weight: 64 x 3 x 7 x 7, the backbone has 64 x 3 x 3 x 3\n" in message
    assert message.endswith("It fits resnet18.")
    message = misfit({"features.0.0.weight": torch.zeros(8, 3, 3, 3)}, "mobilenetv2", tmp_path)
    assert "--set backbone.KEY=VALUE" in message


def test_position_embeddings_of_another_image_size(tmp_path: Path) -> None:
    torch.save(network("vit_tiny_patch16_384").state_dict(), tmp_path / "file.pth")
    published = read_published(tmp_path / "file.pth", "timm")
    with pytest.raises(CheckpointError, match=r"pos_embed: 1 x 577 x 192(?s:.*)--set backbone.image_size=384"):
        recognise(published)
    tensors, _ = weights_for(BACKBONES["vit_tiny"](image_size=384), "vit_tiny", published)
    assert tensors["network.pos_embed"].shape == (1, 577, 192)


def test_networks_that_are_no_known_backbone(tmp_path: Path) -> None:
    torch.save(network("mobilenetv2_100").state_dict(), tmp_path / "file.pth")
    with pytest.raises(CheckpointError) as caught:
        recognise(read_published(tmp_path / "file.pth", "timm"))
    assert "with conv_stem.*, bn1.*, blocks.*, conv_head.*, bn2.*, is none of mobilenetv2" in str(caught.value)
    assert "--set backbone=timm:NAME" in str(caught.value)
