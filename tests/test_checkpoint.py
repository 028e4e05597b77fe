import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from lightssl.checkpoint import load_checkpoint, load_strictly, load_weights, save_checkpoint, save_network
from lightssl.errors import CheckpointError, LightSSLError

STATE = {"method": {"w": torch.arange(3.0)}, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "last.pt"
    save_checkpoint(path, state=STATE, recipe={"name": "r"}, step=7)
    loaded = load_checkpoint(path, recipe={"name": "r"})
    assert (loaded["step"], loaded["recipe"]) == (7, {"name": "r"})
    assert torch.equal(loaded["state"]["method"]["w"], STATE["method"]["w"])
    assert [p.name for p in path.parent.iterdir()] == ["last.pt"]


def test_another_recipe_is_refused_with_every_difference(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, state=STATE, recipe={"a": {"b": 1, "c": 2}, "d": 3}, step=1)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, recipe={"a": {"b": 5, "c": 2}})
    assert "a.b: the checkpoint has 1, this recipe 5" in str(caught.value)
    assert "d: the checkpoint has 3, this recipe None" in str(caught.value)
    assert "a.c" not in str(caught.value)


class Bomb:
    def __reduce__(self) -> tuple:
        return (os.system, ("touch exploded",))


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_checkpoint_that_would_run_code_is_refused(
    writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.pt"
    content = {"format": 1, "step": 0, "recipe": {}, "state": Bomb()}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match="could run code"):
        load_checkpoint(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "flipped"])
def test_a_damaged_checkpoint_is_named(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, state=STATE, recipe={}, step=1)
    content = path.read_bytes()
    path.write_bytes(
        {
            "truncated": content[: len(content) // 2],
            "empty": b"",
            "text": b"hello",
            "flipped": bytes([content[0] ^ 255]) + content[1:],
        }[damage]
    )
    with pytest.raises(CheckpointError, match=str(path)):
        load_checkpoint(path)


def test_a_missing_or_foreign_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        load_checkpoint(tmp_path / "none.pt")
    torch.save({"model": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="not a lightssl training checkpoint"):
        load_checkpoint(tmp_path / "other.pt")


def test_a_full_disk_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    """/dev/full refuses every write, as a full disk does."""
    path = tmp_path / "last.pt"
    save_checkpoint(path, state=STATE, recipe={}, step=1)
    before = path.read_bytes()
    aside = tmp_path / f".last.pt.{os.getpid()}.part"
    aside.symlink_to("/dev/full")
    with pytest.raises(LightSSLError, match="Cannot write"):
        save_checkpoint(path, state=STATE, recipe={}, step=2)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LightSSLError, match="Cannot write"):
        save_checkpoint(tmp_path / "file" / "last.pt", state=STATE, recipe={}, step=1)


def test_backbone_weights_round_trip(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    path = tmp_path / "backbone.safetensors"
    save_network(path, network, {"input_size": 32})
    tensors, description = load_weights(path)
    assert description == {"input_size": 32}
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensors[name], tensor)
    other = nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5))
    with pytest.raises(CheckpointError, match="size mismatch"):
        load_strictly(other, tensors, path)


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "backbone.safetensors"
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_weights(path)
    path.with_suffix(".json").write_text(json.dumps({}))
    path.write_bytes(b"\x00" * 20)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_weights(path)
