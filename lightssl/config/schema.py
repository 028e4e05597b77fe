"""What a recipe may hold.

The options of a backbone, a method or an optimiser are the keyword-only arguments of the thing itself: there is one
place where they are declared, documented and given a default, and the recipe follows it.
"""

import inspect
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

from lightssl.backbones import BACKBONES
from lightssl.methods import METHODS
from lightssl.registry import Registry
from lightssl.train import OPTIMIZERS
from lightssl.train.schedule import Schedule
from lightssl.types import PositiveInt, Share
from lightssl.units import Duration
from lightssl.views.augment import Augmentations
from lightssl.views.plan import ViewPlan

Channels = tuple[Share, Share, Share]  # red, green, blue, in 0..1


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def keyword_options(thing: Any) -> dict[str, Any]:
    """Return the keyword-only arguments of a class or function, as the fields of a pydantic model."""
    function = thing.__init__ if inspect.isclass(thing) else thing
    hints = get_type_hints(function, include_extras=True)
    return {
        parameter.name: (hints[parameter.name], ... if parameter.default is parameter.empty else parameter.default)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


class Card(Section):
    """What is known about a recipe. No figure here is used by the code."""

    title: str
    paper: str
    in_paper: bool = True  # False where it has no such pair of network and method: its settings are then taken over
    published: dict[str, float] = {}  # figures of the paper's authors, in percent
    hardware: str
    measured: str  # what we ran, and where the result is; or that nobody ran it yet


class DataOptions(Section):
    """How images are read."""

    mean: Channels = (0.485, 0.456, 0.406)  # ImageNet's
    std: Channels = (0.229, 0.224, 0.225)
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"  # processes that make views, for each training one
    # Who flips, colours and blurs the views: the workers, or the device, where its cores are waiting for them.
    augment_on: Literal["workers", "device"] = "workers"
    max_bad_share: Share = 0.01  # of the images seen; a run with more unusable ones stops


class TrainOptions(Section):
    """How long and in what steps."""

    duration: Duration
    batch_size: PositiveInt  # images in one step over all processes
    seed: Annotated[int, Field(ge=0)] = 0
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    checkpoint_every: Duration = Duration(1, "epochs")
    # Keep the backbone after so long each, for `evaluate --checkpoints`.
    keep_every: Duration | None = None
    log_every: Duration = Duration(50, "steps")
    # Short trainings leave the running statistics of batch norm behind: estimate them again at the end.
    estimate_batch_norm: bool = False
    compile: bool = False  # the backbones, by torch.compile: meant for GPUs, takes minutes at the start
    # A linear classifier, trained beside the method on features that it cannot change: shows learning as it goes.
    probe: bool = False


class EvaluationOptions(Section):
    """How images are fed to the frozen network."""

    image_size: PositiveInt = 224
    crop_share: Annotated[float, Field(gt=0, le=1)] = (
        0.875  # side of the central crop over the resized short side: 224 of 256
    )
    monitor_every: Duration | None = None  # kNN during training, when the data has labels


class Recipe(Section):
    """A resolved recipe. :func:`recipe_model` narrows ``Any`` to the options of what the section configures."""

    name: str
    scale: str
    card: Card
    backbone: Any
    method: Any
    views: ViewPlan
    augment: Augmentations
    data: DataOptions = DataOptions()
    optimizer: Any
    schedule: Any
    train: TrainOptions
    evaluation: EvaluationOptions = EvaluationOptions()


COMPONENTS: dict[str, Registry] = {"backbone": BACKBONES, "method": METHODS, "optimizer": OPTIMIZERS}


def options_model(name: str, thing: Any) -> type[Section]:
    """Make the schema of a thing's options from its keyword-only arguments."""
    fields: dict[str, Any] = {"name": (Literal[name], ...), **keyword_options(thing)}
    return create_model(f"{name}_options", __base__=Section, **fields)


def recipe_model(names: dict[str, str]) -> type[Recipe]:
    """Make the schema of a recipe that uses these components.

    Args:
        names: Name of the backbone, method and optimiser, by section.
    """
    sections: dict[str, Any] = {
        section: (options_model(name, COMPONENTS[section][name]), ...) for section, name in names.items()
    }
    schedule = create_model("schedule", __base__=Section, **keyword_options(Schedule))
    return create_model("Recipe", __base__=Recipe, schedule=(schedule, ...), **sections)
