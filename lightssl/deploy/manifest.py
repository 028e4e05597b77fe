"""What lies beside exported files and says what each of them is."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lightssl.deploy.mobile import Accelerator
from lightssl.deploy.parity import Parity
from lightssl.deploy.quantise import Quantisation
from lightssl.errors import ExportError
from lightssl.files import write_text


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelInput(_Entry):
    """What the files are fed with: one input of this name, float32 [batch, 3, size, size], RGB."""

    name: str
    size: int
    range: str  # of the values
    normalisation: str  # "inside" the files or "outside"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class ModelOutput(_Entry):
    """What the files return: one output of this name, float32 [batch, width]."""

    name: str
    width: int


class OrtFile(_Entry):
    """An ONNX file converted to ONNX Runtime's own format."""

    file: str  # its name, in the folder of the manifest
    operators: str  # the name of the file that lists those it needs
    bytes: int
    sha256: str
    max_error: float  # largest difference of a feature from the ONNX file's, both by this machine's own kernels


class ExportedFile(_Entry):
    """One ONNX file."""

    file: str  # its name, in the folder of the manifest
    precision: str  # fp32, fp16 or int8
    architecture: str  # the processors it is made for: any, arm or x86
    bytes: int
    sha256: str
    opset: int
    parity: Parity  # with torch, on real images
    computed_in: str  # for parity: float where this machine has other integer kernels than the file's, else precision
    quantisation: Quantisation | None = None
    accelerators: tuple[Accelerator, ...]  # of phones; empty where they could not be judged
    ort: OrtFile | None = None


class RuntimeFiles(_Entry):
    """What another runtime than ONNX Runtime needs."""

    runtime: str
    runtime_version: str
    bytes: int  # of all files together
    sha256: dict[str, str]  # of each file, by its name
    parity: Parity  # with torch, on the input that models are timed with


class Manifest(_Entry):
    """What was exported, from what, and by which versions."""

    recipe: str
    scale: str
    backbone: str
    input: ModelInput
    output: ModelOutput
    # Names that the run's images are labelled with, in the order of logits; None where they have no labels.
    classes: list[str] | None
    calibration: str | None  # the images that int8 files were calibrated on
    versions: dict[str, str | None]
    files: list[ExportedFile]
    runtimes: list[RuntimeFiles] = []


def manifest_path(model: Path) -> Path:
    """Return where the manifest of an exported file lies."""
    return model.with_name("manifest.json")


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest in one piece."""
    write_text(path, manifest.model_dump_json(indent=2) + "\n")


def read_manifest(path: Path) -> Manifest | None:
    """Read a manifest; None when there is none.

    Raises:
        ExportError: The file is damaged, no manifest of lightssl's, or of another version.
    """
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ExportError(
            f"{path} is not a manifest of lightssl's, or it is damaged or of another version.",
            "Move it away, or export to another folder with --out.",
        ) from error
