"""From the name of a grid, or a YAML file that lists networks, to its members."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, create_model

from lightssl.backbones import BACKBONES
from lightssl.config.load import explain, read_yaml, with_long_forms
from lightssl.config.schema import Section, options_model
from lightssl.errors import ConfigError
from lightssl.registry import did_you_mean
from lightssl.study import GRIDS
from lightssl.study.members import Member

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]  # also that of a folder


def load_grid(grid: str) -> list[Member]:
    """Return the members of a grid.

    Args:
        grid: A name in ``GRIDS``, or the path of a YAML file: a list of entries with a ``name`` and a ``backbone`` as
            in a recipe, ``{name: mobilenetv2, width: 0.5}`` or ``timm:NAME``.

    Raises:
        ConfigError: There is no such grid; or lists every problem of the file.
    """
    if not grid.endswith((".yaml", ".yml")):
        members: list[Member] = GRIDS[grid]()
        return members
    path = Path(grid)
    try:
        entries = read_yaml(path.read_text(encoding="utf-8"), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The grid {path} cannot be read: {error}.", f"Known grids: {', '.join(GRIDS)}.") from error
    if not isinstance(entries, list) or not entries:
        raise ConfigError(
            f"{path} does not hold a list of networks.", "Write each as - {name: small, backbone: resnet18}"
        )
    found: list[Member] = []
    problems: list[str] = []
    for number, entry in enumerate(entries, 1):
        try:
            member = _read_member(entry)
            _check_new(member, found)
            found.append(member)
        except ConfigError as error:
            problems += [f"member {number}: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(
            f"The grid {path} has {len(problems)} problem{'s' * (len(problems) > 1)}:",
            "An entry is a name and a backbone with its options: - {name: half, backbone: {name: mobilenetv2, "
            "width: 0.5}}",
            problems,
        )
    return found


def _read_member(entry: Any) -> Member:
    if not isinstance(entry, Mapping):
        raise _problems(f"is not a mapping of keys to values (got {entry!r})")
    entry = with_long_forms(entry)
    backbone = entry.get("backbone")
    name = backbone.get("name") if isinstance(backbone, Mapping) else None
    problems = []
    schema: Any = Any
    if name is None and backbone is not None:
        problems.append(f"backbone.name: missing. Known: {', '.join(BACKBONES)}.")
    elif name is not None and name not in BACKBONES:
        hint = did_you_mean(str(name), list(BACKBONES)) or f"Known: {', '.join(BACKBONES)}."
        problems.append(f"backbone.name: unknown {BACKBONES.kind} {name!r}. {hint}")
    elif name is not None:
        schema = options_model(name, BACKBONES[name])
    model = create_model("Member", __base__=Section, name=(Name, ...), backbone=(schema, ...))
    try:
        # Through JSON, as recipes are checked: strict, but for 1 where a number is 1.0.
        checked = model.model_validate_json(json.dumps(entry), strict=True)
    except ValidationError as error:
        raise _problems(*problems, *explain(error, model)) from error
    except TypeError as error:  # a date, which YAML knows and JSON does not
        raise _problems(*problems, str(error)) from error
    if problems:
        raise _problems(*problems)
    # What is not stated is left to the scale.
    stated = checked.model_dump(mode="json", exclude_unset=True)
    options = {key: value for key, value in stated["backbone"].items() if key != "name"}
    return Member(stated["name"], stated["backbone"]["name"], options)


def _check_new(member: Member, before: list[Member]) -> None:
    """Refuse a name or a network that is there already."""
    for other in before:
        if other.name == member.name:
            raise _problems(f"name: {member.name!r} is there twice.")
        if other.section == member.section:
            raise _problems(f"backbone: {member.name} is the same network as {other.name}.")


def _problems(*lines: str) -> ConfigError:
    return ConfigError("A member cannot be used:", None, lines)
