"""A worker from the outside: started, asked, killed when it hangs, started again when it died."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

from .worker import PROTOCOL

STARTUP_SECONDS = 300.0
# Enough of a dead worker's stderr to see why.
LAST_LINES = 8


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
        self._process: subprocess.Popen[str] | None = None
        self._stderr: IO[str] | None = None
        self._replies: queue.Queue[str | None] = queue.Queue()

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
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                encoding="utf-8",
                env=self.environment,
            )
        except OSError as cause:
            self.stop()
            raise BackendError(f"{self.name}: {self.command[0]} cannot be started: {cause}") from None
        self._replies = queue.Queue()
        self._reader = threading.Thread(target=_read, args=(self._process.stdout, self._replies), daemon=True)
        self._reader.start()
        self.hello = self._receive(STARTUP_SECONDS)
        problem = self.hello.get("crash") or self.hello.get("failed")
        if problem is None and self.hello.get("protocol") != PROTOCOL:
            problem = f"it speaks protocol {self.hello.get('protocol')}, not {PROTOCOL}"
        if problem is not None:
            self.stop()
            raise BackendError(f"{self.name}: {problem}")

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            # A child of the worker's may hold its stdout open; that is left to it.
            self._reader.join(timeout=1)
            pipes = [self._process.stdin, None if self._reader.is_alive() else self._process.stdout]
            for pipe in filter(None, pipes):
                with contextlib.suppress(OSError):
                    pipe.close()
            self._process = None
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the reply, or ``{"crash": why}`` for a worker that died or hung; the next call starts another."""
        if self._process is None:
            try:
                self.start()
            except BackendError as error:
                return {"crash": str(error)}
        assert self._process is not None
        # A worker that hangs does not read: a thread waits for it, and ends when it is killed.
        line = json.dumps(request) + "\n"
        threading.Thread(target=_write, args=(self._process.stdin, line), daemon=True).start()
        reply = self._receive(self.timeout)
        if "crash" not in reply and reply.get("id") != request["id"]:
            reply = {"crash": f"the worker answered {reply.get('id')!r}"}
        if "crash" in reply:
            self.stop()
        return reply

    def _receive(self, seconds: float) -> dict[str, Any]:
        try:
            line = self._replies.get(timeout=seconds)
        except queue.Empty:
            return {"crash": f"the worker hung for {seconds:g} s and was killed"}
        if line is None:
            assert self._process is not None and self._stderr is not None
            code = self._process.wait()
            self._stderr.seek(0)
            said = self._stderr.read().strip().splitlines()[-LAST_LINES:]
            return {"crash": "\n    ".join([f"the worker ended with status {code}", *said])}
        try:
            reply = json.loads(line)
        except ValueError:
            return {"crash": f"the worker answered {line[:80]!r}, which is no JSON"}
        return reply if isinstance(reply, dict) else {"crash": f"the worker answered {line[:80]!r}, which is no object"}


def _write(stream: IO[str], line: str) -> None:
    try:
        stream.write(line)
        stream.flush()
    except (OSError, ValueError):  # it died, or was stopped; what it said is read elsewhere
        pass


def _read(stream: IO[str], replies: queue.Queue[str | None]) -> None:
    """Queue each line, and None at the end: a pipe cannot be waited for with a timeout everywhere."""
    for line in stream:
        replies.put(line)
    replies.put(None)
