"""The machine that a number was measured on, and the versions it was measured with.

Holds nothing that says whose machine it is: no host, user or folder names.
"""

import os
import platform
import re
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightssl import __version__

PACKAGES = (
    "torch",
    "torchvision",
    "lightning-fabric",
    "fvcore",
    "numpy",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "albumentations",
    "opencv-python-headless",
    "optuna",
    "pydantic",
    "PyYAML",
    "safetensors",
    "tensorboard",
    "timm",
    "matplotlib",
    "typer",
    "rich",
)

_CPUINFO = Path("/proc/cpuinfo")
_STATUS = Path("/proc/self/status")
_BF16_FLAGS = {"amx_bf16", "avx512_bf16", "bf16"}  # the last one is what ARM calls it


def versions() -> dict[str, str | None]:
    """Return the version of lightssl and of every package it uses, None for what is missing. Imports none of them."""
    return {"lightssl": __version__} | {package: _version(package) for package in PACKAGES}


def usable_cores() -> int:
    """Logical cores this process may run on: a container or ``taskset`` can leave it fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_native_bf16() -> bool:
    """Whether the CPU computes in bfloat16 itself; False where that cannot be found out.

    Without it a convolution in bf16 runs many times slower than in fp32.
    """
    return any(
        not _BF16_FLAGS.isdisjoint(core.get("flags", core.get("Features", "")).split()) for core in _cpuinfo(_CPUINFO)
    )


def describe_machine() -> dict[str, Any]:
    """Describe processor, memory, system and accelerators, ready for JSON. Imports torch where it is installed."""
    return {
        "cpu": cpu_name(),
        "architecture": platform.machine(),
        "physical_cores": _physical_cores(),
        "logical_cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_gib": memory_gib(),
        "native_bf16": has_native_bf16(),
        "accelerators": _accelerators(),
        "os": _system(),
        "python": platform.python_version(),
    }


def cpu_name() -> str:
    """The processor's name as it gives it, else its architecture."""
    for core in _cpuinfo(_CPUINFO):
        if name := core.get("model name"):
            return name
    return _sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine() or "unknown"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _cpuinfo(path: Path) -> tuple[dict[str, str], ...]:
    """One dict a logical core from a file like Linux's /proc/cpuinfo; empty where there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    blocks = (block.splitlines() for block in text.strip().split("\n\n"))
    return tuple({key.strip(): value.strip() for key, _, value in (line.partition(":") for line in b)} for b in blocks)


def _physical_cores() -> int | None:
    cores = {
        (core["physical id"], core["core id"]) for core in _cpuinfo(_CPUINFO) if {"physical id", "core id"} <= set(core)
    }
    return len(cores) or int(_sysctl("hw.physicalcpu") or 0) or None


def memory_gib() -> float | None:
    """Memory of the machine in GiB; None where it cannot be found out."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):  # not on Windows
        return None


def peak_memory_gib() -> float | None:
    """Most memory that this process had at any time, in GiB; None where it cannot be found out."""
    try:
        # Not getrusage: there a process begins with the peak of the one that started it.
        found = re.search(r"^VmHWM:\s*(\d+) kB$", _STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) / 2**20 if found else None


def _system() -> str:
    kernel = f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (OSError, KeyError):
        return kernel


def _sysctl(name: str) -> str | None:
    """A system value on macOS, None elsewhere."""
    if platform.system() != "Darwin":
        return None
    answer = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


def _accelerators() -> list[str]:
    if find_spec("torch") is None:
        return []
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [*names, "Apple MPS"] if torch.backends.mps.is_available() else names
