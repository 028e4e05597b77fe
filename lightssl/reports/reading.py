"""What was written to a run folder, read for a page: what is missing or damaged counts as not there."""

import json
from pathlib import Path
from typing import Any, TypeGuard

from lightssl.runs import Run


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty when there is none, or when it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def mapping(value: Any) -> dict[str, Any]:
    """Return the value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def mappings(value: Any) -> list[dict[str, Any]]:
    """Return the objects in a list; none if it is something else."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a number, which ``True`` is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def exported_files(run: Run) -> list[dict[str, Any]]:
    """Return what the manifest says of each exported file."""
    return mappings(read_mapping(run.onnx_path.with_name("manifest.json")).get("files"))


def accuracies(run: Run) -> dict[str, float]:
    """Return the accuracy in percent of exported files, of kNN or of a classifier, by their SHA-256.

    It is that of the very file where it was verified; a file in fp32 that was not has that of the network, from which
    it was checked not to differ.
    """
    evaluated = mappings(read_mapping(run.evaluation_path("knn")).get("results"))
    verified = mappings(read_mapping(run.verification_path).get("rows"))
    found = [
        (file.get("sha256"), row.get("top1"))
        for file in exported_files(run)
        for row in evaluated
        if file.get("precision") == "fp32" and row.get("network") == "pre-trained"
    ]
    found += [(row.get("sha256"), row.get("top1")) for row in verified]
    return {str(sha256): top1 for sha256, top1 in found if is_number(top1)}
