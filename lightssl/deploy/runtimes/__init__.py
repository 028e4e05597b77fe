"""Other runtimes than ONNX Runtime, each an optional extra of its own name. Two files and one line here make a new one.

A runtime is a function ``convert(model: Path, network: nn.Module | None, folder: Path) -> Path``:

- ``model`` is an ONNX file; ``network`` is what it was exported from, mapping the same images [B, 3, S, S] to features
  [B, D], on the CPU and in evaluation mode, where there is one.
- It writes what an app ships into ``folder``, which is empty, in files named after the model, and returns the one that
  its runner, ``export/runner/run_NAME.py``, is started with.
- It raises ExportError when the network cannot be converted. Its file imports what the extra installs.
"""

from lightssl.registry import Registry

RUNTIMES = Registry(
    "runtime",
    {
        "openvino": "lightssl.deploy.runtimes.openvino:convert",
        "ncnn": "lightssl.deploy.runtimes.ncnn:convert",
        "executorch": "lightssl.deploy.runtimes.executorch:convert",
        "litert": "lightssl.deploy.runtimes.litert:convert",
    },
)
