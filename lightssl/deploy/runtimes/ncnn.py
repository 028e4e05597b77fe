"""ncnn, for phones and boards: converted from ONNX by its own converter, pnnx."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

import pnnx
from torch import nn

from lightssl.deploy.onnx import describe_model
from lightssl.errors import ExportError

_TIMEOUT_SECONDS = 600


def convert(model: Path, network: nn.Module | None, folder: Path) -> Path:
    """Write ``NAME.ncnn.param`` and its weights, ``NAME.ncnn.bin``, from the ONNX file, for one image at a time.

    Raises:
        ExportError: The file is not fp32, or holds what ncnn cannot compute.
    """
    description = describe_model(model)
    if description.precision not in ("fp32", "unknown"):
        raise ExportError(f"{model} is {description.precision}: files for ncnn are made from fp32.")
    image = description.input_shape[1:]
    with TemporaryDirectory() as name:
        work = Path(name)
        copyfile(model, work / "model.onnx")  # it writes a dozen files beside its input
        shape = ",".join(map(str, (1, *image)))
        try:
            process = subprocess.run(
                [pnnx.EXEC_PATH, "model.onnx", f"inputshape=[{shape}]", "fp16=0"],
                cwd=work,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT_SECONDS,
                check=False,
            )
            text = (work / "model.ncnn.param").read_text(encoding="utf-8")
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ExportError(f"pnnx cannot convert {model} for ncnn.") from error
        if process.returncode != 0:
            raise ExportError(f"pnnx cannot convert {model} for ncnn: it ended with {process.returncode}.")
        path = folder / f"{model.stem}.ncnn.param"
        path.write_text(_completed(text, image), encoding="utf-8")
        copyfile(work / "model.ncnn.bin", path.with_suffix(".bin"))
    return path


def _completed(param: str, image: Sequence[int | str]) -> str:
    """Add to pnnx's list of layers what it leaves out: the size of the input, and how attention is split.

    Args:
        param: One layer a line: kind, name, number of inputs and outputs, their names, options.
        image: Channels, height and width of the input.

    Raises:
        ExportError: A layer is none of ncnn's.
    """
    channels, height, width = image
    param = re.sub(r"^(Input .*)$", rf"\1 0={width} 1={height} 2={channels}", param, flags=re.MULTILINE)
    # Queries, keys and values come as one array [3, heads, tokens, width]: ncnn has no batch, and calls unbind Slice.
    param = re.sub(r"^Tensor\.reshape( +\S+_ncnnbatch2dim_\d+ .*)$", r"Noop\1", param, flags=re.MULTILINE)
    param = re.sub(r"^torch\.unbind( +\S+ +1 3 .*)$", r"Slice\1 -23300=3,-233,-233,-233 1=0", param, flags=re.MULTILINE)
    unknown = sorted(set(re.findall(r"^(\w+(?:\.|::)\S+)", param, flags=re.MULTILINE)))
    if unknown:
        raise ExportError(f"ncnn cannot compute this network: it has no {', '.join(unknown)}.")
    return param
