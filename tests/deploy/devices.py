"""What tests of other devices share."""

import socket
import time
from collections.abc import Callable


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
