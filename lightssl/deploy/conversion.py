"""From an exported network to the files of other runtimes, each run in a process of its own before it is written."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from lightssl.deploy.manifest import RuntimeFiles
from lightssl.deploy.onnx import as_exported, describe_model
from lightssl.deploy.parity import compare_features
from lightssl.deploy.runner import SEED, input_images, run_here
from lightssl.deploy.runtimes import RUNTIMES
from lightssl.errors import ExportError
from lightssl.files import write_bytes

# Largest difference allowed between a feature and torch's, as a share of the largest feature. Some runtimes compute in
# half precision where the processor can, as ARM's do; a wrong operator costs far more than that.
TOLERANCE = 1e-2

_ONE_RUN = {"threads": 1, "batch": 1, "seed": SEED, "warmup": 0, "min_samples": 1, "min_seconds": 0, "max_seconds": 1}
_TIMEOUT_SECONDS = 600


def converter(runtime: str) -> Callable[[Path, nn.Module | None, Path], Path]:
    """Return what :mod:`lightssl.deploy.runtimes` describes, for the runtime of this name.

    Raises:
        ConfigError: There is no such runtime.
        ExportError: What it needs is not installed.
    """
    try:
        found: Callable[[Path, nn.Module | None, Path], Path] = RUNTIMES[runtime]
    except ImportError as error:
        raise ExportError(
            f"{runtime} cannot be used: {error}.", f"Install it with: pip install 'lightssl[{runtime}]'"
        ) from error
    return found


def convert(runtime: str, model: Path, network: nn.Module | None, folder: Path) -> Path:
    """Turn an exported network into the files of another runtime.

    Args:
        runtime: A name in ``RUNTIMES``.
        model: ONNX file.
        network: What it was exported from, mapping normalised float32 [B, 3, S, S] to [B, D]. Some runtimes need it.
        folder: Where to write them. It is made, and must not hold anything.

    Returns:
        The file that the runtime is started with. Others may lie beside it.

    Raises:
        ConfigError, ExportError: As :func:`converter` does.
        ExportError: The network cannot be converted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    exported = None if network is None else as_exported(network, describe_model(model))
    return converter(runtime)(model, exported, folder)


def write_for(runtime: str, model: Path, network: nn.Module) -> RuntimeFiles:
    """Write the files of another runtime beside an exported one, once it has computed the same as torch.

    Args:
        runtime: A name in ``RUNTIMES``.
        model: ONNX file.
        network: What it was exported from, mapping normalised float32 [B, 3, S, S] to [B, D].

    Raises:
        ConfigError, ExportError: As :func:`convert` does.
        ExportError: A feature differs from torch's by more than ``TOLERANCE``.
        TargetError: The runtime refuses its own file.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        answer = run_here(convert(runtime, model, network, folder), _ONE_RUN, timeout=_TIMEOUT_SECONDS, runtime=runtime)
        with torch.inference_mode():
            images = torch.from_numpy(input_images(answer["input_shape"]))
            expected = as_exported(network, describe_model(model))(images)
        parity = compare_features(torch.tensor(answer["output"]).view(answer["output_shape"]), expected)
        if parity.max_error > TOLERANCE * parity.max_feature:
            raise ExportError(
                f"{runtime} does not compute what the network does: a feature is off by {parity.max_error:.3g}, where "
                f"the largest is {parity.max_feature:.3g} and {TOLERANCE * parity.max_feature:.3g} is allowed."
            )
        contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    for file, content in contents.items():
        write_bytes(model.with_name(file), content)
    return RuntimeFiles(
        runtime=runtime,
        runtime_version=answer["runtime_version"],
        bytes=sum(map(len, contents.values())),
        sha256={file: hashlib.sha256(content).hexdigest() for file, content in contents.items()},
        parity=parity,
    )
