"""Child processes that never outlive the test run, and free ports for them."""

import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import time

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_given: set[int] = set()


def free_port() -> int:
    """A TCP port of 127.0.0.1 nobody listens on, never given twice in one run.

    Outside the kernel's own range for outgoing connections, since a port given
    here is often bound only seconds later (or again, after a restart).
    """
    while True:
        port = 10000 + int.from_bytes(os.urandom(2)) % 20000
        if port in _given:
            continue
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """One child process with its log file; start, stop and kill may be repeated."""

    def __init__(self, name: str, argv: list, log: pathlib.Path, env: dict | None = None, cwd: str = "/"):
        self.name, self.argv, self.log, self.cwd = name, [str(a) for a in argv], log, cwd
        self.env = dict(os.environ, **(env or {}))
        self.child: subprocess.Popen | None = None

    def start(self) -> None:
        assert not self.running, f"{self.name} runs already"
        with self.log.open("ab") as out:
            self.child = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                env=self.env, cwd=self.cwd, preexec_fn=_die_with_parent)

    @property
    def running(self) -> bool:
        return self.child is not None and self.child.poll() is None

    @property
    def pid(self) -> int:
        assert self.child is not None, f"{self.name} was never started"
        return self.child.pid

    def send_signal(self, sig: int) -> None:
        if self.running:
            self.child.send_signal(sig)

    def wait(self, seconds: float) -> int:
        return self.child.wait(seconds)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self.send_signal(signal.SIGKILL)
        if self.child is not None:
            self.child.wait(20)

    def stop(self, sig: int = signal.SIGTERM, seconds: float = 20) -> None:
        self.send_signal(sig)
        if self.child is None:
            return
        try:
            self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def tail(self, lines: int = 30) -> str:
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def wait_until(what: str, check, seconds: float = 30, every: float = 0.05):
    """Calls `check` until it gives something true; what it gave is returned."""
    end = time.monotonic() + seconds
    while True:
        got = check()
        if got:
            return got
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(every)


def port_open(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0
