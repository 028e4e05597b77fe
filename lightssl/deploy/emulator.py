"""What ARM processors compute: ONNX Runtime's build for them, run here under qemu. How long it takes says nothing."""

import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from threading import Timer
from typing import IO, cast

import numpy as np
import torch
from torch import Tensor, nn

from lightssl.deploy.native import build_native_runner
from lightssl.deploy.parity import file_input
from lightssl.errors import ExportError, TargetError

MACHINE = "aarch64"

_SECONDS = 600  # for one image, which takes tenths of a second to some seconds

# A processor that computes in half precision and has dot products of 8 bits, as those of phones have since 2018.
_CPU = "cortex-a76"
# As Linux shows it there. ONNX Runtime reads it, and an emulator would show it that of the machine at hand.
CPUINFO = """processor\t: 0
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""


class EmulatedNetwork(nn.Module):
    """An ONNX model in place of the torch network that it was exported from, computed by an emulated processor.

    Args:
        command: Starts ``run_onnx`` in the emulator.
        folder: Where the command runs.
        model: ONNX file with one image input and one output.
        metadata: Its ``metadata_props``, which say whether it normalises images itself.
    """

    in_float = False  # what is quantised is computed by integer kernels, as there

    def __init__(self, command: Sequence[str], folder: Path, model: Path, metadata: Mapping[str, str]) -> None:
        super().__init__()
        self._name, self._metadata = model.name, metadata
        self._errors = TemporaryFile()  # noqa: SIM115 (closed by `close`)
        self._process = subprocess.Popen(
            [*command, str(model.resolve()), "--stream"],
            cwd=folder,
            env={"ORT_DISABLE_TELEMETRY": "1", "QEMU_LD_PREFIX": str(folder)},  # where it looks for /proc/cpuinfo first
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images, float32 [B, 3, S, S], to features [B, D].

        Raises:
            ExportError: The model fails on them.
        """
        return torch.stack([self._features(image) for image in file_input(images, self._metadata)])

    def _features(self, image: Tensor) -> Tensor:
        stdin, stdout = (cast(IO[bytes], stream) for stream in (self._process.stdin, self._process.stdout))
        watchdog = Timer(_SECONDS, self._process.kill)
        watchdog.start()
        try:
            stdin.write(image.numpy().tobytes())
            stdin.flush()
            (count,) = struct.unpack("<Q", stdout.read(8))
            return torch.from_numpy(np.frombuffer(stdout.read(4 * count), dtype="<f4", count=count).copy())
        except (BrokenPipeError, struct.error, ValueError) as error:  # it has ended
            self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"it ended without an answer, or gave none within {_SECONDS:g} s"
            raise ExportError(f"{self._name} fails on images {list(image.shape)} on {MACHINE}: {reason}") from error
        finally:
            watchdog.cancel()

    def close(self) -> None:
        """End the emulator."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()


@contextmanager
def emulated_networks(models: Mapping[Path, Mapping[str, str]]) -> Iterator[dict[Path, EmulatedNetwork]]:
    """Have ONNX models computed by ONNX Runtime's build for ARM for as long as the block lasts.

    Args:
        models: ONNX files and their ``metadata_props``.

    Raises:
        TargetError: The emulator, the compiler for its runner, or ONNX Runtime's library is missing.
    """
    emulator = shutil.which(f"qemu-{MACHINE}-static") or shutil.which(f"qemu-{MACHINE}")
    if emulator is None:
        raise TargetError(
            f"Computing as {MACHINE} processors do needs qemu-{MACHINE}-static.",
            "Install it: apt install qemu-user-static",
        )
    with TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        for name in ("build", "proc"):
            (folder / name).mkdir()
        (folder / "proc" / "cpuinfo").write_text(CPUINFO)
        runner = build_native_runner(MACHINE, folder / "build")
        for name, path in runner.files.items():
            (folder / name).symlink_to(path)
        networks = {}
        for model, metadata in models.items():
            networks[model] = EmulatedNetwork([emulator, "-cpu", _CPU, *runner.command], folder, model, metadata)
            stack.callback(networks[model].close)
        yield networks
