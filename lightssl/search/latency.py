"""Latency as a limit: predicted of every candidate by the profile of a device, which a search may have to measure."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
from annotated_types import MinLen
from numpy.random import Generator
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from lightssl.deploy.fit_profile import profile_of
from lightssl.deploy.kernels import count_kernels
from lightssl.deploy.onnx import Normalisation, export_onnx
from lightssl.deploy.prediction import COVERAGE, Fit, Sample, learn
from lightssl.deploy.profile import Profile, bench, check_argument, load_profile
from lightssl.errors import ConfigError, problems_of
from lightssl.progress import Narrator
from lightssl.search.cost import CostTable
from lightssl.search.spaces import Candidate

NETWORKS = 24  # that a device is measured with: three times the costs that are fitted
_POOL = 20_000  # candidates that those are chosen from


class _Predicting(BaseModel):
    """What is needed of the settings of a profile that predicts."""

    model_config = ConfigDict(frozen=True)

    device: str
    runtime: str
    precision: str
    fits: Annotated[list[Fit], MinLen(1)]


class Device(BaseModel):
    """A device whose latency is predicted, with one number of threads."""

    model_config = ConfigDict(frozen=True)

    device: str
    runtime: str
    precision: str
    fit: Fit

    @property
    def place(self) -> str:
        """The device, its runtime and the number of threads, in words."""
        return f"{self.device}, {self.runtime}, threads: {self.fit.threads}"

    def interval(self, latency_ms: float) -> tuple[float, float]:
        """Return the milliseconds between which ``COVERAGE`` of the networks lie that such a time is predicted of."""
        return latency_ms / self.fit.interval_factor, latency_ms * self.fit.interval_factor

    @property
    def trust(self) -> str:
        """How far its predictions can be trusted, in words."""
        return (
            f"networks left out of the fit were {self.fit.held_out_error_percent:g} % off (median), "
            f"{100 * COVERAGE:g} % of them by less than a factor of {self.fit.interval_factor:g}"
        )


def open_target(target: str | Path) -> Profile:
    """Read the profile of the device that a search is for.

    Raises:
        ConfigError: There is no such profile, it does not say all, or it needs a person for each network.
    """
    profile = load_profile(target)
    if profile.target == "web":
        raise ConfigError(
            "A search cannot measure in a browser, which somebody would have to open for each network.",
            "Time some networks with `lightssl bench --target web --json`, learn a profile from them with "
            "`lightssl fit-profile`, and name that: --target browser.yaml",
        )
    check_argument(profile)
    return profile


def predicts(profile: Profile) -> bool:
    """Tell whether a profile predicts; others have to be measured first."""
    return profile.target == "predict"


def device_of(profile: Profile, threads: int | None) -> Device:
    """Choose among the fits of a profile that predicts.

    Args:
        profile: From :func:`open_target` or :func:`measure`.
        threads: By default those of the first fit.

    Raises:
        ConfigError: There is no fit for so many threads, or the profile is wrong.
    """
    try:
        known = _Predicting.model_validate(dict(profile.settings))
    except ValidationError as error:
        raise ConfigError("The settings of target 'predict' are wrong:", problems=problems_of(error)) from error
    for fit in known.fits:
        if threads in (None, fit.threads):
            return Device(device=known.device, runtime=known.runtime, precision=known.precision, fit=fit)
    raise ConfigError(
        f"The profile of {known.device} has no fit for --threads {threads}.",
        f"There are fits for: {', '.join(str(fit.threads) for fit in known.fits)}.",
    )


def measure(
    profile: Profile,
    table: CostTable,
    *,
    threads: int | None,
    build: Callable[[Candidate], nn.Module],
    mean: Normalisation,
    std: Normalisation,
    generator: Generator,
    narrator: Narrator,
) -> Profile:
    """Time networks of a space on a device, and learn a profile that predicts all others.

    Args:
        profile: Of the device.
        table: Of the space.
        threads: To time with; by default the first number in the profile.
        build: Builds a candidate as it will be deployed.
        mean, std: How the networks' input is normalised, as of :func:`lightssl.deploy.onnx.export_onnx`.
        generator: Draws the networks.
        narrator: Told how it goes.

    Raises:
        ConfigError: The settings of the profile are wrong.
        TargetError: The device cannot be measured, or the measurements do not make a profile: see
            :func:`lightssl.deploy.prediction.learn`.
    """
    known: Any = profile.settings.get("threads")
    settings = {
        "threads": [threads if threads is not None else known[0] if isinstance(known, list) and known else known],
        "batch": 1,
    }
    networks = spread(table, generator, NETWORKS)
    samples, rows = [], []
    with narrator.work(f"Latency on {profile.about}", len(networks)) as bar, TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        # In random order: a device that slows down does so for small and for large ones.
        for candidate in (networks[place] for place in generator.permutation(len(networks))):
            export_onnx(
                build(candidate),
                path,
                input_size=candidate.image_size,
                mean=mean,
                std=std,
                include_normalisation=True,
                metadata={},
                images=None,
            )
            rows.append(bench(path, profile, settings=settings)[0])
            latency_ms = rows[-1].latency_ms_p50
            samples.append(Sample(str(candidate), str(candidate), count_kernels(path), latency_ms))
            bar(len(rows), f"{latency_ms:.3g} ms")
    row = rows[0]
    return profile_of(
        [learn(samples, threads=row.threads, left_out="one network")],
        device=row.device,
        runtime=row.runtime,
        precision=row.precision,
        source="measured for a search",
        networks=f"{len(samples)} networks of the space {table.space.name}, from small to large",
    )


def spread(table: CostTable, generator: Generator, count: int) -> list[Candidate]:
    """Draw different candidates from the smallest to the largest of a space, at even ratios of FLOPs.

    There are fewer than ``count`` where candidates are few.
    """
    space = table.space
    ends = [np.zeros_like(space.gene_sizes), space.gene_sizes - 1]
    # Drawn evenly, nearly all candidates would be of medium size: each leans to one end by a degree of its own.
    drawn = generator.binomial(space.gene_sizes - 1, generator.random((_POOL, 1)))
    genes = np.concatenate([ends, drawn])
    flops = np.log(table.prices(genes)[:, table.names.index("flops")])
    nearest = [np.abs(flops - level).argmin() for level in np.linspace(flops[0], flops[1], count)]
    return list(dict.fromkeys(space.decode(genes[place]) for place in nearest))
