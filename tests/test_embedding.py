from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow.parquet import read_table

import lightssl
from lightssl.data.sources import open_source
from lightssl.errors import DataError
from lightssl.pipeline import embedding
from lightssl.pipeline.extracting import features_of_images
from lightssl.runs import Run


@pytest.fixture
def run(photos: Path, tmp_path: Path, tiny: list[str]) -> Run:
    return lightssl.pretrain(data=str(photos), overrides=tiny, out=tmp_path / "run")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "PART_IMAGES", 7)


def expected(run: Run, photos: Path) -> torch.Tensor:
    from lightssl.config.load import validate

    network = lightssl.load_backbone(run)
    return features_of_images(network, open_source(str(photos)), validate(run.recipe(), origin="the run"))[0]


def test_every_image_has_its_features_path_and_label(run: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.parquet"
    result = lightssl.embed(run, data=str(photos), out=out)
    table, source = read_table(out), open_source(str(photos))
    assert result == {"out": str(out), "images": len(source), "width": 1280, "skipped": []}
    assert table["path"].to_pylist() == [source.item_name(i) for i in range(len(source))]
    assert table["label"].to_pylist() == [source.classes[label] for label in source.labels]
    features = torch.from_numpy(np.stack(table["features"].to_numpy()))
    torch.testing.assert_close(features, expected(run, photos), rtol=1e-4, atol=1e-5)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("damage", ["none", "cut", "changed"])
def test_what_was_stopped_goes_on_where_it_was_but_for_damaged_parts(
    damage: str, run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, extract, parts = tmp_path / "features.npz", embedding.extract_features, []

    def counted(*arguments, **options):
        parts.append(len(parts))
        if len(parts) == 3:
            raise KeyboardInterrupt
        return extract(*arguments, **options)

    monkeypatch.setattr(embedding, "extract_features", counted)
    with pytest.raises(KeyboardInterrupt):
        lightssl.embed(run, data=str(photos), out=out)
    assert not out.exists()
    first = min(tmp_path.glob(".features.npz.parts/*.npz"))
    content = bytearray(first.read_bytes())
    if damage == "changed":
        content[len(content) // 2] ^= 255
    first.write_bytes(content[:100] if damage == "cut" else content)
    lightssl.embed(run, data=str(photos), out=out)
    twice = 1 if damage == "none" else 2  # the third, and the first if it is damaged
    assert len(parts) == -(-len(open_source(str(photos))) // 7) + twice
    with np.load(out) as read:
        torch.testing.assert_close(torch.from_numpy(read["features"]), expected(run, photos), rtol=1e-4, atol=1e-5)


def test_parts_of_other_images_are_not_taken(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "features.npz"
    with monkeypatch.context() as patch:
        patch.setattr(embedding._Parts, "rows", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            lightssl.embed(run, data=str(photos), out=out)
    next(photos.rglob("*.jpg")).unlink()
    lightssl.embed(run, data=str(photos), out=out)
    with np.load(out) as read:
        assert len(read["features"]) == len(open_source(str(photos)))


def test_images_that_cannot_be_decoded_are_named_and_have_no_row(run: Run, photos: Path, tmp_path: Path) -> None:
    images = sorted(photos.rglob("*.jpg"))
    for path in images[:9]:  # more than a whole part
        path.write_bytes(b"no image")
    result = lightssl.embed(run, data=str(photos), out=tmp_path / "features.npz")
    assert result["images"] == len(images) - 9
    assert {Path(one["name"]).name for one in result["skipped"]} == {path.name for path in images[:9]}
    with np.load(tmp_path / "features.npz") as read:
        assert len(read["features"]) == len(read["paths"]) == len(images) - 9


def test_without_a_usable_image_there_is_no_file(run: Run, photos: Path, tmp_path: Path) -> None:
    for path in photos.rglob("*.jpg"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="can be used"):
        lightssl.embed(run, data=str(photos), out=tmp_path / "features.npz")
    assert not list(tmp_path.glob("*features.npz*"))
