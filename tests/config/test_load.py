from itertools import product
from pathlib import Path

import pytest
import yaml

from lightssl.config.load import available, dump, load_options, load_recipe, merge, parse_override, to_yaml, validate
from lightssl.errors import ConfigError
from lightssl.search import STRATEGIES


def test_paper_scale_carries_every_published_value() -> None:
    """SSLight, section on pre-training and its table of view plans (arXiv 2210.02808 and the authors' code)."""
    recipe = dump(load_recipe("mobilenetv2_dino", scale="paper"))
    published = {"topology": None, "width": 1.0, "stem": "standard", "init": "torchvision"}
    assert recipe["backbone"] == {"name": "mobilenetv2", **published}
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
        "projector": None,
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
        "milestones": None,
    }
    assert (recipe["train"]["duration"], recipe["train"]["batch_size"]) == ("200 epochs", 1024)
    assert recipe["data"]["mean"] == [0.485, 0.456, 0.406]
    assert recipe["data"]["std"] == [0.229, 0.224, 0.225]
    assert (recipe["evaluation"]["image_size"], recipe["evaluation"]["crop_share"]) == (224, 224 / 256)


# What SSLight publishes of its other pre-trainings (arXiv 2210.02808 and the authors' code): dotted key, value.
PUBLISHED = {
    "mobilenetv2_swav": {
        "optimizer.name": "lars",
        "schedule.base_rate": 0.3,
        "schedule.warmup_from": 0.075,
        "schedule.end_rate": 0.0048,
        "schedule.weight_decay": 1e-6,
        "method.hidden": 4096,
        "method.bottleneck": 128,
        "method.prototypes": 3000,
        "method.temperature": 0.1,
        "method.epsilon": 0.05,
        "method.sinkhorn_iterations": 3,
        "method.queue": 3840,
        "method.queue_start": "15 epochs",
        "method.freeze_prototypes": "1 epochs",
        "augment.jitter.brightness": 0.8,
        "augment.jitter.contrast": 0.8,
        "augment.jitter.saturation": 0.8,
        "augment.jitter.hue": 0.2,
        "augment.blur.probability": {"global_1": 0.5, "global_2": 0.5, "local": 0.5},
        "augment.solarize.probability": {"global_1": 0.0, "global_2": 0.0, "local": 0.0},
    },
    "mobilenetv2_mocov2": {
        "optimizer.name": "lars",
        "schedule.base_rate": 0.48,
        "schedule.end_rate": 0.0048,
        "schedule.weight_decay": 1e-6,
        "method.hidden": 2048,
        "method.bottleneck": 128,
        "method.queue": 65536,
        "method.temperature": 0.2,
        "method.momentum": 0.999,
        "augment.blur.probability": {"global_1": 1.0, "global_2": 0.1, "local": 0.5},
        "augment.solarize.probability": {"global_1": 0.0, "global_2": 0.2, "local": 0.0},
    },
    "vit_tiny_dino": {
        "optimizer.name": "adamw",
        "schedule.base_rate": 5e-4,
        "schedule.end_rate": 1e-5,
        "schedule.weight_decay": 0.04,
        "schedule.weight_decay_end": 0.4,
        "backbone.patch": 16,
        "backbone.drop_path": 0.1,
        "method.prototypes": 65536,
        "method.head_batch_norm": False,
        "method.freeze_gain": False,
        "method.teacher_temperature_warmup": "30 epochs",
        "views.global": {"count": 2, "size": 224, "scale": [0.3, 1.0]},
        "views.local": {"count": 10, "size": 128, "scale": [0.05, 0.3]},
        "views.balance": {"global": 0.4, "local": 0.6},
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_other_recipes_carry_their_published_values(name: str) -> None:
    recipe = dump(load_recipe(name))
    common = {"train.duration": "200 epochs", "train.batch_size": 1024, "schedule.warmup": "10 epochs"}
    for key, value in (common | PUBLISHED[name]).items():
        found = recipe
        for part in key.split("."):
            found = found[part]
        assert found == value, key


@pytest.mark.parametrize(
    ("name", "linear_top1"),
    [
        ("vit_tiny_dino", (66.7, 69.5)),
        ("resnet18_dino", (62.2, 65.7)),
        ("resnet34_dino", (67.7, 69.7)),
        ("mobilenetv2_dino", (66.2, 68.3)),
        ("mobilenetv2_swav", (65.2, 67.3)),
        ("mobilenetv2_mocov2", (60.6, 61.6)),
    ],
)
def test_cards_carry_the_published_accuracy(name: str, linear_top1: tuple[float, float]) -> None:
    cards = [load_recipe(n).card for n in (f"{name}_baseline", name)]
    assert tuple(card.published["linear_top1"] for card in cards) == linear_top1
    assert all(card.in_paper for card in cards)


def test_pairs_that_are_not_in_the_paper_say_so_and_claim_nothing() -> None:
    for name in available():
        card = load_recipe(name).card
        assert card.in_paper or not card.published, name
    assert not load_recipe("resnet50_swav").card.in_paper


BASELINES = [name for name in available() if name.endswith("_baseline")]


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_differs_in_its_views_alone(name: str) -> None:
    sslight, baseline = (dump(load_recipe(n)) for n in (name.removesuffix("_baseline"), name))
    assert {key for key in sslight if sslight[key] != baseline[key]} == {"name", "card", "views"}


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_have_the_usual_views_and_weigh_all_pairs_alike(name: str) -> None:
    plan = load_recipe(name).views
    vit = name.startswith("vit")
    assert (plan.global_.size, plan.global_.scale) == (224, (0.25, 1.0) if vit else (0.14, 1.0))
    assert (plan.local.count, plan.local.size) == (10 if vit else 6, 96)
    assert plan.local.scale == ((0.05, 0.25) if vit else (0.05, 0.14))
    assert plan.weights == pytest.approx((1 / 11, 10 / 11) if vit else (1 / 7, 6 / 7))


def test_every_backbone_has_every_method_with_both_plans() -> None:
    cells = product(["mobilenetv2", "resnet18", "resnet34", "resnet50", "vit_tiny"], ["dino", "swav", "mocov2"])
    assert {f"{b}_{m}{plan}" for b, m in cells for plan in ("", "_baseline")} <= set(available())


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
    assert "views.global.scale: must ascend from above 0, got [1, 0.3]" in text
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


def test_another_backbone_or_method_is_scaled_as_that_one_is() -> None:
    """Not as the one that the recipe names: its start would not fit, and the other's patch would be missing."""
    recipe = load_recipe("mobilenetv2_dino", scale="quick", overrides=["backbone=vit_tiny", "method=swav"])
    assert (recipe.backbone.name, recipe.backbone.patch) == ("vit_tiny", 8)
    assert (recipe.optimizer.name, recipe.method.queue) == ("adamw", 0)
    recipe = load_recipe("mobilenetv2_dino", scale="quick", overrides=["backbone={name: vit_tiny, patch: 4}"])
    assert recipe.backbone.patch == 4


def test_networks_of_any_width_take_the_place_of_another() -> None:
    overrides = ["backbone=revnet50", "backbone.width_factor=2", "backbone.depths=[1, 2, 1, 1]"]
    recipe = load_recipe("resnet50_simclr_cifar", overrides=overrides)
    assert dump(recipe)["backbone"] == {
        "name": "revnet50",
        "width_factor": 2,
        "depths": [1, 2, 1, 1],
        "stem": "standard",
        "final_relu": True,
        "init": "torchvision",
        "recompute": True,
    }
    assert dump(validate(dump(recipe), origin="the dump")) == dump(recipe)
    recipe = load_recipe("resnet50_simclr_cifar", scale="quick", overrides=["backbone=vgg19_bn"])
    assert (recipe.backbone.image_size, recipe.backbone.init) == (32, "near_linear")
    with pytest.raises(ConfigError, match=r"backbone\.depths"):
        load_recipe("resnet50_simclr_cifar", overrides=["backbone=revnet50", "backbone.depths=[3, 4, 6]"])
    with pytest.raises(ConfigError, match=r"backbone\.width_factor"):
        load_recipe("resnet50_simclr_cifar", overrides=["backbone=resnet50_v2", "backbone.width_factor=0"])


def test_a_network_of_timm_has_a_short_form(tmp_path: Path) -> None:
    long = {"name": "timm", "model": "mobilenetv3_small_100"}
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: mobilenetv2_dino\nbackbone: timm:mobilenetv3_small_100\n")
    assert dump(load_recipe(str(mine)))["backbone"] == long
    overrides = ["backbone=timm:mobilenetv3_small_100"]
    assert dump(load_recipe("mobilenetv2_dino", scale="quick", overrides=overrides))["backbone"] == long
    overrides = ["backbone=timm:resnet18"]
    assert dump(load_recipe(str(mine), overrides=overrides))["backbone"] == {"name": "timm", "model": "resnet18"}
    with pytest.raises(ConfigError, match=r"backbone\.stem: unknown key"):
        load_recipe(str(mine), overrides=["backbone.stem=small"])


def test_merge_leaves_its_arguments_alone() -> None:
    base, overlay = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert merge(base, overlay) == {"a": {"b": 1, "c": 2}}
    assert (base, overlay) == ({"a": {"b": 1}}, {"a": {"c": 2}})


def test_overrides_are_nested_and_typed() -> None:
    assert parse_override("a.b=[1, 2.5]") == {"a": {"b": [1, 2.5]}}
    assert parse_override("a=10 epochs") == {"a": "10 epochs"}


def test_a_resolved_file_is_not_scaled_again(tmp_path: Path) -> None:
    """The quick scale would set the number of local views and the size of global ones, which have no name here."""
    quick = load_recipe("mobilenetv2_dino", scale="quick", overrides=["views.local.count=2"])
    (tmp_path / "mine.yaml").write_text(to_yaml(quick))
    assert dump(load_recipe(str(tmp_path / "mine.yaml"), scale="quick")) == dump(quick)
    changed = load_recipe(str(tmp_path / "mine.yaml"), scale="quick", overrides=["views.local.count=3"])
    assert (changed.views.local.count, changed.views.local.size) == (3, 18)


def test_yaml_of_a_recipe_is_the_recipe(tmp_path: Path) -> None:
    recipe = load_recipe("mobilenetv2_dino", scale="quick")
    copy = tmp_path / "copy.yaml"
    copy.write_text(to_yaml(recipe))
    assert dump(load_recipe(str(copy))) == dump(recipe) | {"scale": "quick"}
    assert yaml.safe_load(to_yaml(recipe)) == dump(recipe)


@pytest.mark.parametrize(
    ("backbone", "problem"),
    [
        ("{name: mobilenetv2, topology: 16x1-k3e1}", "has 1 stages instead of 7"),
        ("{name: resnet, topology: 64x2 128x2 256x2 512}", "'512' is not a stage of a topology"),
        ("{name: vit, topology: 192x12-h3}", "The published topology is '192x12-h3m4'"),
        ("{name: vit}", "backbone.topology: missing"),
    ],
)
def test_a_topology_is_checked_with_the_rest_of_a_recipe(backbone: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("mobilenetv2_dino", overrides=[f"backbone={backbone}", "train.batch_size=0"])
    assert problem in caught.value.problems[0]
    assert len(caught.value.problems) == 2


def test_options_that_no_recipe_holds_come_from_a_function_a_scale_and_overrides() -> None:
    strategy = STRATEGIES["evolve"]
    published = load_options("search", "evolve", strategy, scale="paper")
    quick = load_options("search", "evolve", strategy, scale="quick", overrides=["search.candidates=7"])
    assert (published.candidates, quick.candidates) == (1000, 7)
    assert str(published.supernet) == "100 epochs"
    assert quick.supernet.unit == "examples"
    assert published.score == quick.score == "agreement"
    overrides = ["search.candidate=7", "search.images=0", "search.supernet=7"]
    with pytest.raises(ConfigError) as caught:
        load_options("search", "evolve", strategy, scale="quick", overrides=overrides)
    assert len(caught.value.problems) == 3
    assert any("search.candidate: unknown key. Did you mean 'candidates'" in line for line in caught.value.problems)


@pytest.mark.parametrize("method", ["simsiam", "mocov2", "simclr"])
@pytest.mark.parametrize("scale", available("scales"))
def test_two_views_of_32_pixels_stay_so_at_every_scale(method: str, scale: str) -> None:
    recipe = load_recipe(f"resnet18_{method}_cifar", scale=scale)
    assert recipe.views == load_recipe(f"resnet18_{method}_cifar").views
    assert recipe.evaluation.image_size == 32
