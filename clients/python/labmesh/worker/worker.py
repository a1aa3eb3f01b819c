"""The worker as its user sees it."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar, Union

from ..discovery import URLs, discover
from ..errors import InvalidError
from . import machine
from .jobs import Handler, run_custom, run_test
from .link import Credentials
from .session import Session
from .slot import Slot, kinds

HEARTBEAT_SECONDS = 10.0
CUT_OFF_SECONDS = 30.0
"""After so long without a node the mesh runs a task elsewhere."""

TASK_TYPES = ("benchmark", "test", "custom")

F = TypeVar("F", bound=Handler)


class Worker:
    """Lends this machine to a mesh, one task at a time.

    ``coordinator`` is the address of a node, or several: when one goes away the next is
    tried. Without address and key they are found as :class:`labmesh.Client` finds them.
    Programs (``custom``) and test files (``test``) are run by themselves; for benchmarks, and for
    anything else in place of these, give functions::

        worker = Worker("http://lab-1:8080", api_key)

        @worker.task("benchmark")
        def bench(job):
            return {"latency_ms": measure(job.config["model"])}

        worker.run()

    A result is handed in until a node has said that it arrived, over as many
    connections, and to as many nodes, as it takes. ``cut_off_seconds`` is how long a task goes on
    without a node: by then the mesh runs it elsewhere. ``None`` lets it go on.
    """

    def __init__(
        self,
        coordinator: Optional[URLs] = None,
        api_key: Optional[str] = None,
        *,
        worker_id: Optional[str] = None,
        hostname: Optional[str] = None,
        hardware: Sequence[str] = (),
        tags: Optional[Mapping[str, str]] = None,
        signing_key: Optional[str] = None,
        work_dir: Optional[Union[str, Path]] = None,
        cut_off_seconds: Optional[float] = CUT_OFF_SECONDS,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        ssl_context: Optional[ssl.SSLContext] = None,
    ) -> None:
        found = discover(coordinator, api_key)
        self.urls = found.urls
        self.hostname = hostname or socket.gethostname()
        self.worker_id = worker_id or f"py-{self.hostname}-{uuid.uuid4().hex[:8]}"
        self.on_registered: Callable[[str], None] = lambda url: None
        """Called with the address of a node each time it has registered the worker."""
        self._who = Credentials(self.worker_id, found.api_key, signing_key)
        self._hardware = tuple(hardware)
        self._tags = dict(tags or {})
        self._work_dir = work_dir
        self._cut_off_seconds = cut_off_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._tls = ssl_context
        self._handlers: dict[tuple[str, Optional[str]], Handler] = {("custom", None): run_custom, ("test", None): run_test}
        self._capabilities: Optional[dict[str, Any]] = None
        self._session: Optional[Session] = None

    def task(self, type: str, name: Optional[str] = None) -> Callable[[F], F]:
        """Have tasks of a type run by the function that this decorates.

        With ``name`` only those whose ``config`` has this ``name``: other custom tasks go on being
        programs. A plain function runs in a thread, and sees a cancel in ``job.cancelled``.
        """
        if type not in TASK_TYPES:
            raise InvalidError(f"{type!r} is not one of {', '.join(TASK_TYPES)}", field="type")

        def register(handler: F) -> F:
            self._handlers[type, name] = handler
            return handler

        return register

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM. Raises :class:`labmesh.DeniedError` when the key is refused."""

        async def until_signal() -> None:
            loop = asyncio.get_running_loop()
            serving = asyncio.ensure_future(self.serve())
            await asyncio.sleep(0)  # it has its session now
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self.stop)
            await serving

        asyncio.run(until_signal())

    async def serve(self) -> None:
        """Serve until :meth:`stop`, in an event loop of the caller's."""
        if self._session is not None:
            raise RuntimeError("the worker serves already")
        sampler = machine.Sampler(Path(self._work_dir or tempfile.gettempdir()))
        self._session = Session(
            self.urls,
            self._who,
            self._describe,
            lambda changed: Slot(self.worker_id, self._handlers, self._work_dir, sampler, changed),
            sampler=sampler,
            heartbeat_seconds=self._heartbeat_seconds,
            cut_off_seconds=self._cut_off_seconds,
            tls=self._tls,
            registered=lambda url: self.on_registered(url),
        )
        try:
            await self._session.serve()
        finally:
            self._session = None

    def stop(self) -> None:
        """Have :meth:`serve` end: what runs is stopped, and what has ended is handed in."""
        if self._session is not None:
            self._session.stop()

    def _describe(self) -> dict[str, Any]:
        """The message by which it registers. The machine is looked at once: that can take seconds."""
        if self._capabilities is None:
            self._capabilities = machine.capabilities(self.hostname, self._hardware)
        return {
            "type": "register",
            "worker_id": self.worker_id,
            "hostname": self.hostname,
            "capabilities": self._capabilities,
            "kinds": kinds(self._handlers),
            "tags": self._tags,
        }
