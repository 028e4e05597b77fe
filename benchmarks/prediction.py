"""Fit the profiles of ``lightssl bench --target predict:NAME`` to published latencies, and say how good they are::

    python -m benchmarks.prediction [--data FOLDER]

FOLDER holds the tables named below, which are not part of this repository. The networks behind them are built from
torchvision and timm, exported as lightssl exports, and counted as it counts a user's model. Each is predicted by a fit
to the others; a fit that does no better than multiply-accumulates alone is not written.
"""

import argparse
import csv
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import timm
import torch
import torchvision.models as zoo
import yaml
from timm.models._efficientnet_blocks import SqueezeExcite
from timm.models._efficientnet_builder import decode_arch_def, round_channels
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from torch import nn

from lightssl.config.schema import DataOptions
from lightssl.deploy.kernels import Kernel, count_kernels
from lightssl.deploy.onnx import export_onnx
from lightssl.deploy.prediction import Fit, Sample, features, learn
from lightssl.deploy.profile import Profile, write_profile
from lightssl.errors import TargetError
from lightssl.files import write_json
from lightssl.machine import versions

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PROFILES = ROOT / "export" / "targets"


class Device(NamedTuple):
    """One profile: its facts, and the samples of each number of threads."""

    name: str
    device: str
    runtime: str
    precision: str
    source: str
    networks: str
    left_out: str
    samples: dict[int, list[Sample]]


def main() -> None:
    """Count, fit, write the profiles and the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "latency")
    data: Path = parser.parse_args().data
    rows: list[dict[str, Any]] = []
    fits: dict[str, list[Fit]] = {}
    for device in (*ncnn_devices(data), pixel1(data), note10(data)):
        path = PROFILES / f"predict-{device.name}.yaml"
        path.unlink(missing_ok=True)
        fits[device.name] = _fit(device)
        if fits[device.name]:
            write_profile(path, _profile(device, fits[device.name]))
            rows += [_row(device, fit) for fit in fits[device.name]]
    of_ncnn = [row for row in rows if row["runtime"] == "ncnn"]
    result = {
        "what": "median error of predicting each network from the others, in percent",
        "ncnn_median_held_out_error_percent": median(row["held_out_error_percent"] for row in of_ncnn),
        "ncnn_median_flops_error_percent": median(row["flops_error_percent"] for row in of_ncnn),
        "pixel1_on_another_source": pixel1_elsewhere(data, fits["pixel1"][0]),
        "versions": versions(),
        "rows": rows,
    }
    write_json(RESULTS / "prediction.json", result)
    for row in rows:
        print(json.dumps({key: row[key] for key in row if key not in ("device", "runtime", "left_out")}))


def _fit(device: Device) -> list[Fit]:
    fits = []
    for threads, samples in device.samples.items():
        try:
            fits.append(learn(samples, threads=threads, left_out=device.left_out))
        except TargetError as error:
            print(f"{device.name}, {threads} threads: not written. {error.message}")
    return fits


def _profile(device: Device, fits: Sequence[Fit]) -> Profile:
    return Profile(
        about=f"{device.device}: {device.runtime}, predicted from published measurements",
        target="predict",
        settings={
            "device": device.device,
            "runtime": device.runtime,
            "precision": device.precision,
            "source": device.source,
            "networks": device.networks,
            "fits": [fit.model_dump() for fit in fits],
        },
    )


def _row(device: Device, fit: Fit) -> dict[str, Any]:
    return {
        "profile": device.name,
        "device": device.device,
        "runtime": device.runtime,
        "threads": fit.threads,
        "networks": len(fit.measured),
        "left_out": fit.left_out,
        "held_out_error_percent": fit.held_out_error_percent,
        "flops_error_percent": fit.flops_error_percent,
        "interval_factor": fit.interval_factor,
    }


def count(network: nn.Module, *sizes: int) -> list[list[Kernel]]:
    """Export a network and list its kernels at each size of the image."""
    data = DataOptions()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(
            network.eval(),
            path,
            input_size=sizes[0],
            mean=data.mean,
            std=data.std,
            include_normalisation=False,
            metadata={},
            images=None,
        )
        return [count_kernels(path, image_size=size) for size in sizes]


# ----------------------------------------------------------------------------------------------------------------- ncnn

NCNN_SOURCE = (
    "Tencent and the ncnn authors, BSD 3-clause: https://github.com/Tencent/ncnn/blob/master/benchmark/README.md, avg"
)


class NcnnDevice(NamedTuple):
    """Rows of ncnn's page."""

    heading: str  # part of it
    threads: Sequence[int]
    powersave: int  # 0: all cores, 2: the large ones


NCNN_DEVICES = {
    "raspberry-pi-zero-2": NcnnDevice("Raspberry Pi Zero 2 W", (1, 4), 0),
    "raspberry-pi-3": NcnnDevice("Raspberry Pi 3 Model B+", (1, 4), 0),
    "raspberry-pi-4": NcnnDevice("Raspberry Pi 4 Model B", (1, 4), 0),
    "raspberry-pi-5": NcnnDevice("Raspberry Pi 5 Broadcom BCM2712, Cortex-A76", (1, 4), 0),
    "snapdragon-821": NcnnDevice("Snapdragon 821", (1, 4), 0),
    "snapdragon-835": NcnnDevice("Snapdragon 835", (1, 4), 2),
    "snapdragon-855-plus": NcnnDevice("Snapdragon 855+", (1, 4), 2),
    "snapdragon-8-gen-2": NcnnDevice("Snapdragon 8 Gen 2", (1, 4), 2),
    "kirin-970": NcnnDevice("Kirin 970", (1, 4), 2),
    "dimensity-9300": NcnnDevice("Dimensity 9300", (1, 4), 2),
    "jetson-nano": NcnnDevice("NVIDIA Jetson Nano", (1, 4), 0),
    "jetson-orin-nano": NcnnDevice("NVIDIA Jetson Orin Nano", (1, 6), 0),
    "jetson-agx-orin": NcnnDevice("NVIDIA Jetson AGX Orin", (1, 4, 8), 0),
}


def proxylessnas() -> nn.Module:
    """ProxylessNAS as ncnn times it (https://arxiv.org/abs/1812.00332)."""
    stages = [
        ["ds_r1_k3_s1_e1_c32"],
        ["ir_r1_k5_s2_e1.5_c32", "ir_r1_k3_s1_e3_c32"],
        ["ir_r1_k7_s2_e3_c40", "ir_r1_k3_s1_e3_c40", "ir_r2_k5_s1_e3_c40"],
        ["ir_r1_k7_s2_e6_c80", "ir_r3_k5_s1_e3_c80"],
        ["ir_r1_k5_s1_e6_c96", "ir_r3_k5_s1_e3_c96"],
        ["ir_r1_k7_s2_e6_c192", "ir_r1_k7_s1_e6_c192", "ir_r2_k7_s1_e3_c192"],
        ["ir_r1_k7_s1_e6_c320"],
    ]
    return EfficientNet(decode_arch_def(stages), num_features=1280, stem_size=32)


# Classification networks of ncnn's page that torchvision or timm have too, with their image size. AlexNet and VGG-16
# are left out: their 61 and 138 million weights are of another age.
NCNN_NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "squeezenet": (zoo.squeezenet1_1, 227),
    "mobilenet": (partial(timm.create_model, "mobilenetv1_100"), 224),
    "mobilenet_v2": (zoo.mobilenet_v2, 224),
    "mobilenet_v3": (zoo.mobilenet_v3_large, 224),
    "shufflenet_v2": (zoo.shufflenet_v2_x1_0, 224),
    "mnasnet": (zoo.mnasnet1_0, 224),
    "proxylessnasnet": (proxylessnas, 224),
    "efficientnet_b0": (zoo.efficientnet_b0, 224),
    "efficientnetv2_b0": (partial(timm.create_model, "tf_efficientnetv2_b0"), 224),
    "regnety_400m": (zoo.regnet_y_400mf, 224),
    "googlenet": (partial(zoo.googlenet, aux_logits=False, init_weights=False), 224),
    "resnet18": (zoo.resnet18, 224),
    "resnet50": (zoo.resnet50, 224),
}


def ncnn_devices(data: Path) -> Iterator[Device]:
    """Read the devices of ncnn's page."""
    kernels = {name: count(build(), size)[0] for name, (build, size) in NCNN_NETWORKS.items()}
    with (data / "ncnn-cpu.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] in kernels]
    for name, wanted in NCNN_DEVICES.items():
        chosen = [row for row in rows if wanted.heading in row["device"] and int(row["powersave"]) == wanted.powersave]
        (heading,) = {row["device"] for row in chosen}
        samples = {
            threads: [
                Sample(row["model"], row["model"], kernels[row["model"]], float(row["avg_ms"]))
                for row in chosen
                if int(row["threads"]) == threads
            ]
            for threads in wanted.threads
        }
        precision = "fp16 storage, and fp16 arithmetic where the processor has it"
        networks = "classification networks from ShuffleNetV2 to ResNet-50"
        yield Device(name, heading, "ncnn", precision, NCNN_SOURCE, networks, "one network", samples)


# -------------------------------------------------------------------------------------------------------------- Pixel 1


def pixel1(data: Path) -> Device:
    """Read TensorFlow's table of MobileNetV2 at many widths and sizes."""
    with (data / "pixel1-tflite-mobilenetv2.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    sizes = sorted({int(row["input_px"]) for row in rows})
    kernels: dict[tuple[str, str], list[Kernel]] = {}
    for width in dict.fromkeys(row["width"] for row in rows):
        counts = count(zoo.mobilenet_v2(width_mult=float(width)), *sizes)
        kernels |= {(width, str(size)): counted for size, counted in zip(sizes, counts, strict=True)}
    samples = [
        Sample(
            f"mobilenet_v2 {row['width']} at {row['input_px']}",
            row["width"],
            kernels[row["width"], row["input_px"]],
            float(row["pixel1_large_core_ms"]),
        )
        for row in rows
    ]
    return Device(
        "pixel1",
        "Google Pixel 1, one large core",
        "TensorFlow Lite",
        "fp32",
        "The TensorFlow authors, Apache-2.0: "
        "https://github.com/tensorflow/models/blob/master/research/slim/nets/mobilenet/README.md",
        "MobileNetV2 at six widths and five image sizes",
        "one width, at all image sizes",
        {1: samples},
    )


# (channels, stride, blocks) of ProxylessNAS's stages behind its first block.
PROXYLESS_STAGES = ((24, 2, 4), (40, 2, 4), (80, 2, 4), (96, 1, 4), (192, 2, 4), (320, 1, 1))


def pixel1_elsewhere(data: Path, fit: Fit) -> dict[str, Any]:
    """Hold the profile of the Pixel 1 against another source: other networks, timed by others on the same phone."""
    text = (data / "pixel1-block-lut.yaml").read_text(encoding="utf-8")
    table = {key.rstrip(":"): value["mean"] for key, value in yaml.safe_load(text).items()}
    errors = []
    for kernel, expansion in product((3, 5, 7), (3, 6)):
        stages = [["ds_r1_k3_s1_e1_c16"]]
        first = "expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0"
        keys, now, side = ["Conv-input:224x224x3-output:112x112x32", first], _map(112, 16), 112
        for channels, stride, blocks in PROXYLESS_STAGES:
            stages.append([f"ir_r{blocks}_k{kernel}_s{stride}_e{expansion}_c{channels}"])
            for step in [stride] + [1] * (blocks - 1):
                side //= step
                before, now = now, _map(side, channels)
                settings = f"expand:{expansion}-kernel:{kernel}-stride:{step}-idskip:{int(before == now)}"
                keys.append(f"expanded_conv-input:{before}-output:{now}-{settings}")
        keys += [f"Conv_1-input:{now}-output:7x7x1280", "Logits-input:7x7x1280-output:1000"]
        network = EfficientNet(decode_arch_def(stages), num_features=1280, stem_size=32)
        predicted = float(fit.predict(features(count(network, 224)[0])))
        errors.append(100 * (predicted / sum(table[key] for key in keys) - 1))
    return {
        "what": "networks of ProxylessNAS's table of blocks (arXiv:1812.00332), predicted by pixel1, in percent",
        "networks": len(errors),
        "median_error_percent": round(median(map(abs, errors)), 1),
        "lowest_percent": round(min(errors), 1),
        "highest_percent": round(max(errors), 1),
    }


# --------------------------------------------------------------------------------------------------------------- Note10

# (channels, stride, squeeze-and-excitation, hard swish) of each stage of once-for-all's MobileNetV3, 1.2 times as wide.
OFA_STAGES = ((32, 2, 0, 0), (48, 2, 1, 0), (96, 2, 0, 1), (136, 1, 1, 1), (192, 2, 1, 1))
OFA_STEM, OFA_HEAD, OFA_FEATURES = 24, 1152, 1536
OFA_SIZES = (160, 176, 192, 208, 224)


class OfaChoice(NamedTuple):
    """A network of once-for-all's space that makes one choice for all its stages."""

    kernel: int
    expansion: int
    depth: int


# Each kernel size with each expansion, and each depth as often as the others.
OFA_NETWORKS = [OfaChoice(k, e, 2 + (i + j) % 3) for i, k in enumerate((3, 5, 7)) for j, e in enumerate((3, 4, 6))]


def once_for_all(choice: OfaChoice) -> nn.Module:
    """Build a network of once-for-all's space (https://arxiv.org/abs/1908.09791)."""
    stages = [[f"ds_r1_k3_s1_e1_c{OFA_STEM}_nre"]]
    for channels, stride, excited, hard in OFA_STAGES:
        shape = f"ir_r{choice.depth}_k{choice.kernel}_s{stride}_e{choice.expansion}_c{channels}"
        stages.append([f"{shape}{'_se0.25' if excited else ''}{'' if hard else '_nre'}"])
    stages.append([f"cn_r1_k1_s1_c{OFA_HEAD}"])
    excite = partial(
        SqueezeExcite,
        gate_layer="hard_sigmoid",
        force_act_layer=nn.ReLU,
        rd_round_fn=partial(round_channels, divisor=8),
    )
    return MobileNetV3(
        decode_arch_def(stages),
        stem_size=OFA_STEM,
        fix_stem=True,
        num_features=OFA_FEATURES,
        act_layer=nn.Hardswish,
        se_layer=excite,
    )


def once_for_all_ms(choice: OfaChoice, table: dict[str, Any], size: int) -> float:
    """Add up the published times of a network's blocks, as once-for-all does."""
    side, width = size // 2, OFA_STEM
    now = _map(side, width)
    keys = [f"Conv-input:{_map(size, 3)}-output:{now}", _block(now, now, expand=width, kernel=3, stride=1, se=0, hs=0)]
    for channels, stride, se, hs in OFA_STAGES:
        for step in [stride] + [1] * (choice.depth - 1):
            middle, side, width = width * choice.expansion, -(-side // step), channels
            before, now = now, _map(side, width)
            keys.append(_block(before, now, expand=middle, kernel=choice.kernel, stride=step, se=se, hs=hs))
    head, pooled, last = _map(side, OFA_HEAD), _map(1, OFA_HEAD), _map(1, OFA_FEATURES)
    keys += [f"Conv_1-input:{now}-output:{head}", f"AvgPool2D-input:{head}-output:{pooled}"]
    keys += [f"Conv_2-input:{pooled}-output:{last}", f"Logits-input:{last}-output:1000"]
    return float(sum(table[key]["mean"] for key in keys))


def _map(side: int, channels: int) -> str:
    return f"{side}x{side}x{channels}"


def _block(before: str, after: str, *, expand: int, kernel: int, stride: int, se: int, hs: int) -> str:
    settings = f"expand:{expand}-kernel:{kernel}-stride:{stride}-idskip:{int(before == after)}-se:{se}-hs:{hs}"
    return f"expanded_conv-input:{before}-output:{after}-{settings}"


def note10(data: Path) -> Device:
    """Read once-for-all's tables of blocks and compose networks of them."""
    tables = {
        size: {key.rstrip(":"): value for key, value in yaml.safe_load(text).items()}
        for size in OFA_SIZES
        for text in [(data / f"note10-block-lut-{size}.yaml").read_text(encoding="utf-8")]
    }
    samples = []
    for choice in OFA_NETWORKS:
        counts = count(once_for_all(choice), *OFA_SIZES)
        for size, kernels in zip(OFA_SIZES, counts, strict=True):
            latency_ms = round(once_for_all_ms(choice, tables[size], size), 2)
            name = f"ofa k{choice.kernel} e{choice.expansion} d{choice.depth} at {size}"
            samples.append(Sample(name, str(choice.kernel), kernels, latency_ms))
    return Device(
        "note10",
        "Samsung Galaxy Note10",
        "TensorFlow Lite",
        "fp32",
        "Sums of the block times of once-for-all's authors, MIT: https://github.com/mit-han-lab/once-for-all; runtime "
        "and threads, which the tables do not state, are those of their earlier paper, arXiv:1812.00332",
        "once-for-all's MobileNetV3 with three kernel sizes, expansions and depths, at five image sizes",
        "one kernel size, at all image sizes, expansions and depths",
        {1: samples},
    )


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
