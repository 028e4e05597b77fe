"""``lightssl views preview``: what it writes and says, on images good and bad."""

import json
import subprocess
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightssl.config.load import dump, load_recipe, to_yaml
from lightssl.data.decode import decode
from lightssl.data.sources import open_source
from lightssl.errors import ConfigError, DataError
from lightssl.pipeline import preview_views
from lightssl.pipeline.previewing import keep_views, usable_images, view_distributions
from lightssl.runs import Run

# Fewer boxes where no figure counts.
preview = partial(preview_views, draws=20)


class Listener:
    """A narrator that keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_the_program_writes_both_pictures_and_the_figures(
    program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, photos: Path
) -> None:
    (photos / "red" / "broken.jpg").write_bytes(b"no image")
    done = program("views", "preview", "--data", str(photos), "--images", "2", "--seed", "3", "--json")
    result = json.loads(done.stdout)
    assert (result["recipe"], result["scale"], result["seed"]) == ("mobilenetv2_dino", "paper", 3)
    assert (result["images"], result["draws"]) == (30, 2000)
    assert [row["name"] for row in result["skipped"]] == ["red/broken.jpg"]
    assert "at the published sizes" in done.stderr
    assert "Skipped red/broken.jpg: not an image" in done.stderr
    assert (
        "30 of 30 images are smaller than a global view of 224 pixels: most of their views are enlarged" in done.stderr
    )
    for kind, name in (
        ("contact_sheet", "views-mobilenetv2_dino"),
        ("distributions", "views-mobilenetv2_dino.distributions"),
    ):
        assert result[kind] == f"{name}.png"
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 1000
    assert list(result["plans"]) == ["sslight", "baseline"]
    sslight, baseline = result["plans"].values()
    assert (round(sslight["pixel_scale_ratio"], 2), round(baseline["pixel_scale_ratio"], 2)) == (1.10, 1.05)
    assert sslight["weights"] == {"global": 0.4, "local": 0.6}
    assert (sslight["local"]["size"], baseline["local"]["size"]) == (128, 96)
    assert sslight["global"]["enlarged_share"] == sslight["local"]["enlarged_share"] == 1
    # Larger local views, and global ones that start higher, have more in common.
    assert sslight["local_inside_global"]["mean"] > baseline["local_inside_global"]["mean"]
    assert sslight["global_iou"]["mean"] > baseline["global_iou"]["mean"]
    table = program("views", "preview", "--data", str(photos), "--recipe", "resnet18_simsiam_cifar").stdout
    assert "cifar: global x 2" in table
    assert "local x" not in table


@pytest.mark.parametrize(
    ("recipe", "overrides", "against", "plans"),
    [
        ("mobilenetv2_dino_baseline", [], None, {"baseline": (224, 96), "sslight": (224, 128)}),
        ("vit_tiny_dino", [], None, {"sslight_vit": (224, 128), "baseline_vit": (224, 96)}),
        ("mobilenetv2_dino", ["views=baseline"], None, {"baseline": (224, 96), "sslight": (224, 128)}),
        (
            "mobilenetv2_dino",
            ["views.local.size=96"],
            "sslight",
            {"sslight, changed": (224, 96), "sslight": (224, 128)},
        ),
        ("mobilenetv2_dino", ["views.global_size=112"], None, {"sslight": (112, 64), "baseline": (112, 48)}),
        ("mobilenetv2_dino", [], "sslight", {"sslight": (224, 128)}),
        (
            "mobilenetv2_dino",
            ["views.start.local_size=96"],
            None,
            {"sslight, changed": (224, 128), "at the start": (224, 96), "baseline": (224, 96)},
        ),
        ("resnet18_simsiam_cifar", [], "baseline", {"cifar": (32, None), "baseline": (32, 14)}),
    ],
)
def test_what_a_plan_is_compared_with(
    tmp_path: Path, recipe: str, overrides: list[str], against: str | None, plans: dict[str, tuple[int, int | None]]
) -> None:
    result = preview(recipe, overrides=overrides, against=against, images=1, out=tmp_path / "v.png")
    found = {
        name: (plan["global"]["size"], plan["local"]["size"] if "local" in plan else None)
        for name, plan in result["plans"].items()
    }
    assert found == plans
    assert list(found) == list(plans)


def test_the_scale_changes_both_plans_alike(tmp_path: Path) -> None:
    plans = preview(scale="quick", images=1, out=tmp_path / "v.png")["plans"]
    counts = {name: (plan["local"]["size"], plan["local"]["count"]) for name, plan in plans.items()}
    assert counts == {"sslight": (18, 4), "baseline": (14, 4)}


def test_a_single_view_overlaps_with_none(
    program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = program("views", "preview", "--recipe", "resnet18_jigsaw", "--scale", "quick", "--images", "2")
    assert "grid: global x 1" in done.stdout
    assert done.stderr.count("Warning") == 0
    assert (tmp_path / "views-resnet18_jigsaw.png").exists()


def test_a_recipe_of_ones_own_is_shown_alone(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(to_yaml(load_recipe("mobilenetv2_dino")))
    assert list(preview(str(file), images=1, out=tmp_path / "v.png")["plans"]) == ["mobilenetv2_dino"]
    assert list(preview(str(file), images=1, out=tmp_path / "v.png", against="baseline")["plans"])[1:] == ["baseline"]


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, photos: Path) -> None:
    def refused(kind: type[Exception], message: str, recipe: str = "mobilenetv2_dino", **options: object) -> None:
        with pytest.raises(kind, match=message):
            preview(recipe, **{"out": tmp_path / "v.png", **options})
        assert not (tmp_path / "v.png").exists()

    refused(ConfigError, "Unknown recipe 'mobilenet_dino'.\nDid you mean 'mobilenetv2_dino'", "mobilenet_dino")
    refused(ConfigError, "Unknown view plan 'base'", against="base")
    refused(ConfigError, "0 images show nothing", images=0)
    refused(ConfigError, "v.jpg is not a PNG", out=tmp_path / "v.jpg")
    (tmp_path / "empty").mkdir()
    refused(DataError, "empty", data=str(tmp_path / "empty"))
    for file in photos.rglob("*.jpg"):
        file.write_bytes(b"damaged")
    refused(DataError, r"None of the \d+ images of .* that were tried can be used", data=str(photos))


def test_images_are_spread_over_the_source_and_others_stand_in_for_bad_ones(photos: Path) -> None:
    source = open_source(str(photos))
    _, indices, bad = usable_images(source, 4, decode)
    assert (indices, bad) == ([0, 9, 19, 29], [])
    for index in (0, 19):
        (photos / source.item_name(index)).write_bytes(b"damaged")
    images, indices, bad = usable_images(source, 4, decode)
    assert len(images) == 4
    assert set(indices) >= {9, 29}
    assert [image.index for image in bad] == [0, 19]
    assert usable_images(source, 100, decode)[1] == [index for index in range(30) if index not in (0, 19)]


def test_a_run_keeps_what_the_distributions_of_its_views_are_drawn_from(photos: Path, tmp_path: Path) -> None:
    recipe = load_recipe("mobilenetv2_dino", scale="quick")
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    run.write_start(dump(recipe), {})
    assert view_distributions(run) is None
    keep_views(run, open_source(str(photos)), recipe)
    sizes = json.loads(run.image_sizes_path.read_text(encoding="utf-8"))
    assert len(sizes) == 30
    assert list(map(int, sizes)) == list(range(30))
    picture = view_distributions(run)
    assert picture is not None
    with Image.open(BytesIO(picture)) as image:
        two_plans = image.height
    # A recipe of one's own has no plan to be compared with.
    run.write_start({**dump(recipe), "name": "mine"}, {})
    with Image.open(BytesIO(view_distributions(run) or b"")) as image:
        assert 0.4 * two_plans < image.height < 0.7 * two_plans
    for damaged in ("", "[1]", "{}", '{"a": [1, 2]}', '{"1": 3}', '{"1": [0, 5]}'):
        run.image_sizes_path.write_text(damaged, encoding="utf-8")
        assert view_distributions(run) is None


def test_few_images_are_drawn_from_again_and_again(tmp_path: Path) -> None:
    Image.fromarray(np.full((300, 400, 3), 90, np.uint8)).save(tmp_path / "one.png")
    listener = Listener()
    result = preview_views(data=str(tmp_path), draws=200, out=tmp_path / "out" / "v.png", narrator=listener)  # type: ignore[arg-type]
    assert (result["images"], result["draws"]) == (1, 200)
    area = result["plans"]["sslight"]["global"]["area_share"]
    assert area["p95"] - area["p5"] > 0.3
    assert not any("smaller" in text for text in listener.said)
