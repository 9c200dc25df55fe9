"""A worker from the outside: started, asked, killed when it hangs, started again when it died."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from .replies import LONGEST, hello_of, reply_of, text

STARTUP_SECONDS = 300.0
# A process that has closed its output is given so long to end by itself.
ENDING_SECONDS = 5.0
# Enough of a dead worker's stderr to see why.
LAST_LINES = 8
LAST_BYTES = 1 << 13


class BackendError(Exception):
    """A backend that was asked for cannot be run at all."""


class Worker:
    """One backend in a process of its own: ``name`` or ``name@/path/to/python``.

    ``path`` is where it looks for modules first, beside its own environment.
    """

    def __init__(
        self, backend: str, *, framework: str | None = None, timeout: float = 60.0, path: Sequence[str] = ()
    ) -> None:
        self.name, self.framework, self.timeout = backend, framework, timeout
        paths = os.pathsep.join(filter(None, [*path, os.environ.get("PYTHONPATH")]))
        self.environment = {**os.environ, **({"PYTHONPATH": paths} if paths else {})}
        name, _, interpreter = backend.partition("@")
        self.command = [interpreter or sys.executable, "-P", "-m", f"{__package__}.worker", "--backend", name]
        if framework:
            self.command += ["--framework", framework]
        self.hello: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        # By the name of the pipe that each serves.
        self._threads: dict[str, threading.Thread] = {}
        self._said = bytearray()

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and read its hello.

        Raises
        ------
        BackendError
            It cannot be started, or says that its framework cannot be imported.
        """
        try:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self.environment,
            )
        except OSError as cause:
            raise BackendError(f"{self.name}: {self.command[0]} cannot be started: {cause}") from None
        self._said = bytearray()
        self._threads = {"stderr": _started(_keep_last, self._process.stderr, self._said)}
        hello = self._receive(STARTUP_SECONDS, hello_of)
        problem = hello.get("crash") or hello.get("failed")
        if problem is not None:
            self.stop()
            raise BackendError(f"{self.name}: {problem}")
        self.hello = hello

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for name in ("stdin", "stdout", "stderr"):
                thread = self._threads.get(name)
                if thread is not None:
                    thread.join(timeout=1)
                # A child of the worker's may hold it open; then it is left to that.
                if thread is None or not thread.is_alive():
                    with contextlib.suppress(OSError):
                        getattr(self._process, name).close()
            self._process = None

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the reply, or ``{"crash": why}`` for a worker that died or hung; the next call starts another."""
        if self._process is None:
            try:
                self.start()
            except BackendError as error:
                return {"crash": str(error)}
        assert self._process is not None
        # A worker that hangs does not read: a thread waits for it, and ends when it is killed.
        line = json.dumps(request).encode() + b"\n"
        self._threads["stdin"] = _started(_write, self._process.stdin, line)
        reply = self._receive(self.timeout, lambda line: reply_of(line, request["id"]))
        if "crash" in reply:
            self.stop()
        return reply

    def _receive(self, seconds: float, read: Callable[[bytes], dict[str, Any]]) -> dict[str, Any]:
        """Return the next message as ``read`` has it, or ``{"crash": why}``."""
        assert self._process is not None
        # A pipe cannot be waited for with a timeout everywhere. What nobody asked for stays in it.
        lines: queue.Queue[bytes] = queue.Queue()
        self._threads["stdout"] = _started(_read, self._process.stdout, lines)
        try:
            line = lines.get(timeout=seconds)
        except queue.Empty:
            return {"crash": f"the worker hung for {seconds:g} s and was killed"}
        if not line.endswith(b"\n") and len(line) <= LONGEST:
            return {"crash": self._end()}
        try:
            return read(line)
        except ValueError as problem:
            return {"crash": f"the worker answered {problem}"}

    def _end(self) -> str:
        """Return how a worker ended that says no more, and its last words."""
        assert self._process is not None
        try:
            ended = f"ended with status {self._process.wait(ENDING_SECONDS)}"
        except subprocess.TimeoutExpired:
            ended = "closed its output and was killed"
        self._threads["stderr"].join(timeout=1)
        said = text(bytes(self._said).decode(errors="replace")).strip().splitlines()[-LAST_LINES:]
        return "\n    ".join([f"the worker {ended}", *said])


def _started(target: Callable[..., None], *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


def _write(stream: IO[bytes], line: bytes) -> None:
    # It died, or was stopped: what it said is read elsewhere.
    with contextlib.suppress(OSError, ValueError):
        stream.write(line)
        stream.flush()


def _read(stream: IO[bytes], lines: queue.Queue[bytes]) -> None:
    """Queue the next line, or so much of it as is read at most; b"" at the end."""
    try:
        lines.put(stream.readline(LONGEST + 1))
    except (OSError, ValueError):
        lines.put(b"")


def _keep_last(stream: IO[bytes], said: bytearray) -> None:
    """Read all that is said, and keep the end of it."""
    with contextlib.suppress(OSError, ValueError):
        while part := os.read(stream.fileno(), LAST_BYTES):
            said += part
            del said[:-LAST_BYTES]
