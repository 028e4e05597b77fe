"""Who leads the work in a folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from lightssl import files
from lightssl.errors import LightSSLError
from lightssl.pipeline.asked import leading

HOLD = """
import sys, time
from pathlib import Path
from lightssl.pipeline.asked import leading

with leading(Path(sys.argv[1]), "search"):
    print("leads", flush=True)
    time.sleep(600)
"""


def test_one_process_leads_until_it_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "leads\n"
        with leading(tmp_path, "sweep"), monkeypatch.context() as impatient:  # another thing in the same folder
            impatient.setattr(files, "_LEAVING_S", 0.1)
            refused = pytest.raises(LightSSLError, match=r"Another process is at the search in .*\n.*with --join")
            with refused, leading(tmp_path, "search"):
                pytest.fail("two lead")
        other.kill()
    with leading(tmp_path, "search"):
        pass
    with leading(tmp_path, "search"):  # it was given back
        pass


def test_a_folder_that_cannot_be_made_cannot_be_led(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LightSSLError, match="Cannot make the folder"), leading(tmp_path / "file", "search"):
        pytest.fail("it leads nothing")


def test_a_folder_that_cannot_be_written_cannot_be_led(tmp_path: Path) -> None:
    (tmp_path / "search" / ".leading").mkdir(parents=True)  # in the place of the file, which also stops root
    with pytest.raises(LightSSLError, match="Cannot write"), leading(tmp_path, "search"):
        pytest.fail("it leads what it cannot write")
