"""Against a real sshd, of the test's own, on this machine."""

import getpass
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from torch import nn

from lightssl.deploy import reference
from lightssl.deploy.latency import Measurement
from lightssl.deploy.profile import bench, load_profile
from lightssl.errors import TargetError
from lightssl.machine import usable_cores
from tests.deploy.devices import eventually, free_port

SSHD = Path("/usr/sbin/sshd")
QUICK: dict[str, Any] = {"threads": [1], "warmup": 1, "min_samples": 3, "min_seconds": 0, "max_seconds": 1}

pytestmark = pytest.mark.skipif(not (SSHD.exists() and shutil.which("ssh")), reason="needs ssh and sshd")


@dataclass
class Board:
    """This machine in the part of a board: the host ``board`` of an ssh configuration."""

    server: "subprocess.Popen[bytes]"
    config: Path
    folder: Path  # where it has its temporary folders
    tools: Path  # programs that come before the system's
    log: Path  # the commands it was given, each with a zero byte after it

    def bench(
        self, model: Path, host: str = "board", *, network: nn.Module | None = None, **settings: Any
    ) -> list[Measurement]:
        reach = {"config": self.config, "folder": str(self.folder), "python": sys.executable, "grace_seconds": 60}
        return bench(model, load_profile(f"ssh:{host}"), network=network, settings=QUICK | reach | settings)

    def commands(self) -> list[str]:
        return self.log.read_text().split("\0")[:-1]

    def put_tool(self, name: str, code: str) -> None:
        tool = self.tools / name
        tool.write_text(f"#!/bin/sh\n{code}\n")
        tool.chmod(0o755)

    def connections(self) -> list[int]:
        """Process ids of the server's children."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it may just have ended
                if int(stat.read_text().rpartition(")")[2].split()[1]) == self.server.pid:
                    found.append(int(stat.parent.name))
        return found


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    port = free_port()
    for key in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / key)], check=True)
    folder, tools, log = tmp_path / "board", tmp_path / "tools", tmp_path / "commands"
    folder.mkdir()
    tools.mkdir()
    log.touch()
    enter = tmp_path / "enter"
    enter.write_text(
        f"""#!/bin/sh
printf '%s\\0' "$SSH_ORIGINAL_COMMAND" >>'{log}'
unset ORT_DISABLE_TELEMETRY
PATH='{tools}':$PATH exec sh -c "$SSH_ORIGINAL_COMMAND"
"""
    )
    enter.chmod(0o755)
    (tmp_path / "sshd_config").write_text(
        f"""
Port {port}
ListenAddress 127.0.0.1
HostKey {tmp_path}/host_key
AuthorizedKeysFile {tmp_path}/user_key.pub
ForceCommand {enter}
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
"""
    )
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} {(tmp_path / 'host_key.pub').read_text()}")
    (tmp_path / "ssh_config").write_text(
        f"""
Host board closed
    HostName 127.0.0.1
Host unknown
    HostName board.invalid
Host closed
    Port {free_port()}
Host *
    Port {port}
    User {getpass.getuser()}
    IdentityFile {tmp_path}/user_key
    IdentitiesOnly yes
    UserKnownHostsFile {tmp_path}/known_hosts
"""
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # as its service does
    with (tmp_path / "server").open("wb") as messages:
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", tmp_path / "sshd_config"], stderr=messages)
    assert eventually(lambda: b"Server listening" in (tmp_path / "server").read_bytes())
    yield Board(server, tmp_path / "ssh_config", folder, tools, log)
    server.terminate()
    server.wait()


def test_a_board_times_the_model_and_computes_the_same(model: Path, network: nn.Module, board: Board) -> None:
    board.put_tool("vcgencmd", "echo throttled=0x50000")
    (row,) = board.bench(model, network=network)
    assert (row.kind, row.runtime, row.threads, row.batch, row.samples) == ("measured", "onnxruntime", 1, 1, 3)
    assert 0 < row.latency_ms_min <= row.latency_ms_p50 <= row.latency_ms_p99
    assert row.device
    assert row.cores == usable_cores()
    assert row.max_error_vs_host == 0  # it is the same machine
    assert row.max_error_vs_torch is not None
    assert row.max_error_vs_torch < 1e-5
    assert row.peak_memory_mib
    for conditions in (row.conditions_before, row.conditions_after):
        assert conditions is not None
        assert conditions.throttled == "0x50000"
        assert conditions.celsius is None or 0 < conditions.celsius < 150
    assert asdict(row)["conditions_after"]["throttled"] == "0x50000"
    assert list(board.folder.iterdir()) == []


def test_every_command_turns_the_telemetry_off_and_one_connection_serves_all(model: Path, board: Board) -> None:
    board.bench(model)
    commands = board.commands()
    assert len(commands) > 5
    assert [command for command in commands if not command.startswith("env ORT_DISABLE_TELEMETRY=1 sh -c ")] == []
    assert (board.config.parent / "server").read_text().count("Accepted publickey") == 1


def test_a_difference_from_the_host_is_told(model: Path, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    run_here = reference.run_here

    def another(*arguments: Any, **named: Any) -> dict[str, Any]:
        answer = run_here(*arguments, **named)
        return answer | {"output": list(np.asarray(answer["output"]) + 0.5)}

    monkeypatch.setattr(reference, "run_here", another)
    assert board.bench(model)[0].max_error_vs_host == pytest.approx(0.5)


needs_compiler = pytest.mark.skipif(
    not shutil.which("gcc") or platform.machine() not in ("x86_64", "aarch64"), reason="needs gcc for x86-64 or aarch64"
)


@needs_compiler
def test_a_board_without_onnxruntime_gets_a_runner_that_needs_nothing(model: Path, board: Board) -> None:
    (row,) = board.bench(model, python="none")
    assert (row.kind, row.runtime, row.threads, row.samples) == ("measured", "onnxruntime", 1, 3)
    assert row.max_error_vs_host == 0
    assert any("./run_onnx --input=input.bin model.onnx" in command for command in board.commands())
    assert list(board.folder.iterdir()) == []


@pytest.mark.parametrize(("machine", "reason"), [("riscv64", "no runner for riscv64"), (None, "needs gcc")])
def test_a_board_that_no_runner_can_be_made_for(
    machine: str | None, reason: str, model: Path, board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if machine:
        board.put_tool("uname", f"echo {machine}")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ssh").symlink_to(str(shutil.which("ssh")))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))  # no compiler
    with pytest.raises(TargetError, match=f"board has no Python with onnxruntime, .* {reason}"):
        board.bench(model, python="none")


def test_more_threads_than_the_board_has_cores(model: Path, board: Board) -> None:
    board.put_tool("nproc", "echo 1")
    with pytest.warns(UserWarning, match="Not timed with 2 threads: 1 cores can be used on board"):
        rows = board.bench(model, threads=[1, 2])
    assert [(row.threads, row.cores) for row in rows] == [(1, 1)]


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("unknown", "Cannot use unknown: .*resolve"),
        ("closed", "Cannot use closed: .*refused"),
        ("-oProxyCommand=touch hacked", "Cannot use -oProxyCommand"),
    ],
)
def test_a_board_that_cannot_be_reached(host: str, message: str, model: Path, board: Board) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        board.bench(model, host)
    assert f"ssh {host} mktemp" in (caught.value.hint or "")
    assert board.commands() == []


def test_a_board_that_lets_nobody_in(model: Path, board: Board) -> None:
    (board.config.parent / "user_key.pub").write_text("")
    with pytest.raises(TargetError, match=r"Cannot use board: .*Permission denied"):
        board.bench(model)


def test_a_login_that_prints_something_else(model: Path, board: Board) -> None:
    board.put_tool("mktemp", "echo Welcome")
    with pytest.raises(TargetError, match="Cannot use board: Welcome"):
        board.bench(model)


def test_a_folder_that_is_not_there(model: Path, board: Board) -> None:
    with pytest.raises(TargetError, match=r"Cannot use board: mktemp: .*No such file"):
        board.bench(model, folder="/none")


def test_a_board_without_space(model: Path, board: Board) -> None:
    board.put_tool("tar", f"exec {shutil.which('tar')} -x -O -f - >/dev/full")  # the kernel's own ENOSPC
    with pytest.raises(TargetError, match=r"Cannot copy .* on board: .*No space left on device") as caught:
        board.bench(model)
    assert "Free some space" in (caught.value.hint or "")
    assert list(board.folder.iterdir()) == []


def test_a_model_that_is_damaged_never_leaves(model: Path, board: Board, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    path.write_bytes(model.read_bytes()[:900])
    with pytest.raises(TargetError, match=r"half\.onnx"):
        board.bench(path)
    assert board.commands() == []


def test_a_connection_that_drops_in_the_middle_leaves_nothing_behind(model: Path, board: Board) -> None:
    caught: list[TargetError] = []

    def run() -> None:
        try:
            board.bench(model, min_seconds=60, max_seconds=60)
        except TargetError as error:
            caught.append(error)

    thread = Thread(target=run)
    thread.start()
    assert eventually(lambda: any(path.read_text() for path in board.folder.glob("*/pid")))
    (runner,) = (int(path.read_text()) for path in board.folder.glob("*/pid"))
    for connection in board.connections():
        os.kill(connection, signal.SIGKILL)
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert "The connection to board was lost" in caught[0].message
    assert eventually(lambda: not list(board.folder.iterdir()))
    assert eventually(lambda: not Path(f"/proc/{runner}").exists())


def test_a_board_that_does_not_answer_is_given_up_and_cleaned(model: Path, board: Board, tmp_path: Path) -> None:
    hangs = tmp_path / "python"
    hangs.write_text("#!/bin/sh\n[ $1 = -c ] || exec sleep 60\n")
    hangs.chmod(0o755)
    with pytest.raises(TargetError, match=r"board gave no answer within 7 s"):
        board.bench(model, python=str(hangs), max_seconds=1, grace_seconds=5)
    assert list(board.folder.iterdir()) == []


def test_what_was_timed_before_a_failure_is_kept(model: Path, board: Board, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\ncase $* in *--threads=2*) echo 'too hot' >&2; exit 1; esac\nexec {sys.executable} \"$@\"\n"
    )
    python.chmod(0o755)
    board.put_tool("nproc", "echo 2")
    with pytest.warns(UserWarning, match=r"Nothing from 2 threads on\..*: too hot"):
        rows = board.bench(model, python=str(python), threads=[1, 2])
    assert [row.threads for row in rows] == [1]


def test_the_runner_that_fails_there_is_told_in_its_own_words(model: Path, board: Board, tmp_path: Path) -> None:
    python = tmp_path / "python"
    for code, message in (
        ("echo 'the reason' >&2; exit 1", "on board: the reason"),
        ("kill -9 $$", "ended by SIGKILL"),
        ("echo hello", "something else than a result"),
    ):
        python.write_text(f"#!/bin/sh\n[ $1 = -c ] || {{ {code}; }}\n")
        python.chmod(0o755)
        with pytest.raises(TargetError, match=message):
            board.bench(model, python=str(python))
