import json
import subprocess
import sys
from pathlib import Path

import pytest

from lightssl import __version__, machine

X86 = """processor\t: 0
model name\t: Fast CPU 9000
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu avx2{flag}

processor\t: 1
model name\t: Fast CPU 9000
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu avx2{flag}
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd{flag}\nCPU part\t: 0xd0c\n"


@pytest.mark.parametrize(
    ("text", "flag", "native"),
    [
        (X86, "", False),
        (X86, " avx512_bf16", True),
        (X86, " amx_bf16", True),
        (ARM, "", False),
        (ARM, " bf16", True),
        (ARM, " svebf16", False),
    ],
)
def test_native_bf16_is_read_from_the_flags(
    text: str, flag: str, native: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(text.format(flag=flag))
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    assert machine.has_native_bf16() is native


def test_hyperthreads_are_one_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(X86.format(flag=""))
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    description = machine.describe_machine()
    assert description["cpu"] == "Fast CPU 9000"
    assert description["physical_cores"] == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell")
def test_the_peak_of_memory_stays_when_the_memory_is_given_back() -> None:
    before = machine.peak_memory_gib()
    block = bytearray(b"1") * 2**29  # written to: pages that are only reserved take no memory
    del block
    after = machine.peak_memory_gib()
    assert before is not None
    assert after is not None
    assert after >= 0.5
    assert after >= before


def test_a_system_that_does_not_tell_of_memory_has_no_peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_STATUS", tmp_path / "none")
    assert machine.peak_memory_gib() is None
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t 3145728 kB\n")
    monkeypatch.setattr(machine, "_STATUS", tmp_path / "status")
    assert machine.peak_memory_gib() == 3


def test_a_machine_without_cpuinfo_is_described_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "none")
    assert machine.has_native_bf16() is False
    assert machine.cpu_name()


def test_the_description_is_json_and_says_not_whose_machine_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.node", lambda: "secret-host")
    monkeypatch.setattr("socket.gethostname", lambda: "secret-host")
    for variable in ("USER", "LOGNAME", "HOME", "HOSTNAME"):
        monkeypatch.setenv(variable, "/secret")
    text = json.dumps(machine.describe_machine())
    assert "secret" not in text
    assert "/" not in text.replace("GNU/Linux", "")


def test_versions_import_nothing() -> None:
    code = (
        "import sys; from lightssl.machine import versions; v = versions(); print(v['torch'], 'torch' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, imported = process.stdout.split()
    assert version[0].isdigit()
    assert imported == "False"
    assert machine.versions()["lightssl"] == __version__


def test_a_missing_package_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PACKAGES", ("no-such-package",))
    assert machine.versions() == {"lightssl": __version__, "no-such-package": None}
