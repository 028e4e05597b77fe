"""From the name of a recipe to one resolved, checked recipe.

A recipe file may extend another one; a scale (``recipes/scales``) is laid over it; then come the ``key=value``
overrides. The result names every value that the run will use.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from lightssl.config.schema import COMPONENTS, Recipe, Section, keyword_options, options_model, recipe_model
from lightssl.errors import ConfigError
from lightssl.registry import did_you_mean
from lightssl.resources import resource
from lightssl.views.plan import resize_plan

PUBLISHED_SCALE = "paper"


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads ``1e-6`` as text; this one reads it as the number it is."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\d[\d_]*)(\.[\d_]*)?([eE][-+]?\d+)$|^[-+]?\d[\d_]*\.[\d_]*$|^[-+]?\.\d[\d_]*$|^[-+]?\.(inf|nan)$"
    ),
    list("-+0123456789."),
)


def read_yaml(text: str, origin: str) -> Any:
    """Parse YAML; a mistake in it is a ConfigError that names the line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{origin}{where} is not valid YAML: {getattr(error, 'problem', error)}.") from error


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        value = read_yaml(path.read_text(encoding="utf-8"), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} does not hold a mapping of keys to values.")
    return value


def available(kind: str = "") -> list[str]:
    """Names of the shipped recipes, or of the shipped ``views``, ``augment`` or ``scales``."""
    return sorted(path.stem for path in resource("recipes", kind).glob("*.yaml"))


def find(name: str, kind: str = "") -> Path:
    """Return the file of a shipped name, or of a path to a YAML file.

    Raises:
        ConfigError: There is no such recipe, or no such file.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(f"There is no file {name}.", "See the shipped recipes with 'lightssl recipes ls'.")
        return path
    known = available(kind)
    if name not in known:
        label = {"": "recipe", "views": "view plan", "augment": "augmentation", "scales": "scale"}[kind]
        known = known + [PUBLISHED_SCALE] * (kind == "scales")
        hint = " ".join(filter(None, [did_you_mean(name, known), f"Known: {', '.join(known)}."]))
        raise ConfigError(f"Unknown {label} {name!r}.", hint)
    return resource("recipes", kind, f"{name}.yaml")


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a nested mapping over another. A mapping that names another component starts afresh."""
    merged = dict(base)
    for key, value in overlay.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            renamed = "name" in value and value["name"] != below.get("name")
            merged[key] = dict(value) if renamed else merge(below, value)
        else:
            merged[key] = value
    return merged


def with_long_forms(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Spell out ``views: sslight``, ``backbone: resnet18`` and ``backbone: timm:NAME``: overlays can then add keys."""
    long = dict(recipe)
    for section, key in {"views": "plan", "augment": "preset", **dict.fromkeys(COMPONENTS, "name")}.items():
        value = long.get(section)
        if isinstance(value, str):
            long[section] = {key: value}
            if section == "backbone" and value.startswith("timm:"):
                long[section] = {"name": "timm", "model": value.removeprefix("timm:")}
    return long


def _read_recipe(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a recipe file on top of those that it extends."""
    if path in seen:
        raise ConfigError(f"{path.name} extends itself: {' -> '.join(p.name for p in (*seen, path))}.")
    recipe = with_long_forms(_read_mapping(path))
    parent = recipe.pop("extends", None)
    if parent is None:
        return recipe
    beside = path.parent / f"{parent}.yaml"
    return merge(_read_recipe(beside if beside.is_file() else find(str(parent)), (*seen, path)), recipe)


def _scale_overlay(scale: str, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a scale changes in this recipe: for every one, for its backbone, its method, and its view plan.

    A file that was resolved at this scale says so, and holds the changes already.
    """
    if scale in (PUBLISHED_SCALE, recipe.get("scale")):
        return {}
    overlay = _read_mapping(find(scale, "scales"))
    changes = with_long_forms(overlay.get("recipe", {}))
    for section, key, by_name in (
        ("backbone", "name", "backbones"),
        ("method", "name", "methods"),
        ("views", "plan", "plans"),
    ):
        of_recipe = recipe.get(section)
        name = of_recipe.get(key) if isinstance(of_recipe, Mapping) else None
        changes = merge(changes, with_long_forms(overlay.get(by_name, {}).get(name, {})))
    return changes


def parse_override(text: str) -> dict[str, Any]:
    """Turn ``"train.batch_size=64"`` into ``{"train": {"batch_size": 64}}``. The value is read as YAML."""
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"{text!r} is not an override.", "Write --set key=value, such as --set train.batch_size=64.")
    nested: Any = read_yaml(value, f"the value of {path}")
    for key in reversed(keys):
        nested = {key: nested}
    return nested


def _parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for text in overrides:
        changes = merge(changes, with_long_forms(parse_override(text)))
    return changes


def _resolve_preset(section: Any, key: str, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the contents of the shipped file that a section names, and the keys that were given beside the name."""
    if not isinstance(section, Mapping):
        return {}, {}
    rest = {name: value for name, value in section.items() if name != key}
    return _read_mapping(find(str(section[key]), kind)) if key in section else {}, rest


def _resolve_views(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Put the view plan and the augmentations together, drawn at ``views.global_size`` if it is given.

    At another size, everything that is measured in pixels shrinks alike: local views, and the blur.
    """
    plan, plan_changes = _resolve_preset(recipe.get("views"), "plan", "views")
    augment, augment_changes = _resolve_preset(recipe.get("augment"), "preset", "augment")
    size = plan_changes.get("global_size")
    if plan and isinstance(size, int) and size > 0:
        ratio = size / plan["global"]["size"]
        plan = resize_plan(plan, size)
        if augment:
            sigma = [round(value * ratio, 4) for value in augment["blur"]["sigma"]]
            augment = merge(augment, {"blur": {"sigma": sigma}})
        plan_changes.pop("global_size")
    return {"views": merge(plan, plan_changes), "augment": merge(augment, augment_changes)}


def load_recipe(name: str, *, scale: str = PUBLISHED_SCALE, overrides: Sequence[str] = ()) -> Recipe:
    """Find, compose and check a recipe.

    Args:
        name: A shipped recipe's name, or the path of a YAML file.
        scale: ``paper`` (as published), ``small`` or ``quick``.
        overrides: ``key=value`` texts with dotted keys.

    Raises:
        ConfigError: Lists every unknown key, wrong type and impossible value.
    """
    return resolve(find(name).stem, compose(name), scale=scale, overrides=overrides, origin=f"Recipe {name}")


def compose(name: str) -> dict[str, Any]:
    """Return a recipe file on top of those that it extends, before a scale and overrides change it.

    Raises:
        ConfigError: There is no such recipe, or one of the files cannot be read.
    """
    return _read_recipe(find(name))


def named_plan(recipe: Mapping[str, Any], overrides: Sequence[str] = ()) -> str | None:
    """Return the name of the view plan that a composed recipe starts from; None if it is written out in full."""
    views = merge(recipe, _parse_overrides(overrides)).get("views")
    name = views.get("plan") if isinstance(views, Mapping) else None
    return str(name) if name is not None else None


def on_plan(name: str, plan: str, *, scale: str, overrides: Sequence[str] = (), global_size: int) -> Recipe:
    """Load a recipe with another view plan, as it ships but for its size.

    Args:
        name: As for :func:`load_recipe`.
        plan: A shipped view plan's name.
        scale: As for :func:`load_recipe`.
        overrides: As for :func:`load_recipe`; those of ``views`` belong to the recipe's own plan, and are left out.
        global_size: Pixels of a global view; local views shrink or grow alike.

    Raises:
        ConfigError: As for :func:`load_recipe`.
    """
    kept = [text for text in overrides if "views" not in parse_override(text)]
    return resolve(
        find(name).stem,
        {**compose(name), "views": {"plan": plan}},
        scale=scale,
        overrides=[*kept, f"views.global_size={global_size}"],
        origin=f"Recipe {name} with the views {plan}",
    )


def resolve(name: str, recipe: Mapping[str, Any], *, scale: str, overrides: Sequence[str] = (), origin: str) -> Recipe:
    """Lay a scale and overrides over a composed recipe, and check it.

    Args:
        name: What to call it.
        recipe: As :func:`compose` returns it.
        scale: As for :func:`load_recipe`.
        overrides: As for :func:`load_recipe`.
        origin: What an error calls it.

    Raises:
        ConfigError: As for :func:`load_recipe`.
    """
    changes = _parse_overrides(overrides)
    # Another backbone or method is chosen first, so that the scale fits it.
    named = {key: value for key, value in changes.items() if key in COMPONENTS and isinstance(value, Mapping)}
    chosen = {key: {"name": value["name"]} for key, value in named.items() if "name" in value}
    recipe = merge(recipe, chosen)
    recipe = merge(recipe, _scale_overlay(scale, recipe))
    recipe = merge(recipe, changes)
    return validate({"name": name, "scale": scale, **recipe, **_resolve_views(recipe)}, origin=origin)


def load_options(
    section: str, name: str, thing: Any, *, scale: str, overrides: Sequence[str] = (), prefix: str | None = None
) -> Section:
    """Return the options of something that no recipe holds: its defaults, those of a scale, then overrides.

    Args:
        section: Where a scale has them, by name.
        name: Of the thing.
        thing: A class or function, whose keyword-only arguments are the options.
        scale: As for :func:`load_recipe`.
        overrides: Texts like ``search.candidates=100``.
        prefix: What the keys of overrides begin with; by default the section.

    Raises:
        ConfigError: Lists every unknown key, wrong type and impossible value.
    """
    prefix = prefix or section
    of_scale = {} if scale == PUBLISHED_SCALE else _read_mapping(find(scale, "scales")).get(section, {})
    options = {**of_scale.get(name, {}), "name": name}
    for text in overrides:
        options = merge(options, parse_override(text)[prefix])
    model = options_model(name, thing)
    try:
        return model.model_validate_json(json.dumps(options), strict=True)
    except ValidationError as error:
        raise ConfigError(
            f"The options of {name} have problems:",
            f"There are: {', '.join(f'{prefix}.{key}' for key in keyword_options(thing))}.",
            [f"{prefix}.{problem}" for problem in explain(error, model)],
        ) from error


def validate(recipe: Mapping[str, Any], *, origin: str) -> Recipe:
    """Check a composed recipe and turn it into its typed form.

    Raises:
        ConfigError: Lists every problem.
    """
    names: dict[str, str] = {}
    problems: list[str] = []
    for section, registry in COMPONENTS.items():
        value = recipe.get(section)
        name = value.get("name") if isinstance(value, Mapping) else None
        if name is None:
            problems.append(f"{section}.name: missing. Known: {', '.join(registry)}.")
        elif name not in registry:
            hint = did_you_mean(str(name), list(registry)) or f"Known: {', '.join(registry)}."
            problems.append(f"{section}.name: unknown {registry.kind} {name!r}. {hint}")
        else:
            names[section] = name
    # A component that is not known has no schema: the rest is checked without it.
    known = {key: value if key in names or key not in COMPONENTS else None for key, value in recipe.items()}
    known = dict.fromkeys(COMPONENTS) | known
    model = recipe_model(names)
    try:
        # Through JSON: strict there takes lists for tuples and 1 for 1.0, but no text for a number.
        checked = model.model_validate_json(json.dumps(known), strict=True)
    except ValidationError as error:
        problems.extend(explain(error, model))
    except TypeError as error:
        problems.append(str(error))
    else:
        least = COMPONENTS["method"][names["method"]].least_global_views if "method" in names else 1
        if checked.views.global_.count < least:
            problems.append(f"views.global.count: {names['method']} compares global views: it needs {least} at least.")
    if problems:
        raise ConfigError(
            f"{origin} has {len(problems)} problem{'s' * (len(problems) > 1)}:",
            "'lightssl recipes show NAME' prints every key of a recipe.",
            problems,
        )
    return checked


def explain(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    """Say each problem in a line, with the path of its key and the closest known one."""
    for problem in error.errors():
        path = ".".join(str(part) for part in problem["loc"] if not _is_branch(part))
        if problem["type"] == "extra_forbidden":
            hint = did_you_mean(str(problem["loc"][-1]), _keys_at(model, problem["loc"][:-1]))
            yield f"{path}: unknown key. {hint}" if hint else f"{path}: unknown key."
        elif problem["type"] == "missing":
            yield f"{path}: missing."
        else:
            message = problem["msg"].removeprefix("Value error, ")
            yield f"{path}: {message[0].lower()}{message[1:]} (got {problem['input']!r})"


def _is_branch(part: int | str) -> bool:
    """Tell whether a part of a place is what pydantic calls one of several types that a value may have."""
    return isinstance(part, str) and (not part.isidentifier() or part in ("int", "float", "bool", "str"))


def _keys_at(model: type[BaseModel], path: Iterable[Any]) -> list[str]:
    """Return the keys that a recipe may have at a path."""
    for part in path:
        fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
        annotation = fields.get(part)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return [field.alias or name for name, field in model.model_fields.items()]


def dump(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain values, with every default filled in."""
    return recipe.model_dump(mode="json", by_alias=True)


def to_yaml(recipe: Recipe) -> str:
    """Return a recipe as YAML text, with every default filled in."""
    return yaml.safe_dump(dump(recipe), sort_keys=False, allow_unicode=True, width=120)
