"""The eleven data sets of One Network Doesn't Rule Them All (arXiv 2203.08130), by name."""

import os
from pathlib import Path
from typing import Literal, NamedTuple

from lightssl.data.folder import Folder
from lightssl.data.paths import TEST_FOLDERS, test_folder
from lightssl.data.torchvision_sets import TorchvisionSet
from lightssl.errors import DataError
from lightssl.registry import did_you_mean


class Scenario(NamedTuple):
    """A data set that networks are transferred to."""

    title: str
    torchvision: str | None  # its class in torchvision.datasets, if it has one
    origin: str  # where the files are from, for those that torchvision cannot fetch


SCENARIOS = {
    "imagenet": Scenario("ImageNet", "ImageNet", "image-net.org, with an account"),
    "cifar10": Scenario("CIFAR-10", "CIFAR10", "torchvision"),
    "cifar100": Scenario("CIFAR-100", "CIFAR100", "torchvision"),
    "aircraft": Scenario("FGVC Aircraft", "FGVCAircraft", "torchvision"),
    "flowers102": Scenario("Oxford Flowers-102", "Flowers102", "torchvision"),
    "cars": Scenario("Stanford Cars", "StanfordCars", "no longer to be had from its authors' page"),
    "cub200": Scenario("CUB-200-2011", None, "data.caltech.edu, CUB_200_2011"),
    "dogs": Scenario("Stanford Dogs", None, "vision.stanford.edu, ImageNetDogs"),
    "mit67": Scenario("MIT Indoor Scenes", None, "web.mit.edu/torralba, indoor67"),
    "sport8": Scenario("UIUC Sports", None, "vision.stanford.edu, event_dataset"),
    "svhn": Scenario("SVHN", "SVHN", "torchvision"),
}
PREFIX = "scenario:"


def open_scenario(name: str, split: Literal["train", "test"] | None = None) -> Folder | TorchvisionSet:
    """Open one of the data sets: the folder of its name in ``$LIGHTSSL_DATA`` or ``./data``, else through torchvision.

    Args:
        name: A key of :data:`SCENARIOS`.
        split: Which half; None takes the training images.

    Raises:
        DataError: There is no such data set, or its files are not there; says what to put where.
    """
    if name not in SCENARIOS:
        raise DataError(
            f"There is no scenario {name!r}.", f"{did_you_mean(name, list(SCENARIOS)) or ''} {', '.join(SCENARIOS)}."
        )
    scenario = SCENARIOS[name]
    folder = Path(os.environ.get("LIGHTSSL_DATA", "data")) / name
    if folder.is_dir():
        test = test_folder([half for half in ("train", *TEST_FOLDERS) if (folder / half).is_dir()])
        if test is None:
            raise DataError(f"{folder.absolute()} lacks a train folder beside a test or val folder.", _arrange(folder))
        return Folder(folder / (test if split == "test" else "train"))
    if scenario.torchvision is None:
        raise DataError(
            f"{scenario.title} is not at {folder.absolute()}, and torchvision does not have it.",
            f"Get it from its authors ({scenario.origin}). {_arrange(folder)}",
        )
    try:
        return TorchvisionSet(scenario.torchvision, split)
    except DataError as error:
        raise DataError(
            f"{scenario.title} is not at {folder.absolute()}, and {error.message}", f"{_arrange(folder)}\n{error.hint}"
        ) from error


def _arrange(folder: Path) -> str:
    return f"Put its images into {folder}/train/CLASS and {folder}/test/CLASS."
