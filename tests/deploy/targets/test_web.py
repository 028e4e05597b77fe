"""A real browser on the real page with the real onnxruntime-web, where both can be had."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from torch import nn

from lightssl.deploy import web_server
from lightssl.deploy.latency import Measurement
from lightssl.deploy.profile import load_profile
from lightssl.deploy.targets import web
from lightssl.deploy.web_runtime import FILES, VERSION, runtime_files
from lightssl.errors import TargetError
from lightssl.resources import resource

QUICK: dict[str, Any] = {
    **load_profile("web").settings,
    "threads": [1],
    "warmup": 1,
    "min_samples": 3,
    "min_seconds": 0,
    "sample_ms": 1,
    "hang_seconds": 120,
    "wait_seconds": 180,
}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
)

two_cores = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is one core: browsers offer no threads")

Browse = Callable[..., subprocess.Popen[bytes]]
Bench = Callable[..., Future[list[Measurement]]]


@pytest.fixture(scope="session")
def runtime() -> None:
    """The package, fetched as for a user."""
    try:
        runtime_files()
    except TargetError as error:
        pytest.skip(error.message)


@pytest.fixture
def browse(runtime: None, tmp_path: Path) -> Iterator[Browse]:
    """Opens an address in a browser without a window."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    started = []

    def start(address: str, *flags: str) -> subprocess.Popen[bytes]:
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, address]
        quiet = subprocess.DEVNULL
        started.append(subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """The browser and its children, as a phone ends them: without a word."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> Queue[str]:
    """What a person is asked to open."""
    queue: Queue[str] = Queue()
    monkeypatch.setattr(web, "_invite", lambda address, **options: queue.put(address))
    return queue


@pytest.fixture
def lan() -> None:
    """A network for others to reach this machine by."""
    try:
        web_server._lan_address()
    except TargetError as error:
        pytest.skip(error.message)


@pytest.fixture
def bench(model: Path, addresses: Queue[str]) -> Iterator[Bench]:
    with ThreadPoolExecutor() as pool:
        yield lambda **changes: pool.submit(web.bench_web, model, **{**QUICK, **changes})


@pytest.fixture
def no_runtime(tmp_path: Path) -> Path:
    """A folder for tests that never run it."""
    for name in FILES:
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def warned(recwarn: pytest.WarningsRecorder) -> Callable[[], str]:
    """All warnings so far, in one text."""
    return lambda: "\n".join(str(warning.message) for warning in recwarn)


def post(address: str, **changes: Any) -> int:
    """Report as the page does."""
    attempt = {"threads": 1, "samples_ms": [1.5, 2.5], "output_shape": [1, 8], "output": [0.0] * 8}
    report = {"visit": "1", "cores": 8, "runtime_version": "1.2.3", "attempts": [attempt], "finished": False, **changes}
    headers = {
        "User-Agent": "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/120.0.0.0 Mobile Safari/537.36"
    }
    with urlopen(Request(f"{address}report", json.dumps(report).encode(), headers), timeout=10) as response:
        return response.status


@pytest.mark.slow
@two_cores
def test_the_command_times_a_model_in_a_browser(model: Path, browse: Browse) -> None:
    """Everything as a user has it: the program, the page, one thread and two in an isolated page."""
    settings = {"threads": "[1, 2]", "min_samples": 20, "min_seconds": 0, "wait_seconds": 180}
    changes = [argument for name, value in settings.items() for argument in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "lightssl", "bench", str(model), "--target", "web", "--json", *changes]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr
        assert program.stdout
        address = next(line for line in program.stderr if "http" in line).split()[-1]
        browse(address)
        rows = json.loads(program.stdout.read())
    assert program.returncode == 0
    assert [row["threads"] for row in rows] == [1, 2]
    for row in rows:
        assert (row["kind"], row["runtime"], row["runtime_version"]) == ("browser", "onnxruntime-web", VERSION)
        assert row["samples"] >= 20
        assert 0 < row["latency_ms_min"] <= row["latency_ms_p50"] <= row["latency_ms_p99"]
        assert row["load_ms"] > 0
        assert row["first_run_ms"] > 0
        assert row["max_error_vs_host"] < 1e-5
        assert "Chrome" in row["device"]


@pytest.mark.usefixtures("lan")
@pytest.mark.slow
def test_a_page_that_is_not_isolated_computes_with_one_thread(
    warned: Callable[[], str], browse: Browse, bench: Bench, addresses: Queue[str]
) -> None:
    timed = bench(threads=[2], lan=True)
    browse(addresses.get(timeout=60))
    (row,) = timed.result()
    assert "2 threads: a page has threads over https" in warned()
    assert (row.threads, row.kind) == (1, "browser")
    assert row.max_error_vs_host is not None
    assert row.max_error_vs_host < 1e-5


@pytest.mark.usefixtures("lan")
@pytest.mark.slow
@two_cores
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_https_gives_other_devices_threads(browse: Browse, bench: Bench, addresses: Queue[str]) -> None:
    timed = bench(threads=[2], lan=True, https=True)
    browse(addresses.get(timeout=60), "--ignore-certificate-errors")
    (row,) = timed.result()
    assert row.threads == 2


@pytest.mark.slow
@two_cores
def test_threads_that_hang_fall_back_to_one(
    warned: Callable[[], str],
    browse: Browse,
    bench: Bench,
    addresses: Queue[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    page = shutil.copytree(resource("export", "web"), tmp_path / "web")
    worker = (page / "worker.js").read_text()
    hangs = "onmessage = ({ data }) => {\n  while (data.threads === 2);"
    assert "onmessage = ({ data }) => {" in worker
    (page / "worker.js").write_text(worker.replace("onmessage = ({ data }) => {", hangs))
    monkeypatch.setattr(web, "resource", lambda *parts: page if parts[-1] == "web" else resource(*parts))
    timed = bench(threads=[2], hang_seconds=3)
    browse(addresses.get(timeout=60))
    (row,) = timed.result()
    assert "2 threads: no answer for 3 s" in warned()
    assert row.threads == 1
    assert row.samples >= 3


@pytest.mark.slow
def test_what_a_browser_sent_before_it_died_is_kept(
    warned: Callable[[], str], browse: Browse, bench: Bench, addresses: Queue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    received: Queue[bytes] = Queue()
    receive = web._Inbox.receive

    def spy(inbox: web._Inbox, body: bytes, user_agent: str) -> bool:
        received.put(body)
        return receive(inbox, body, user_agent)

    monkeypatch.setattr(web._Inbox, "receive", spy)
    timed = bench(min_samples=10**6, max_seconds=600, wait_seconds=20)
    browser = browse(addresses.get(timeout=60))
    while not any(attempt["samples_ms"] for attempt in json.loads(received.get(timeout=60))["attempts"]):
        pass
    end(browser)
    (row,) = timed.result()
    assert "fell silent for 20 s" in warned()
    assert row.samples > 0
    assert row.max_error_vs_host is not None
    assert row.max_error_vs_host < 1e-5


@pytest.mark.slow
def test_the_page_outlives_connections_that_drop(
    browse: Browse, bench: Bench, addresses: Queue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first time each of these is asked for, half of it arrives."""
    to_drop = {"task.json", "ort-wasm-simd-threaded.wasm", "model.onnx", "worker.js", "report"}
    answer = web_server._Handler._answer

    def drop(handler: Any, status: int, content: bytes = b"", kind: str | None = None) -> None:
        name = handler.path.split("/")[-1]
        if name not in to_drop:
            answer(handler, status, content, kind)
            return
        to_drop.remove(name)
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(content) or 9))
        handler.wfile.write(content[: len(content) // 2])
        handler.close_connection = True

    monkeypatch.setattr(web_server._Handler, "_answer", drop)
    timed = bench()
    browse(addresses.get(timeout=60))
    (row,) = timed.result()
    assert row.samples >= 3
    assert not to_drop


def test_a_phone_that_falls_silent_leaves_what_it_had_sent(
    warned: Callable[[], str], bench: Bench, addresses: Queue[str], no_runtime: Path
) -> None:
    failed = {"threads": 2, "error": "out of [memory]"}
    half = {"threads": 1, "samples_ms": [3.0], "output_shape": [1, 8], "output": [0.0] * 8}
    timed = bench(runtime=no_runtime, wait_seconds=1)
    address = addresses.get(timeout=60)
    assert post(address, attempts=[]) == 204
    assert post(address, attempts=[half, failed], hardware="Pixel\x1b 9") == 204
    assert post(address, visit="2", attempts=[]) == 204
    (row,) = timed.result()
    assert (row.samples, row.latency_ms_p50, row.cores, row.runtime_version) == (1, 3.0, 8, "1.2.3")
    assert row.device == "Pixel 9, Chrome 120 on Linux; Android 10; K"
    assert "Not everything was timed: the browser fell silent for 1 s; 2 threads: out of memory." in warned()


def test_a_first_run_may_be_shorter_than_a_tick_of_the_clock(
    bench: Bench, addresses: Queue[str], no_runtime: Path
) -> None:
    timed = bench(runtime=no_runtime)
    attempt = {"threads": 1, "first_run_ms": 0.0, "samples_ms": [1.5], "output_shape": [1, 8], "output": [0.0] * 8}
    assert post(addresses.get(timeout=60), attempts=[attempt], finished=True) == 204
    (row,) = timed.result()
    assert (row.first_run_ms, row.latency_ms_p50) == (0, 1.5)


def test_why_a_report_is_refused_is_told(
    warned: Callable[[], str],
    capsys: pytest.CaptureFixture[str],
    bench: Bench,
    addresses: Queue[str],
    no_runtime: Path,
) -> None:
    timed = bench(runtime=no_runtime, wait_seconds=2)
    address = addresses.get(timeout=60)
    assert post(address) == 204
    with pytest.raises(HTTPError, match="400"):
        post(address, attempts=[{"threads": 1, "samples_ms": [0.0]}], finished=True)
    assert "A report was refused: attempts.0.samples_ms.0: Input should be greater than 0" in capsys.readouterr().err
    (row,) = timed.result()
    assert row.samples == 2
    assert "a report was refused: attempts.0.samples_ms.0: Input should be greater than 0" in warned()


@pytest.mark.slow
def test_a_clock_that_ticks_ten_times_a_second(
    browse: Browse, bench: Bench, addresses: Queue[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = shutil.copytree(resource("export", "web"), tmp_path / "web")
    exact = "const exact = performance.now.bind(performance);\n"
    coarse = f"{exact}performance.now = () => 100 * Math.floor(exact() / 100);\n"
    (page / "worker.js").write_text(coarse + (page / "worker.js").read_text())
    monkeypatch.setattr(web, "resource", lambda *parts: page if parts[-1] == "web" else resource(*parts))
    timed = bench()
    browse(addresses.get(timeout=60))
    (row,) = timed.result()
    assert row.samples >= 3
    assert row.latency_ms_p50 > 0


def test_the_output_is_held_against_this_machines(
    model: Path, network: nn.Module, bench: Bench, addresses: Queue[str], no_runtime: Path
) -> None:
    images = np.random.default_rng(0).random((1, 3, 16, 16), dtype=np.float32)
    (output,) = onnxruntime.InferenceSession(model).run(None, {"images": images})
    timed = bench(runtime=no_runtime, network=network)
    address = addresses.get(timeout=60)
    with urlopen(f"{address}input.bin", timeout=10) as response:
        assert response.read() == images.tobytes()
    output[0, 3] += 0.25
    attempt = {"threads": 1, "samples_ms": [1.0], "output_shape": [1, 8], "output": output.ravel().tolist()}
    post(address, attempts=[attempt], finished=True)
    (row,) = timed.result()
    assert row.max_error_vs_host == pytest.approx(0.25, abs=1e-5)
    assert row.max_error_vs_torch == pytest.approx(0.25, abs=1e-5)


def test_an_output_of_another_shape_is_an_error(bench: Bench, addresses: Queue[str], no_runtime: Path) -> None:
    timed = bench(runtime=no_runtime)
    attempt = {"threads": 1, "samples_ms": [1.0], "output_shape": [1, 9], "output": [0.0] * 9}
    post(addresses.get(timeout=60), attempts=[attempt], finished=True)
    with pytest.raises(TargetError, match=r"shape \[1, 9\], ONNX Runtime's here shape \[1, 8\]"):
        timed.result()


def test_another_network_is_noticed_before_anybody_is_asked(model: Path) -> None:
    with pytest.raises(TargetError, match=r"shape \[1, 8\], torch's shape \[1, 768\]"):
        web.bench_web(model, network=nn.Flatten(), **QUICK)


def test_a_browser_that_cannot_run_the_model(bench: Bench, addresses: Queue[str], no_runtime: Path) -> None:
    timed = bench(runtime=no_runtime)
    post(addresses.get(timeout=60), attempts=[{"threads": 1, "error": "no WebAssembly"}], finished=True)
    with pytest.raises(TargetError, match="No sample came back: 1 thread: no WebAssembly"):
        timed.result()


def test_nobody_opens_the_page(bench: Bench, no_runtime: Path) -> None:
    with pytest.raises(TargetError, match=r"Nobody opened the page within 0\.5 s"):
        bench(runtime=no_runtime, wait_seconds=0.5).result()


def test_a_phone_that_never_answers(bench: Bench, addresses: Queue[str], no_runtime: Path) -> None:
    timed = bench(runtime=no_runtime, wait_seconds=1)
    with urlopen(addresses.get(timeout=60), timeout=10) as response:
        assert b"lightssl bench" in response.read()
    with pytest.raises(TargetError, match="No sample came back: the browser fell silent for 1 s"):
        timed.result()


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": [{"threads": 1, "samples_ms": [float("nan")]}]},
        {"attempts": [{"threads": 1, "samples_ms": [-1.0]}]},
        {"attempts": [{"threads": 0}]},
        {"attempts": [{"threads": 1}] * 100},
        {"visit": "x" * 10_000},
        {"visit": None},
        {"cores": "8"},
    ],
    ids=str,
)
def test_a_report_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    report = {"visit": "1", "cores": 8, "attempts": [], "finished": False}
    assert web._Inbox().receive(json.dumps(report).encode(), "") is False
    with pytest.raises(ValueError, match=next(iter(wrong))):
        web._Inbox().receive(json.dumps({**report, **wrong}).encode(), "")


def test_visits_are_bounded() -> None:
    inbox = web._Inbox()

    def visit(name: int) -> bool:
        report = {"visit": str(name), "cores": 8, "attempts": [], "finished": False}
        return inbox.receive(json.dumps(report).encode(), "")

    for name in range(web._MAX_VISITS):
        visit(name)
    visit(0)
    with pytest.raises(ValueError, match="too many"):
        visit(web._MAX_VISITS)


def test_bad_models_are_refused_before_anybody_is_asked(model: Path, bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    with pytest.raises(TargetError, match=r"other\.onnx"):
        web.bench_web(path, **QUICK)
    path.write_bytes(model.read_bytes()[:900])
    with pytest.raises(TargetError, match=r"other\.onnx"):
        web.bench_web(path, **QUICK)
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 4]) for name in "ab"]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "graph", inputs, [output])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    with pytest.raises(TargetError, match="2 inputs, not one"):
        web.bench_web(path, **QUICK)


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        (
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Mobile Safari/9",
            "Chrome 120 on Linux; Android 10; K",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            "Version/17.4 Mobile/15E148 Safari/604.1",
            "Safari 17 on iPhone; CPU iPhone OS 17_4 like Mac OS X",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 "
            "Safari/537.36 Edg/120.0.2210.91",
            "Edge 120 on Windows NT 10.0; Win64; x64",
        ),
        (
            "Mozilla/5.0 (Android 14; Mobile; rv:121.0) Gecko/121.0 Firefox/121.0",
            "Firefox 121 on Android 14; Mobile; rv:121.0",
        ),
        ("curl/8.5 [/bold]\x1b[31m", "curl/8.5 /bold31m"),
        ("", "unknown browser"),
    ],
)
def test_browsers_are_named_for_people(user_agent: str, name: str) -> None:
    assert web.name_browser(user_agent) == name


@pytest.mark.parametrize("lan", [False, True])
def test_on_a_terminal_the_address_is_a_qr_code_too(
    lan: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = "http://192.0.2.7:12345/MnsOjmqOY9NWfvwBZFvwUw/"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    web._invite(address, lan=lan, https=False)
    first, *lines, last = capsys.readouterr().err.splitlines()
    assert first.endswith(f" {address}")
    assert ("--https" if lan else "--lan") in last
    # Seen as a camera sees it: two rows of dots to a line, white where a block is.
    dots = np.array([[(dot in "█▀", dot in "█▄") for dot in line[8:-4]] for line in lines])
    picture = (255 * dots.transpose(0, 2, 1).reshape(2 * len(lines), -1)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    assert cv2.QRCodeDetector().detectAndDecode(picture)[0] == address
