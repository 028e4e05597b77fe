from pathlib import Path

import pytest
import yaml

from lightssl.config.load import available, dump, load_recipe, merge, parse_override, to_yaml, validate
from lightssl.errors import ConfigError


def test_paper_scale_carries_every_published_value() -> None:
    """SSLight, section on pre-training and its table of view plans (arXiv 2210.02808 and the authors' code)."""
    recipe = dump(load_recipe("mobilenetv2_dino", scale="paper"))
    assert recipe["backbone"] == {"name": "mobilenetv2", "width": 1.0, "stem": "standard", "init": "torchvision"}
    assert recipe["method"] == {
        "name": "dino",
        "hidden": 2048,
        "bottleneck": 256,
        "prototypes": 4096,
        "head_batch_norm": True,
        "freeze_gain": True,
        "freeze_prototypes": "1 epochs",
        "student_temperature": 0.1,
        "teacher_temperature_start": 0.04,
        "teacher_temperature": 0.07,
        "teacher_temperature_warmup": "50 epochs",
        "teacher_momentum": 0.996,
        "teacher_momentum_end": 1.0,
        "center_momentum": 0.9,
    }
    assert recipe["views"] == {
        "global": {"count": 2, "size": 224, "scale": [0.3, 1.0]},
        "local": {"count": 6, "size": 128, "scale": [0.05, 0.3]},
        "balance": {"global": 0.4, "local": 0.6},
        "aspect": [3 / 4, 4 / 3],
    }
    assert recipe["augment"] == {
        "flip": 0.5,
        "jitter": {"probability": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1},
        "grey": 0.2,
        "blur": {"sigma": [0.1, 2.0], "probability": {"global_1": 1.0, "global_2": 0.1, "local": 0.5}},
        "solarize": {"threshold": 128, "probability": {"global_1": 0.0, "global_2": 0.2, "local": 0.0}},
    }
    assert recipe["optimizer"] == {"name": "lars", "momentum": 0.9, "trust": 0.001}
    schedule = recipe["schedule"]
    assert schedule["base_rate"] * recipe["train"]["batch_size"] / 256 == pytest.approx(1.92)
    assert schedule == {
        "base_rate": 0.48,
        "end_rate": 0.0048,
        "warmup": "10 epochs",
        "warmup_from": 0.0,
        "weight_decay": 1e-6,
        "weight_decay_end": None,
    }
    assert (recipe["train"]["duration"], recipe["train"]["batch_size"]) == ("200 epochs", 1024)
    assert recipe["data"]["mean"] == [0.485, 0.456, 0.406]
    assert recipe["data"]["std"] == [0.229, 0.224, 0.225]
    assert (recipe["evaluation"]["image_size"], recipe["evaluation"]["crop_share"]) == (224, 224 / 256)


def test_the_baseline_differs_in_its_views_alone() -> None:
    sslight, baseline = (dump(load_recipe(name)) for name in ("mobilenetv2_dino", "mobilenetv2_dino_baseline"))
    differing = {key for key in sslight if sslight[key] != baseline[key]}
    assert differing == {"name", "card", "views"}
    assert baseline["views"]["global"] == {"count": 2, "size": 224, "scale": [0.14, 1.0]}
    assert baseline["views"]["local"] == {"count": 6, "size": 96, "scale": [0.05, 0.14]}
    assert load_recipe("mobilenetv2_dino_baseline").views.weights == pytest.approx((1 / 7, 6 / 7))


@pytest.mark.parametrize("scale", ["paper", *available("scales")])
@pytest.mark.parametrize("name", available())
def test_every_recipe_resolves_at_every_scale(name: str, scale: str) -> None:
    recipe = load_recipe(name, scale=scale)
    again = validate(dump(recipe), origin="the dump")
    assert dump(again) == dump(recipe)
    assert (recipe.name, recipe.scale) == (name, scale)


@pytest.mark.parametrize("scale", available("scales"))
def test_a_smaller_scale_keeps_the_pixel_scale_ratio(scale: str) -> None:
    for name in available():
        published, scaled = load_recipe(name).views, load_recipe(name, scale=scale).views
        one_pixel = 1 / scaled.local.size
        assert scaled.pixel_scale_ratio == pytest.approx(published.pixel_scale_ratio, rel=one_pixel)


def test_all_problems_are_reported_at_once_with_path_and_suggestion() -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(
            "mobilenetv2_dino",
            overrides=[
                "method.teacher_momentun=0.9",
                "views.global.scale=[1.0, 0.3]",
                "optimizer.momentum=fast",
                "train.duration=3 parsecs",
                "train.batch_sise=8",
                "backbone=resnet81",
            ],
        )
    problems = caught.value.problems
    assert len(problems) == 6
    text = "\n".join(problems)
    assert "method.teacher_momentun: unknown key. Did you mean 'teacher_momentum'?" in text
    assert "views.global: scale must ascend from above 0, got [1, 0.3]" in text
    assert "optimizer.momentum: input should be a valid number" in text
    assert "train.duration: '3 parsecs' is not a length of training" in text
    assert "train.batch_sise: unknown key. Did you mean 'batch_size'?" in text
    assert "backbone.name: unknown backbone 'resnet81'. Did you mean 'resnet18'?" in text


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mobilenet_dino", {}, "Did you mean 'mobilenetv2_dino'?"),
        ("mobilenetv2_dino", {"scale": "quik"}, "Did you mean 'quick'?"),
        ("mobilenetv2_dino", {"overrides": ["views=ssligt"]}, "Did you mean 'sslight'?"),
        ("mobilenetv2_dino", {"overrides": ["train"]}, "is not an override"),
        ("mobilenetv2_dino", {"overrides": ["train.seed=[1"]}, "is not valid YAML"),
        ("missing.yaml", {}, "There is no file missing.yaml"),
    ],
)
def test_a_wrong_call_says_what_to_do(name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(name, **options)
    assert message in str(caught.value)
    assert caught.value.exit_status == 2


def test_numbers_in_text_are_not_taken_for_numbers() -> None:
    with pytest.raises(ConfigError, match="valid number"):
        load_recipe("mobilenetv2_dino", overrides=["schedule.base_rate='0.1'"])
    assert load_recipe("mobilenetv2_dino", overrides=["schedule.base_rate=1e-3"]).schedule.base_rate == 1e-3


def test_a_recipe_file_extends_and_overrides(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: mobilenetv2_dino\ntrain: {batch_size: 8}\nviews: {global_size: 112}\n")
    recipe = load_recipe(str(mine), overrides=["views.local.count=2"])
    assert recipe.name == "mine"
    assert recipe.train.batch_size == 8
    assert (recipe.views.global_.size, recipe.views.local.size, recipe.views.local.count) == (112, 64, 2)


def test_a_recipe_that_extends_itself_is_refused(tmp_path: Path) -> None:
    for name, parent in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"extends: {parent}\n")
    with pytest.raises(ConfigError, match="extends itself"):
        load_recipe(str(tmp_path / "a.yaml"))


def test_naming_another_component_drops_the_options_of_the_first() -> None:
    recipe = load_recipe("mobilenetv2_dino", overrides=["optimizer=adamw", "optimizer.epsilon=1e-6"])
    assert dump(recipe)["optimizer"] == {"name": "adamw", "betas": [0.9, 0.999], "epsilon": 1e-6}


def test_merge_leaves_its_arguments_alone() -> None:
    base, overlay = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert merge(base, overlay) == {"a": {"b": 1, "c": 2}}
    assert (base, overlay) == ({"a": {"b": 1}}, {"a": {"c": 2}})


def test_overrides_are_nested_and_typed() -> None:
    assert parse_override("a.b=[1, 2.5]") == {"a": {"b": [1, 2.5]}}
    assert parse_override("a=10 epochs") == {"a": "10 epochs"}


def test_yaml_of_a_recipe_is_the_recipe(tmp_path: Path) -> None:
    recipe = load_recipe("mobilenetv2_dino", scale="quick")
    copy = tmp_path / "copy.yaml"
    copy.write_text(to_yaml(recipe))
    assert dump(load_recipe(str(copy))) == dump(recipe) | {"scale": "quick"}
    assert yaml.safe_load(to_yaml(recipe)) == dump(recipe)
