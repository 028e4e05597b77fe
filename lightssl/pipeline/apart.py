"""Work in a process of its own, which nothing else has used the memory of, and whose end takes nothing with it.

The process is a module of this package run as a program: it calls :func:`answer` with its work. It is told what to do
on its standard input, which stays open for as long as whoever asked is alive, and says how it goes, a line of JSON at a
time, on its standard output.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryFile
from threading import Thread
from typing import IO, Any

from lightssl import errors
from lightssl.errors import LightSSLError, TrainingError
from lightssl.progress import Bar, Narrator, Silent
from lightssl.search.task import Stopped

_MARK = "lightssl: "  # begins a line that is for whoever asked: libraries print, too
_POLL_S = 0.2

Asked = Mapping[str, Any]
Work = Callable[[dict[str, Any], Narrator], dict[str, Any]]


def ask(
    module: str,
    asked: Asked,
    narrator: Narrator | None = None,
    *,
    directory: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Have a module do its work in a process of its own, and return what it answers.

    Args:
        module: Its name, as ``python -m`` takes it.
        asked: What it is told, as JSON can hold it.
        narrator: Told what the work tells.
        directory: That the process is in; by default the current one.
        stop: Asked all the time. Once it returns True, the process is told to stop, as Ctrl-C would.

    Raises:
        LightSSLError: Of the work, as it was raised there.
        TrainingError: The process died, as one does for which there is no memory.
        Stopped: It stopped.
    """
    with TemporaryFile() as said, _started(module, said, directory) as process, _Told(narrator or Silent()) as told:
        _send(process, asked)
        stopping = False
        for line in _lines(process):
            if line.startswith(_MARK):
                told(json.loads(line.removeprefix(_MARK)))
            if not stopping and stop():
                stopping = True
                process.send_signal(signal.SIGINT)
        if told.answer is not None:
            return told.answer
        if told.error is not None:
            kind, message, hint = told.error
            raise getattr(errors, kind)(message, hint)
        if told.stopped or stopping:
            raise Stopped
        said.seek(0)
        raise _death(process.wait(), said.read().decode(errors="replace"))


def answer(work: Work) -> None:
    """Do the work of a module that :func:`ask` has started, and answer.

    Args:
        work: From what is asked, and a narrator, to the answer, as JSON can hold it. May raise LightSSLErrors, and
            Stopped when it was told to stop and can be asked to go on.
    """
    asked = json.loads(sys.stdin.readline())
    Thread(target=_end_with_asker, daemon=True).start()
    try:
        _tell(answer=work(asked, _Telling()))
    except LightSSLError as error:
        # Of kinds that other modules derive, the one that they derive from.
        kind = next(one for one in type(error).__mro__ if one.__module__ == errors.__name__)
        _tell(error=[kind.__name__, error.message, error.hint])
    except (Stopped, KeyboardInterrupt):
        _tell(stopped=True)


@contextmanager
def _started(module: str, said: IO[bytes], directory: Path | None) -> Iterator[subprocess.Popen[str]]:
    # A session of its own: Ctrl-C on the terminal reaches it through whoever asked, once.
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):  # with what it has started, if it died before them
                os.killpg(process.pid, signal.SIGKILL)


def _send(process: subprocess.Popen[str], asked: Asked) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # dead already: its end says why
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """Yield lines as they come, and empty ones in between, until the process ends."""
    lines: SimpleQueue[str] = SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)

    reader = Thread(target=read, daemon=True)
    reader.start()
    while True:
        # Asked first: all that it wrote is in the pipe by then. What it started may hold the pipe open for longer.
        ended = process.poll() is not None
        if ended:
            reader.join(_POLL_S)
        try:
            yield lines.get(block=not ended, timeout=_POLL_S)
        except Empty:
            if ended:
                return
            yield ""


class _Told:
    """Takes what the process says."""

    def __init__(self, narrator: Narrator) -> None:
        self.answer: dict[str, Any] | None = None
        self.error: list[str] | None = None
        self.stopped = False
        self._narrator = narrator
        self._bars: dict[int, tuple[ExitStack, Bar]] = {}

    def __enter__(self) -> "_Told":
        return self

    def __exit__(self, *_: object) -> None:
        for number in reversed(list(self._bars)):  # that the process left when it ended
            self._bars.pop(number)[0].close()

    def __call__(self, message: dict[str, Any]) -> None:
        self.answer = message.get("answer", self.answer)
        self.error = message.get("error", self.error)
        self.stopped = message.get("stopped", self.stopped)
        if "say" in message:
            self._narrator.say(message["say"])
        if "begin" in message:
            stack = ExitStack()
            bar = stack.enter_context(self._narrator.work(message["title"], message["total"]))
            self._bars[message["begin"]] = stack, bar
        if "bar" in message:
            self._bars[message["bar"]][1](message["done"], message["status"])
        if "end" in message:
            self._bars.pop(message["end"])[0].close()


class _Telling:
    """Narrates to whoever asked."""

    def __init__(self) -> None:
        self._numbers = count()

    def say(self, text: str) -> None:
        _tell(say=text)

    @contextmanager
    def work(self, title: str, total: int) -> Iterator[Bar]:
        number = next(self._numbers)
        _tell(begin=number, title=title, total=total)
        yield lambda done, status="": _tell(bar=number, done=done, status=status)
        _tell(end=number)


def _tell(**message: Any) -> None:
    print(_MARK + json.dumps(message), flush=True)


def _end_with_asker() -> None:
    """Wait until whoever asked is gone, and end this process with all that it has started."""
    while os.read(0, 1):  # not by way of sys.stdin, whose lock an exiting interpreter wants
        pass
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _death(status: int, said: str) -> TrainingError:
    last = (said.strip().splitlines() or ["it said nothing"])[-1]
    why = f"it was ended by signal {-status}" if status < 0 else last
    return TrainingError(
        f"The process did not come to an end: {why}.",
        "It may have run out of memory: lower train.batch_size, or leave large networks out.",
    )
