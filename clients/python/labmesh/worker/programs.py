"""Programs: each runs with its whole tree of processes, and ends with it.

A program gets a session of its own and a token in its environment. Its processes
are those of its group and session, their descendants, and whatever else carries the
token, so that one which detached itself is found too. Where there is no ``/proc``
only the group is ended.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Optional

GRACE_SECONDS = 5.0
"""Between SIGTERM and SIGKILL."""

HEAD_BYTES = 1024
TAIL_BYTES = 3072
"""Of each stream of output the first and the last bytes are kept, as the mesh's own workers do."""

TOKEN = "LABMESH_ATTEMPT_TOKEN"

INHERITED = frozenset(
    "ALL_PROXY CUDA_HOME CUDA_PATH CUDA_VISIBLE_DEVICES HF_HOME HOME HTTPS_PROXY HTTP_PROXY LANG LC_ALL LD_LIBRARY_PATH LOGNAME "
    "NO_PROXY NVIDIA_VISIBLE_DEVICES PATH PYTHONPATH REQUESTS_CA_BUNDLE SSL_CERT_DIR SSL_CERT_FILE TZ USER VIRTUAL_ENV XDG_CACHE_HOME "
    "all_proxy http_proxy https_proxy no_proxy".split()
)
"""What a program sees of the worker's environment: nothing that is secret."""

_KILL_SECONDS = 5.0  # to find and kill all of a tree


class Excerpt:
    """Keeps the first and the last bytes of a stream, and counts all."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self.bytes = 0

    def add(self, data: bytes) -> None:
        self.bytes += len(data)
        room = HEAD_BYTES + TAIL_BYTES - len(self._head) if not self._tail else 0
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 2 * TAIL_BYTES:
            del self._tail[:-TAIL_BYTES]

    @property
    def truncated(self) -> bool:
        return self.bytes > HEAD_BYTES + TAIL_BYTES

    @property
    def text(self) -> str:
        everything = bytes(self._head + self._tail)
        if not self.truncated:
            return everything.decode("utf-8", "replace")
        left_out = self.bytes - HEAD_BYTES - TAIL_BYTES
        head = everything[:HEAD_BYTES].decode("utf-8", "replace")
        tail = everything[-TAIL_BYTES:].decode("utf-8", "replace")
        return f"{head}\n[labmesh: {left_out} bytes left out here]\n{tail}"


@dataclass
class Ended:
    """How a program ended and what it printed."""

    code: int
    """The exit code; below 0 the signal that killed it."""
    stdout: Excerpt
    stderr: Excerpt

    @property
    def signal(self) -> Optional[str]:
        if self.code >= 0:
            return None
        try:
            return signal.Signals(-self.code).name
        except ValueError:
            return f"signal {-self.code}"


async def run(
    argv: Sequence[str],
    *,
    directory: Path,
    env: Optional[Mapping[str, str]] = None,
    stdin: bytes = b"",
    umask: int = -1,
    grace: float = GRACE_SECONDS,
) -> Ended:
    """Run a program until it ends. When this is cancelled, the program's whole tree is ended first.

    Whatever of the tree is still there when the program itself has ended is killed: a
    task that is over leaves nothing behind.
    """
    token = secrets.token_hex(16)
    with tempfile.TemporaryFile() as given:
        given.write(stdin)
        given.seek(0)
        process = subprocess.Popen(
            argv,
            cwd=directory,
            env={**environment(os.environ), **(env or {}), TOKEN: token},
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            umask=umask,
        )
    out, err = Excerpt(), Excerpt()
    pumps = [asyncio.ensure_future(_keep(process.stdout, out)), asyncio.ensure_future(_keep(process.stderr, err))]
    # In a thread: asyncio's own process.wait() waits for the pipes too, which what is left of a tree may hold open.
    ended = asyncio.get_running_loop().run_in_executor(None, process.wait)
    tree = Tree(process.pid, token)
    try:
        code = await asyncio.shield(ended)
        await tree.kill()
        await _drain(pumps)
    except asyncio.CancelledError:
        await asyncio.shield(_end(ended, tree, pumps, grace))
        raise
    return Ended(code, out, err)


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What programs see of an environment."""
    env = {name: value for name, value in environ.items() if name in INHERITED}
    env.setdefault("PATH", os.defpath)
    env.setdefault("LANG", "C.UTF-8")
    return env


async def _end(ended: asyncio.Future[int], tree: Tree, pumps: Sequence[asyncio.Future[None]], grace: float) -> None:
    tree.signal(signal.SIGTERM)
    await asyncio.wait({ended}, timeout=grace)
    await tree.kill()
    await ended
    await _drain(pumps)


async def _drain(pumps: Sequence[asyncio.Future[None]]) -> None:
    """Let the pumps take what is in the pipes. One that a stranger holds open is left."""
    _, open_still = await asyncio.wait(pumps, timeout=1)
    for pump in open_still:
        pump.cancel()
    await asyncio.gather(*pumps, return_exceptions=True)


async def _keep(pipe: Optional[IO[bytes]], into: Excerpt) -> None:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        while True:
            data = await reader.read(64 << 10)
            if not data:
                return
            into.add(data)
    finally:
        transport.close()


class Tree:
    """All processes of a program, by its process group, its session and its token."""

    def __init__(self, leader: int, token: str) -> None:
        self._leader = leader
        self._token = f"{TOKEN}={token}".encode()

    def signal(self, number: signal.Signals) -> int:
        """Signal every process of the tree and say how many there were."""
        members = self.members()
        for pid in members:
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                pass
        if not members and not os.path.isdir("/proc/self"):
            try:
                os.killpg(self._leader, number)
            except (ProcessLookupError, PermissionError):
                pass
        return len(members)

    async def kill(self) -> None:
        """SIGKILL the tree until nothing of it is left."""
        deadline = time.monotonic() + _KILL_SECONDS
        while self.signal(signal.SIGKILL) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    def members(self) -> set[int]:
        """The living processes of the tree."""
        try:
            pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        except OSError:
            return set()
        parents: dict[int, int] = {}
        found: set[int] = set()
        for pid in pids:
            seen = _stat(pid)
            if seen is None:
                continue
            parent, group, session = seen
            parents[pid] = parent
            if self._leader in (pid, group, session) or self._marked(pid):
                found.add(pid)
        grew = True
        while grew:
            more = {pid for pid, parent in parents.items() if parent in found} - found
            found |= more
            grew = bool(more)
        return found - {os.getpid()}

    def _marked(self, pid: int) -> bool:
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                return self._token in f.read().split(b"\0")
        except OSError:
            return False


def _stat(pid: int) -> Optional[tuple[int, int, int]]:
    """Parent, process group and session of a process; None if it is gone or only waits to be reaped."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            words = f.read().rpartition(b")")[2].split()
        if words[0] in (b"Z", b"X"):
            return None
        return int(words[1]), int(words[2]), int(words[3])
    except (OSError, IndexError, ValueError):
        return None
