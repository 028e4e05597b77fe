"""Any device with a browser: it opens a page that times the model with onnxruntime-web and sends the result back."""

import json
import re
import secrets
import sys
import warnings
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import segno
from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints, ValidationError
from torch import nn

from lightssl.deploy.latency import Measurement
from lightssl.deploy.reference import HostReference
from lightssl.deploy.runner import describe_for_timing, measured_fields, model_fields, runner_functions
from lightssl.deploy.web_runtime import runtime_files
from lightssl.deploy.web_server import Site, serving
from lightssl.errors import LightSSLWarning, TargetError, problems_of
from lightssl.resources import resource
from lightssl.types import NonNegative, Positive, PositiveInt

PAGE = ("page.js", "worker.js", "style.css", "licences.txt")
_MAX_VISITS = 16  # whose reports are held at a time


def bench_web(
    model: Path,
    *,
    network: nn.Module | None = None,
    threads: Annotated[Sequence[PositiveInt], Field(min_length=1, max_length=16)],
    batch: PositiveInt,
    warmup: Annotated[int, Ge(0)],
    min_samples: PositiveInt,
    min_seconds: NonNegative,
    max_seconds: Positive,
    sample_ms: Positive,
    hang_seconds: Positive,
    wait_seconds: Positive,
    grace_seconds: Positive,
    lan: bool,
    https: bool,
    port: Annotated[int, Ge(0), Le(65535)],
    runtime: Path | None = None,
) -> list[Measurement]:
    """Time an ONNX model in a browser, once for each number of threads that it offers.

    Prints an address and its QR code on the standard error stream, and waits until somebody has opened it and the page
    is done. A number of threads that the browser lacks or fails with gets a warning instead of a row.

    Args:
        model: ONNX file with one float32 image input.
        network: The torch network it was exported from, mapping normalised float32 [B, 3, S, S] to [B, D]. Given it,
            rows say how far the browser's features are from torch's, too.
        threads: Numbers of threads to time with.
        batch: Images in one run.
        warmup: Runs before the timed ones.
        min_samples, min_seconds: Sampling goes on until both are reached.
        max_seconds: Sampling ends here in any case.
        sample_ms: Shortest time of a sample, which is the mean of as many runs as that takes; ten ticks of the
            browser's clock, where those are longer.
        hang_seconds: A number of threads is given up when nothing comes of it for so long; one thread is tried instead.
        wait_seconds: Waiting ends when nobody opens the page, or it does not answer, for so long. What had been timed
            until then is returned, with a warning.
        grace_seconds: What ONNX Runtime on this machine may need for the output to compare with.
        lan: Let other devices in the network open the page, not only this machine.
        https: Serve with a self-signed certificate. Other devices need it for threads.
        port: To serve on; 0 is any free one.
        runtime: Folder with the files of onnxruntime-web; by default fetched once, from the npm registry.

    Raises:
        TargetError: There is no such file, ONNX Runtime refuses it here or in the browser, ``network`` is not what is
            in it, onnxruntime-web cannot be had, the page cannot be served, or no browser has sent a sample in time.
    """
    description = describe_for_timing(model)
    reference = HostReference(model, description, network, batch=batch, timeout=grace_seconds)
    task = {
        "model": model.name,
        "bytes": description.bytes,
        "input_shape": reference.images.shape,
        "threads": list(dict.fromkeys(threads)),
        "warmup": warmup,
        "min_samples": min_samples,
        "min_seconds": min_seconds,
        "max_seconds": max_seconds,
        "sample_ms": sample_ms,
        "hang_seconds": hang_seconds,
        "max_output_values": runner_functions()["MAX_OUTPUT_VALUES"],
    }
    inbox = _Inbox()
    site = Site(secrets.token_urlsafe(16), _files(model, task, reference.images, runtime), inbox.receive)
    with serving(site, lan=lan, https=https, port=port) as address:
        _invite(address, lan=lan, https=https)
        in_time = site.wait(wait_seconds)
    if not site.was_opened:
        raise TargetError(
            f"Nobody opened the page within {wait_seconds:g} s.",
            "A phone must be in the same network, and needs --lan here. --set wait_seconds=N waits longer.",
        )
    report = inbox.best()
    problems = [] if in_time else [f"the browser fell silent for {wait_seconds:g} s"]
    problems += [*inbox.refusals, *(report.failures if report else [])]
    reasons = "; ".join(problems) or "no reason was given"
    if report is None or not report.samples:
        raise TargetError(
            f"No sample came back: {reasons}.", "Keep the page open and the screen on, or try another browser."
        )
    if problems:
        warnings.warn(f"Not everything was timed: {reasons}.", LightSSLWarning, stacklevel=2)
    answers = [report.answer(attempt, batch) for attempt in report.attempts if attempt.samples_ms]
    return [
        Measurement(
            kind="browser",
            device=report.device,
            cores=report.cores,
            **measured_fields(answer),
            **model_fields(description),
            **reference.errors_of(answer),
        )
        for answer in answers
    ]


_Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # 0 is less than a tick of the browser's clock
_Text = Annotated[str, StringConstraints(max_length=1000)]


class _Attempt(BaseModel):
    """What a browser says of one number of threads."""

    model_config = ConfigDict(strict=True)

    threads: PositiveInt
    error: _Text = ""  # why it failed, or was not tried
    load_ms: _Milliseconds | None = None
    first_run_ms: _Milliseconds | None = None
    samples_ms: Annotated[list[Annotated[_Milliseconds, Field(gt=0)]], Field(max_length=100_000)] = []
    output_shape: Annotated[list[int], Field(max_length=8)] = []
    output: list[FiniteFloat] = []  # the first values


class _Report(BaseModel):
    """What a browser says so far. Each report holds all of the one before it."""

    model_config = ConfigDict(strict=True)

    visit: _Text  # a random name of the page's own, so that two devices are not mixed
    hardware: _Text = ""  # the device's model, where the browser tells it
    user_agent: str = ""
    cores: PositiveInt
    runtime_version: _Text = ""
    attempts: Annotated[list[_Attempt], Field(max_length=32)]
    finished: bool

    @property
    def samples(self) -> int:
        return sum(len(attempt.samples_ms) for attempt in self.attempts)

    @property
    def failures(self) -> list[str]:
        return [
            f"{attempt.threads} thread{'s' if attempt.threads > 1 else ''}: {_plain(attempt.error)}"
            for attempt in self.attempts
            if attempt.error
        ]

    @property
    def device(self) -> str:
        return ", ".join(filter(None, [_plain(self.hardware), name_browser(self.user_agent)]))

    def answer(self, attempt: _Attempt, batch: int) -> dict[str, Any]:
        """Return what was found with one number of threads, as the runner answers."""
        return {
            **attempt.model_dump(),
            "runtime": "onnxruntime-web",
            "runtime_version": _plain(self.runtime_version),
            "provider": "wasm",
            "batch": batch,
            "memory_before_load_mib": None,
            "peak_memory_mib": None,
        }


class _Inbox:
    """The latest report of each visit, and why one was refused."""

    def __init__(self) -> None:
        self._reports: dict[str, _Report] = {}
        self.refusals: list[str] = []

    def receive(self, body: bytes, user_agent: str) -> bool:
        """Take a report in; returns whether it is the last. Raises ValueError if it is none."""
        try:
            report = _Report.model_validate_json(body).model_copy(update={"user_agent": user_agent})
        except ValidationError as error:
            why = _plain(problems_of(error)[0])
            self.refusals = [f"a report was refused: {why}"]
            _say(f"A report was refused: {why}")  # now: the page says that it is said here
            raise
        if report.visit not in self._reports:
            if len(self._reports) == _MAX_VISITS:
                raise ValueError("too many visits")
            _say(f"Timing in {report.device}.")
        self._reports[report.visit] = report
        return report.finished

    def best(self) -> _Report | None:
        """Return the one that is finished, else the one with the most samples; None if there is none."""
        return max(self._reports.values(), key=lambda report: (report.finished, report.samples), default=None)


_BROWSERS = {  # in this order: most call themselves by the names of those below, too
    "Edge": r"\bEdg\w*/(\d+)",
    "Opera": r"\bOPR/(\d+)",
    "Samsung Internet": r"\bSamsungBrowser/(\d+)",
    "Firefox": r"\b(?:Firefox|FxiOS)/(\d+)",
    "Headless Chrome": r"\bHeadlessChrome/(\d+)",
    "Chrome": r"\b(?:Chrome|CriOS)/(\d+)",
    "Safari": r"\bVersion/(\d+)\S* .*Safari/",
}


def name_browser(user_agent: str) -> str:
    """Name a browser and its system for people, such as ``Chrome 120 on Linux; Android 10; K``."""
    system = re.search(r"\(([^)]*)\)", user_agent)
    for browser, pattern in _BROWSERS.items():
        if system and (found := re.search(pattern, user_agent)):
            return f"{browser} {found[1]} on {_plain(system[1])}"
    return _plain(user_agent) or "unknown browser"


def _files(model: Path, task: Mapping[str, Any], images: np.ndarray, runtime: Path | None) -> dict[str, bytes]:
    """All that the page asks for, by path."""
    page = resource("export", "web")
    return {
        "/": (page / "index.html").read_bytes(),
        **{f"/{name}": (page / name).read_bytes() for name in PAGE},
        **{f"/{name}": content for name, content in runtime_files(runtime).items()},
        "/task.json": json.dumps(task).encode(),
        "/model.onnx": model.read_bytes(),
        "/input.bin": images.astype("<f4").tobytes(),
    }


def _invite(address: str, *, lan: bool, https: bool) -> None:
    _say(f"Open this page and leave it open until it is done: {address}")
    if sys.stderr.isatty():
        code = StringIO()
        segno.make(address, micro=False).terminal(code, compact=True)
        for line in code.getvalue().splitlines():
            _say(f"\x1b[97;40m{line}\x1b[0m")  # white on black, whatever the terminal's own colours
    if not lan:
        _say("Only this machine can open it. With --lan, so can others in the network.")
    elif not https:
        _say("Over http, other devices compute with one thread. With --https they may have more.")
    if https:
        _say("The certificate is made for this call: the browser will warn of it, and must be told to go on.")


def _say(text: str) -> None:
    # Not through a narrator, which may be silent: without the address nothing can happen, whoever calls.
    print(text, file=sys.stderr, flush=True)


def _plain(text: str) -> str:
    """Leave of a text from elsewhere what is harmless on a terminal and in a page."""
    return re.sub(r"[^\w .,:;/()+-]", "", text)[:200].strip()
