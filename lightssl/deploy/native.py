"""A runner for devices without Python: a C program compiled here, with every library it needs beside it."""

import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

from lightssl.errors import LightSSLError, TargetError
from lightssl.files import atomic_path, cache_folder
from lightssl.resources import resource

# What loads a program, by machine as uname has it. It and the libraries go along, since those on the device may be
# older than the compiler's, or, on Android, of another kind.
_LOADERS = {"aarch64": "ld-linux-aarch64.so.1", "x86_64": "ld-linux-x86-64.so.2"}
_LIBRARIES = (
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libgcc_s.so.1",
    "libstdc++.so.6",
)

_PYPI_PLATFORMS = ("manylinux_2_28", "manylinux_2_27")
_SECONDS = 600  # for fetching 23 MB


@dataclass(frozen=True)
class NativeRunner:
    """A runner as files, and the command that starts it in the folder that holds them."""

    files: Mapping[str, Path]
    command: list[str]


def build_native_runner(machine: str, folder: Path, *, library: Path | None = None) -> NativeRunner:
    """Compile ``export/runner/run_onnx.c`` for a processor and gather what it needs.

    ONNX Runtime's library is the installed one; for another processor than this machine's it comes from the wheel of
    the same version on PyPI, and is kept in the cache.

    Args:
        machine: The processor, as uname has it: aarch64 or x86_64.
        folder: Where to write, for as long as the runner is needed.
        library: An ONNX Runtime library for that processor, instead.

    Raises:
        TargetError: There is no runner for this processor, no compiler, or no library.
    """
    if machine not in _LOADERS:
        raise TargetError(f"There is no runner for {machine} processors, only for {' and '.join(_LOADERS)}.")
    compiler = "gcc" if machine == platform.machine() else f"{machine}-linux-gnu-gcc"
    if shutil.which(compiler) is None:
        raise TargetError(f"A runner for {machine} needs {compiler}.", f"Install it: apt install {_package(compiler)}")
    program = folder / "run_onnx"
    source = resource("export", "runner", "run_onnx.c")
    _call([compiler, "-std=c11", "-D_POSIX_C_SOURCE=200809L", "-O2", "-o", str(program), str(source), "-ldl", "-lm"])
    loader = _LOADERS[machine]
    return NativeRunner(
        files={
            "run_onnx": program,
            "libonnxruntime.so": library or _onnxruntime_library(machine, folder),
            **{name: _system_file(compiler, name) for name in (loader, *_LIBRARIES)},
        },
        command=[f"./{loader}", "--library-path", ".", "./run_onnx"],
    )


def _package(compiler: str) -> str:
    """Return Debian's name of the package that holds a compiler."""
    prefix, _, name = compiler.rpartition("-")
    return f"{name}-{prefix}" if prefix else name


def _system_file(compiler: str, name: str) -> Path:
    path = Path(_call([compiler, f"-print-file-name={name}"]).strip())
    if not path.is_absolute():  # it repeats a name that it does not know
        raise TargetError(f"{compiler} has no {name}.", f"Install it again: apt install {_package(compiler)}")
    return path.resolve()


def _onnxruntime_library(machine: str, folder: Path) -> Path:
    if machine == platform.machine():
        spec = find_spec("onnxruntime")
        folders = spec.submodule_search_locations if spec else None
        for path in (path for place in folders or () for path in Path(place, "capi").glob("libonnxruntime.so.*")):
            return path
    name = f"libonnxruntime-{version('onnxruntime')}-{machine}.so"
    cache = cache_folder()
    kept = cache / name if cache else None
    if kept and kept.exists():
        return kept
    fetched = _fetch(machine, folder)
    if kept:
        # Where nothing can be written, it is fetched each time.
        with suppress(LightSSLError), atomic_path(kept) as aside:
            shutil.copyfile(fetched, aside)
    return fetched


def _fetch(machine: str, folder: Path) -> Path:
    """Take the library out of the wheel for another processor, which pip fetches and checks."""
    platforms = [f"--platform={name}_{machine}" for name in _PYPI_PLATFORMS]
    wanted = ["--no-deps", "--only-binary=:all:", f"onnxruntime=={version('onnxruntime')}"]
    try:
        _call([sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), *platforms, *wanted])
    except TargetError as error:
        raise TargetError(
            f"Cannot fetch ONNX Runtime's library for {machine} with pip. {error.message}",
            "Try again with pip installed and a network: it is kept for the next time.",
        ) from error
    (wheel,) = folder.glob("onnxruntime-*.whl")
    with ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if "/libonnxruntime.so" in name)
        library = folder / "libonnxruntime.so"
        library.write_bytes(archive.read(member))
    return library


def _call(command: list[str]) -> str:
    """Run a compiler or pip and return what it printed."""
    failed = f"`{' '.join(command[:4])} ...` failed"
    try:
        process = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TargetError(f"{failed}: it took longer than {_SECONDS} s.") from error
    if process.returncode != 0:
        lines = process.stderr.strip().splitlines()
        reason = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no reason given")
        raise TargetError(f"{failed}: {reason}")
    return process.stdout
