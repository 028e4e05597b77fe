"""With the real adb client, against a stand-in for a phone that runs the ARM runner in an emulator."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from lightssl.deploy import board as boards
from lightssl.deploy.emulator import CPUINFO
from lightssl.deploy.latency import Measurement
from lightssl.deploy.profile import bench, load_profile
from lightssl.errors import TargetError
from tests.deploy.devices import eventually, free_port
from tests.deploy.targets.phone import Phone

TOOLS = ("adb", "aarch64-linux-gnu-gcc", "qemu-aarch64-static")
QUICK: dict[str, Any] = {
    "threads": [1],
    "warmup": 1,
    "min_samples": 3,
    "min_seconds": 0,
    "max_seconds": 1,
    "cooldown_seconds": 0,
    "grace_seconds": 60,
}
PROPERTIES = """case $1 in
    ro.product.manufacturer) echo Maker ;;
    ro.product.model) echo Phone 4 ;;
    ro.soc.model) echo Chip 8 ;;
esac"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"needs {', '.join(TOOLS)}"),
    pytest.mark.usefixtures("arm_library"),
]


@dataclass
class Desk:
    """A server of adb's own, with the phones that are connected to it."""

    server_port: int
    folder: Path  # where phones have their temporary folders
    tools: Path  # programs that come before the system's
    env: dict[str, str]  # of the commands on a phone

    def adb(self, *arguments: str) -> None:
        subprocess.run(["adb", "-P", str(self.server_port), *arguments], check=True, capture_output=True, timeout=20)

    def connect(self) -> tuple[Phone, str]:
        """Return a new phone and its serial number."""
        phone = Phone(self.env)
        serial = f"127.0.0.1:{phone.port}"
        self.adb("connect", serial)
        self.adb("-s", serial, "wait-for-device")
        return phone, serial

    def bench(self, model: Path, target: str = "adb", **settings: Any) -> list[Measurement]:
        reach = {"server_port": self.server_port, "folder": str(self.folder)}
        return bench(model, load_profile(target), settings=QUICK | reach | settings)

    def put_tool(self, name: str, code: str) -> None:
        tool = self.tools / name
        tool.write_text(f"#!/bin/sh\n{code}\n")
        tool.chmod(0o755)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("HOME", str(tmp_path))  # where adb has its keys
    # The runtime reads the processor's description, in which an emulator would show it the machine's own.
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(CPUINFO)
    for name in ("phone", "tools"):
        (tmp_path / name).mkdir()
    env = {"PATH": f"{tmp_path / 'tools'}:{os.environ['PATH']}", "QEMU_LD_PREFIX": str(tmp_path)}
    desk = Desk(free_port(), tmp_path / "phone", tmp_path / "tools", env)
    desk.put_tool("uname", "echo aarch64")
    desk.put_tool("getprop", PROPERTIES)
    yield desk
    desk.adb("kill-server")


def test_a_phone_times_the_model_and_computes_the_same(model: Path, desk: Desk) -> None:
    phone, _ = desk.connect()
    (row,) = desk.bench(model)
    assert (row.device, row.runtime, row.threads, row.samples) == ("Maker Phone 4, Chip 8", "onnxruntime", 1, 3)
    assert row.latency_ms_p50 > 0
    assert row.max_error_vs_host is not None
    assert row.max_error_vs_host < 1e-5
    assert list(desk.folder.iterdir()) == []
    assert [script for script in phone.commands if not script.startswith("env ORT_DISABLE_TELEMETRY=1 sh -c ")] == []


def test_the_program_keeps_to_the_large_cores(
    model: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    phone, _ = desk.connect()
    described = tmp_path / "describe_board.sh"
    facts = {"name": "", "machine": "aarch64", "cores": 8, "large_cores": "4 5 7", "governor": "", "temperature": 41200}
    described.write_text("\n".join(f"echo '{key}={value}'" for key, value in (facts | {"throttled": ""}).items()))
    resource = boards.resource
    monkeypatch.setattr(
        boards, "resource", lambda *parts: described if parts[-1] == described.name else resource(*parts)
    )
    desk.put_tool("taskset", 'shift; exec "$@"')
    with pytest.warns(UserWarning, match="Not timed with 4 threads: 3 cores can be used"):
        rows = desk.bench(model, threads=[1, 2, 4])
    assert [(row.device, row.threads, row.cores) for row in rows] == [("aarch64", 1, 3), ("aarch64", 2, 3)]
    assert rows[0].conditions_before is not None
    assert rows[0].conditions_before.celsius == 41.2
    assert len([script for script in phone.commands if "taskset b0 ./ld-linux-aarch64.so.1" in script]) == 2


def test_no_phone_two_phones_and_another_phone(model: Path, desk: Desk) -> None:
    with pytest.raises(TargetError, match="There is no phone"):
        desk.bench(model)
    serials = sorted(desk.connect()[1] for _ in range(2))
    with pytest.raises(TargetError, match="There is more than one phone") as caught:
        desk.bench(model)
    assert all(serial in (caught.value.hint or "") for serial in serials)
    with pytest.raises(TargetError, match="There is no phone 0123"):
        desk.bench(model, "adb:0123")
    (row,) = desk.bench(model, f"adb:{serials[1]}")
    assert row.device == "Maker Phone 4, Chip 8"


def test_a_phone_without_space(model: Path, desk: Desk) -> None:
    desk.connect()
    desk.put_tool("tar", f"exec {shutil.which('tar')} -x -O -f - >/dev/full")
    with pytest.raises(TargetError, match=r"Cannot copy .*: .*No space left on device"):
        desk.bench(model)
    assert list(desk.folder.iterdir()) == []


def test_a_cable_that_is_pulled_out_leaves_nothing_behind(model: Path, desk: Desk) -> None:
    phone, serial = desk.connect()
    caught: list[TargetError] = []

    def run() -> None:
        try:
            desk.bench(model, min_seconds=60, max_seconds=60)
        except TargetError as error:
            caught.append(error)

    thread = Thread(target=run)
    thread.start()
    assert eventually(lambda: any(path.read_text() for path in desk.folder.glob("*/pid")))
    (runner,) = (int(path.read_text()) for path in desk.folder.glob("*/pid"))
    phone.drop()
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert f"The connection to {serial} was lost" in caught[0].message
    assert eventually(lambda: not list(desk.folder.iterdir()))
    assert eventually(lambda: not Path(f"/proc/{runner}").exists())


def test_a_phone_that_does_not_answer_is_given_up(model: Path, desk: Desk) -> None:
    desk.connect()
    desk.put_tool("nproc", "exec sleep 60")
    with pytest.raises(TargetError, match="gave no answer within 5 s"):
        desk.bench(model, grace_seconds=5)
    assert list(desk.folder.iterdir()) == []
