"""Runs commands as processes that need not import torch first: forks of one that has.

Reads requests from its standard input, a JSON object a line, and answers each with the exit status of a process that
was ``python -m lightssl ARGUMENTS``, in a folder and an environment of its own, from the first line of the program on.
"""

import importlib
import json
import os
import pkgutil
import runpy
import signal
import sys
import warnings
from pathlib import Path

import lightssl


def main() -> None:
    """Serve until the input ends; a fork leaves the loop instead, and becomes the program."""
    with warnings.catch_warnings(action="ignore"):
        for module in pkgutil.walk_packages(lightssl.__path__, "lightssl."):
            if not module.name.endswith(("__main__", "make_sample")) and ".runtimes." not in module.name:
                importlib.import_module(module.name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            become(**json.loads(line))
            break
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(status, flush=True)


def become(
    arguments: list[str], folder: str, environment: dict[str, str], output: str, error: str, timeout: int
) -> None:
    """Be ``python -m lightssl ARGUMENTS``; the alarm kills what takes longer than ``timeout`` s."""
    signal.alarm(timeout)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for path, descriptor in ((os.devnull, 0), (output, 1), (error, 2)):
        with Path(path).open("r+b") as file:
            os.dup2(file.fileno(), descriptor)
    sys.argv[1:] = arguments
    sys.path[0] = folder
    runpy.run_module("lightssl", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
