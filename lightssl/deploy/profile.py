"""Device profiles: which target times a model, and with which settings. They are data, ``export/targets/*.yaml``."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, validate_call

from lightssl.deploy.latency import Measurement, Prediction
from lightssl.deploy.targets import TARGETS
from lightssl.errors import ConfigError, problems_of
from lightssl.files import write_text
from lightssl.registry import did_you_mean
from lightssl.resources import resource

if TYPE_CHECKING:
    from torch import nn

_HEADER = """\
# Device profile: latency that is predicted, from measurements that others or you have made.
#
# A network's time is the sum of its kernels' costs: ms for 10^9 multiply-accumulates of each kind, for 10^9 bytes read
# or written, and for 10^3 kernels. held_out_ms is what a fit to the other networks says of one.

"""


class Profile(BaseModel):
    """A device profile."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str  # what the device is, for people
    target: str  # a name in TARGETS
    argument: str | None = None  # the setting that VALUE in NAME:VALUE stands for; optional if it has a value
    # Keyword arguments of the target's function, which says what each means.
    settings: Annotated[Mapping[str, Any], Field(default_factory=dict)]


def profile_names() -> list[str]:
    """Names of the profiles that ship with lightssl; those that predict are ``predict:NAME``."""
    return sorted(path.stem.replace("predict-", "predict:", 1) for path in resource("export", "targets").glob("*.yaml"))


def load_profile(name: str | Path) -> Profile:
    """Read a device profile: one that ships with lightssl, by name, or a YAML file of one's own, by path.

    Some that ship need to be told what they are for, after a colon: ``ssh:HOST``.

    Raises:
        ConfigError: There is no such profile, or it is not well-formed; holds all problems found.
    """
    path, value = _find(name)
    try:
        profile = Profile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"Cannot read the device profile {path}: {' '.join(str(error).split())}.") from error
    except ValidationError as error:
        raise ConfigError(f"The device profile {path} is wrong:", problems=problems_of(error)) from error
    if value is None:
        return profile
    if profile.argument is None:
        raise ConfigError(f"The device profile {path.stem!r} takes nothing after its name.", f"--target {path.stem}")
    return profile.model_copy(update={"settings": {**profile.settings, profile.argument: value}})


def bench(
    model: Path, profile: Profile, *, network: "nn.Module | None" = None, settings: Mapping[str, Any] | None = None
) -> list[Measurement] | list[Prediction]:
    """Time an ONNX model on the device that ``profile`` describes.

    Args:
        model: ONNX file.
        profile: From :func:`load_profile`.
        network: The torch network it was exported from, mapping normalised images to features, for comparison.
        settings: Takes the place of settings of the same name in the profile.

    Raises:
        ConfigError: A setting is unknown, missing or of the wrong kind; holds all problems found.
        TargetError: The target could not run the model.
    """
    checked = validate_call(config=ConfigDict(arbitrary_types_allowed=True))
    target = checked(TARGETS[profile.target])
    chosen = {**profile.settings, **(settings or {})}
    check_argument(profile.model_copy(update={"settings": chosen}))
    try:
        rows: list[Measurement] | list[Prediction] = target(model, network=network, **chosen)
    except ValidationError as error:
        raise ConfigError(
            f"The settings of target {profile.target!r} are wrong:", problems=problems_of(error)
        ) from error
    return rows


def check_argument(profile: Profile) -> None:
    """Raise ConfigError where a profile needs to be told what it is for, and was not."""
    if profile.argument and profile.settings.get(profile.argument, "") == "":
        raise ConfigError(f"Which {profile.argument}?", f"--target {profile.target}:{profile.argument.upper()}")


def write_profile(path: Path, profile: Profile) -> None:
    """Write a profile that predicts, as :func:`load_profile` reads it.

    Raises:
        LightSSLError: The file cannot be written.
    """
    values = yaml.safe_dump(profile.model_dump(), sort_keys=False, default_flow_style=None, width=120)
    write_text(path, _HEADER + values)


def _find(name: str | Path) -> tuple[Path, str | None]:
    """Return the profile's file, and what follows the colon in a name that has one."""
    if Path(name).suffix in (".yaml", ".yml"):
        return Path(str(name).removeprefix("predict:")), None
    if name in profile_names():
        return resource("export", "targets", f"{str(name).replace(':', '-')}.yaml"), None
    known, colon, value = str(name).partition(":")
    if known in profile_names():
        return resource("export", "targets", f"{known}.yaml"), value if colon else None
    hint = did_you_mean(str(name), profile_names()) or did_you_mean(known, profile_names()) or ""
    raise ConfigError(f"Unknown device profile {str(name)!r}.", f"{hint} Known: {', '.join(profile_names())}.".strip())
