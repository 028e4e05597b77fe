"""What a command of the program takes: seconds, and memory of all its processes."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any


def measure(arguments: list[str]) -> dict[str, Any]:
    """Run the program; return its seconds and the peak memory of all its processes together."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "lightssl", *arguments])
    peak = 0.0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.5):
            peak = max(peak, memory_mib(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    done.set()
    watcher.join()
    if status:
        raise SystemExit(status)
    return {"seconds": round(time.perf_counter() - started, 1), "peak_memory_mib": round(peak)}


def memory_mib(pid: int) -> float:
    """Memory of a process and its descendants, shared pages counted once (Linux: proportional set size)."""
    total = 0.0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) / 1024
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has just ended
        return total
    return total + sum(memory_mib(int(child)) for child in children)
