"""What tests of other devices share."""

import socket
import time
from collections.abc import Callable

# As Linux shows it on ARM. ONNX Runtime reads it, and an emulator would show it that of the machine at hand.
CORTEX_A72 = """processor\t: 0
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(condition: Callable[[], object]) -> bool:
    for _ in range(300):
        if condition():
            return True
        time.sleep(0.1)
    return False
