"""Whole views against those of the published pipeline: Pillow and torchvision, put together as DINO's code has it."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps
from scipy.stats import ks_2samp
from torchvision import transforms as tv
from torchvision.transforms import InterpolationMode

from lightssl.resources import resource
from lightssl.views.augment import Augmentations
from lightssl.views.maker import ViewMaker
from lightssl.views.plan import ViewPlan

VIEWS = 400
SIZE, SCALE = 48, (0.3, 1.0)


def published(recipe: dict, role: str) -> Callable[[Image.Image], NDArray[np.uint8]]:
    jitter, blur, solarize = recipe["jitter"], recipe["blur"], recipe["solarize"]
    colour = tv.ColorJitter(*(jitter[name] for name in ("brightness", "contrast", "saturation", "hue")))

    def blurred(image: Image.Image) -> Image.Image:
        sigma = torch.empty(1).uniform_(*blur["sigma"]).item()
        return image.filter(ImageFilter.GaussianBlur(sigma))

    def solarized(image: Image.Image) -> Image.Image:
        return ImageOps.solarize(image, solarize["threshold"])

    pipeline = tv.Compose(
        [
            tv.RandomResizedCrop(SIZE, SCALE, interpolation=InterpolationMode.BICUBIC),
            tv.RandomHorizontalFlip(recipe["flip"]),
            tv.RandomApply([colour], jitter["probability"]),
            tv.RandomGrayscale(recipe["grey"]),
            tv.RandomApply([blurred], blur["probability"][role]),
            tv.RandomApply([solarized], solarize["probability"][role]),
        ]
    )
    return lambda image: np.asarray(pipeline(image))


MEASURES: dict[str, Callable[[NDArray[np.uint8]], float]] = {
    "brightness": lambda view: view.mean(),
    "contrast": lambda view: view.mean(axis=2).std(),
    "saturation": lambda view: cv2.cvtColor(view, cv2.COLOR_RGB2HSV)[..., 1].mean(),
    "red against blue": lambda view: view[..., 0].mean() - view[..., 2].mean(),
    "green against both": lambda view: view[..., 1].mean() - view[..., ::2].mean(),
    "sharpness": lambda view: np.log(cv2.Laplacian(view, cv2.CV_32F).std() + 1),
    "left against right": lambda view: view[:, : SIZE // 2].mean() - view[:, SIZE // 2 :].mean(),
}


@pytest.mark.parametrize("name", ["dino", "swav"])
def test_views_are_distributed_as_the_published_ones(photograph: NDArray[np.uint8], name: str) -> None:
    recipe = yaml.safe_load(resource("recipes", "augment", f"{name}.yaml").read_text())
    plan = ViewPlan.model_validate(
        {
            "global": {"count": 2, "size": SIZE, "scale": SCALE},
            "local": {"count": 1, "size": SIZE, "scale": SCALE},
            "balance": "pairs",
        }
    )
    make_views = ViewMaker(plan, Augmentations.model_validate(recipe), seed=0)
    ours = [[view for group in make_views(photograph, 0, index) for view in group] for index in range(VIEWS)]
    torch.manual_seed(0)
    image = Image.fromarray(photograph)
    for view, role in enumerate(("global_1", "global_2", "local")):
        make_theirs = published(recipe, role)
        theirs = [make_theirs(image) for _ in range(VIEWS)]
        for measure, function in MEASURES.items():
            test = ks_2samp([function(views[view]) for views in ours], [function(other) for other in theirs])
            assert test.pvalue > 0.001, (role, measure, test)
