"""A stand-in for a phone: what adb talks to, as far as shell commands take it.

It speaks the device's side of adb's protocol over TCP (messages CNXN, OPEN, OKAY, WRTE, CLSE; the shell protocol,
version 2) and runs the commands on this machine, ARM programs in an emulator.
"""

import os
import socket
import struct
import subprocess
from collections.abc import Mapping
from threading import Lock, Thread

VERSION, MAX_DATA = 0x01000000, 4096  # this version has checksums
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)  # kinds of packets of a shell


class Phone:
    """Listens on a port of its own until it is closed.

    Args:
        env: The environment of the commands.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.commands: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[_Connection] = []
        Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(_Connection(self, stream))

    def drop(self) -> None:
        """Pull the cable out."""
        self._listener.close()
        for connection in self._connections:
            connection.drop()


class _Connection:
    def __init__(self, phone: Phone, stream: socket.socket) -> None:
        self._phone = phone
        self._stream = stream
        self._lock = Lock()
        self._shells: dict[int, _Shell] = {}
        Thread(target=self._serve, daemon=True).start()

    def drop(self) -> None:
        self._stream.shutdown(socket.SHUT_RDWR)

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        (number,) = struct.unpack("<I", command)
        header = struct.pack("<6I", number, first, second, len(data), sum(data), number ^ 0xFFFFFFFF)
        with self._lock:
            self._stream.sendall(header + data)

    def _serve(self) -> None:
        try:
            with self._stream.makefile("rb") as incoming:
                while header := incoming.read(24):
                    number, first, second, length, _, _ = struct.unpack("<6I", header)
                    self._handle(struct.pack("<I", number), first, second, incoming.read(length))
        except OSError:
            pass
        finally:
            for shell in self._shells.values():
                shell.receive(struct.pack("<BI", CLOSE_STDIN, 0))

    def _handle(self, command: bytes, first: int, second: int, data: bytes) -> None:
        if command == b"CNXN":
            self.send(b"CNXN", VERSION, MAX_DATA, b"device::ro.product.name=stand-in;features=shell_v2,cmd")
        elif command == b"OPEN":
            service, _, script = data.rstrip(b"\0").decode().partition(":")
            assert service.startswith("shell,v2"), service
            self._phone.commands.append(script)
            self.send(b"OKAY", first, first)  # the other side's number of the stream serves this side as well
            self._shells[first] = _Shell(self, first, script, self._phone.env)
        elif command == b"WRTE":
            self.send(b"OKAY", first, first)
            self._shells[first].receive(data)
        elif command == b"OKAY" and first in self._shells:
            self._shells[first].ready.release()


class _Shell:
    """One command, the packets of its streams in those of the connection."""

    def __init__(self, connection: _Connection, number: int, script: str, env: Mapping[str, str]) -> None:
        self.ready = Lock()  # each message waits for the answer to the one before
        self._connection = connection
        self._number = number
        self._received = b""
        emulated = script.replace("./ld-linux-aarch64.so.1", "qemu-aarch64-static ./ld-linux-aarch64.so.1")
        self._process = subprocess.Popen(
            ["sh", "-c", emulated],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
        )
        Thread(target=self._forward, daemon=True).start()

    def receive(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._received += data
        while len(self._received) >= 5:
            kind, length = struct.unpack("<BI", self._received[:5])
            if len(self._received) < 5 + length:
                break
            content, self._received = self._received[5 : 5 + length], self._received[5 + length :]
            try:
                if kind == STDIN:
                    self._process.stdin.write(content)
                    self._process.stdin.flush()
                elif kind == CLOSE_STDIN:
                    self._process.stdin.close()
            except BrokenPipeError:
                pass

    def _forward(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        streams = [(STDOUT, self._process.stdout.fileno()), (STDERR, self._process.stderr.fileno())]
        threads = [Thread(target=self._copy, args=stream, daemon=True) for stream in streams]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        try:
            self._write(EXIT, bytes([self._process.wait() % 256]))
            self._connection.send(b"CLSE", self._number, self._number)
        except OSError:
            pass

    def _copy(self, kind: int, stream: int) -> None:
        while content := os.read(stream, MAX_DATA - 5):
            try:
                self._write(kind, content)
            except OSError:
                return

    def _write(self, kind: int, content: bytes) -> None:
        self.ready.acquire()
        self._connection.send(b"WRTE", self._number, self._number, struct.pack("<BI", kind, len(content)) + content)
