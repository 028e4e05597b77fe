"""The rules of the house: which way imports go, and that what is registered works."""

import ast
from pathlib import Path

import pytest
import yaml

import lightssl
from lightssl.backbones import BACKBONES
from lightssl.evaluation import EVALUATIONS
from lightssl.methods import METHODS
from lightssl.registry import Registry
from lightssl.resources import resource
from lightssl.search import STRATEGIES
from lightssl.study import GRIDS
from lightssl.train import OPTIMIZERS

PACKAGE = Path(lightssl.__file__).parent

# From the bottom up. Parts of one tier do not import each other; every part may import those of lower tiers.
TIERS = [
    {"errors"},
    {"registry", "units", "schedules", "resources", "files", "progress", "interrupts", "shared_memory"},
    {"types", "machine", "distributed", "images", "collapse", "chains"},
    {"checkpoint", "runs"},
    {"losses", "heads", "views", "data", "backbones", "optim", "layers", "precision"},
    {"methods"},
    {"evaluation", "deploy"},
    {"train", "reports"},
    {"search"},
    {"study"},
    {"config"},
    {"pipeline"},
    {"cli"},
    {"__main__"},
]
LEVEL = {part: level for level, tier in enumerate(TIERS) for part in tier}


def part_of(module: str) -> str:
    """``lightssl.views.plan`` -> ``views``; the package itself is ``lightssl``."""
    return module.split(".")[1] if "." in module else "lightssl"


def imports() -> list[tuple[str, str]]:
    """All (importing module, imported module) pairs inside the package, lazy imports included."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        relative = path.relative_to(PACKAGE.parent).with_suffix("")
        importer = ".".join(relative.parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lightssl":
                if node.module == "lightssl":
                    names = [
                        alias.name
                        for alias in node.names
                        if (PACKAGE / alias.name).exists() or (PACKAGE / f"{alias.name}.py").exists()
                    ]
                    found += [(importer, f"lightssl.{name}") for name in names]
                else:
                    found.append((importer, node.module))
            elif isinstance(node, ast.Import):
                found += [(importer, alias.name) for alias in node.names if alias.name.split(".")[0] == "lightssl"]
    return found


def test_every_part_has_a_tier() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__"} == set(LEVEL)


def test_imports_never_go_up_or_sideways() -> None:
    pairs = [(a, b) for a, b in imports() if part_of(a) not in ("lightssl", part_of(b))]
    assert len(pairs) > 50  # the walk found the code
    wrong = [f"{a} imports {b}" for a, b in pairs if LEVEL[part_of(b)] >= LEVEL[part_of(a)]]
    assert not wrong


REGISTRIES: list[Registry] = [BACKBONES, METHODS, EVALUATIONS, OPTIMIZERS, STRATEGIES, GRIDS]


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_every_registered_name_resolves(registry: Registry) -> None:
    for name in registry:
        assert callable(registry[name])


@pytest.mark.parametrize("registry", [BACKBONES, METHODS], ids=lambda registry: registry.kind)
def test_nothing_but_its_registry_line_names_a_backbone_or_a_method(registry: Registry) -> None:
    for name in registry:
        module = registry[name].__module__
        assert not {importer for importer, imported in imports() if imported == module}


@pytest.mark.parametrize("path", sorted(resource("recipes").rglob("*.yaml")), ids=lambda path: path.stem)
def test_recipe_files_open_with_a_comment_that_says_what_they_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert isinstance(yaml.safe_load(text), dict)
