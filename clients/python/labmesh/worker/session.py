"""The worker on the wire: it stays connected, takes tasks, and hands in what came of them.

A node sends one task over one connection. So the next connection is made as soon as a task
has come, while the task runs; the one before is left once nothing is expected over it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Sequence
from typing import Any, Callable, Optional

from ..errors import DeniedError
from .link import LOST, Credentials, GoneError, Link, Message
from .machine import Sampler
from .slot import Slot

log = logging.getLogger("labmesh.worker")

PROGRESS_SECONDS = 1.0
"""Between two heartbeats, however often a job says how far it is."""
AGAIN_SECONDS = 15.0
"""Until a result, of which nobody has said that it arrived, is sent again."""
SETTLE_SECONDS = 5.0
"""For answers that are expected over a connection that is left."""
STOP_SECONDS = 8.0
"""For what runs to end when the worker stops."""
BACKOFF_MIN, BACKOFF_MAX = 0.1, 10.0


class Session:
    """Serves one worker, from :meth:`serve` to :meth:`stop`. It belongs to one event loop."""

    def __init__(
        self,
        urls: Sequence[str],
        who: Credentials,
        describe: Callable[[], Message],
        make_slot: Callable[[Callable[[bool], None]], Slot],
        *,
        sampler: Sampler,
        heartbeat_seconds: float,
        cut_off_seconds: Optional[float],
        tls: Optional[ssl.SSLContext],
        registered: Callable[[str], None],
    ) -> None:
        self._urls = urls
        self._who = who
        self._describe = describe
        self._slot = make_slot(self._changed)
        self._sampler = sampler
        self._heartbeat_seconds = heartbeat_seconds
        self._cut_off_seconds = cut_off_seconds
        self._tls = tls
        self._registered = registered
        self._link: Optional[Link] = None
        self._readers: set[asyncio.Task[None]] = set()
        self._sent: dict[str, tuple[Link, float]] = {}  # by task: over which connection its result went last, and when
        self._accepted = False  # the key was good once
        self._last_beat = 0.0
        self._next_beat = 0.0
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Have :meth:`serve` end: what runs is stopped, and what has ended is handed in."""
        self._stopping.set()

    async def serve(self) -> None:
        """Serve until :meth:`stop`. Raises :class:`labmesh.DeniedError` when the key was never good."""
        connecting = asyncio.ensure_future(self._stay_connected())
        others = [asyncio.ensure_future(work) for work in (self._tell(), self._watch(), self._stopping.wait())]
        try:
            await asyncio.wait({connecting, *others}, return_when=asyncio.FIRST_COMPLETED)
            await self._slot.end(STOP_SECONDS)
            await self._until(lambda: not self._slot.results or not self._alive(), SETTLE_SECONDS)
        finally:
            await self._cancel([connecting, *others])
            if self._link is not None:
                await self._link.close()
        for task in (connecting, *others):
            if not task.cancelled() and task.exception() is not None:
                raise task.exception() or AssertionError

    async def _cancel(self, tasks: Sequence[asyncio.Future[Any]]) -> None:
        """End tasks, and the readers. A cancel can be lost in :func:`asyncio.wait_for` before Python 3.12: it is said again."""
        while True:
            left = [task for task in (*tasks, *self._readers) if not task.done()]
            if not left:
                return
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=1)

    def _alive(self) -> bool:
        return self._link is not None and not self._link.over

    # Connections.

    async def _stay_connected(self) -> None:
        at, failures = 0, 0
        while True:
            began = time.monotonic()
            try:
                link = await self._connect(self._urls[at % len(self._urls)])
                await link.leave.wait()
                if link.used:
                    failures = 0
                    continue  # to the same node: there is a task from it
                if time.monotonic() - began > BACKOFF_MAX / 2:
                    failures = 0
            except DeniedError as e:
                if not self._accepted:
                    raise
                log.warning("%s: %s", self._urls[at % len(self._urls)], e)  # a node that starts may not know its keys yet
            except LOST as e:
                log.warning("%s: %s", self._urls[at % len(self._urls)], str(e) or type(e).__name__)
            at, failures = at + 1, failures + 1
            wait = min(BACKOFF_MIN * 2 ** min((failures - 1) // len(self._urls), 10), BACKOFF_MAX)
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))

    async def _connect(self, url: str) -> Link:
        loop = asyncio.get_running_loop()
        register = await loop.run_in_executor(None, self._describe)
        link = await Link.open(url, self._who, register, self._tls)
        self._accepted = True
        before, self._link = self._link, link
        reader = asyncio.ensure_future(self._read(link, before))
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)
        if before is None or not before.used:
            log.info("worker %s is registered at %s", self._who.worker_id, url)
        self._registered(url)
        self._next_beat = 0.0
        self._wake.set()
        return link

    async def _read(self, link: Link, before: Optional[Link]) -> None:
        """Take what a node says over a connection; and leave the one before."""
        leaving = asyncio.ensure_future(self._leave(before)) if before is not None else None
        try:
            async for said in link.messages():
                self._take(link, said)
            if not link.used and link is self._link:
                log.warning("%s closed the connection", link.url)
        except LOST as e:
            log.warning("%s: %s", link.url, str(e) or type(e).__name__)
        finally:
            link.over = True
            link.leave.set()
            self._wake.set()
            if leaving is not None:
                leaving.cancel()
                await asyncio.gather(leaving, return_exceptions=True)
            await link.close()

    async def _leave(self, link: Link) -> None:
        """Close a connection when no answer is expected over it."""
        try:
            await self._until(lambda: link.over or all(way is not link for way, _ in self._sent.values()), SETTLE_SECONDS)
        finally:
            await link.close()

    async def _until(self, done: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not done() and time.monotonic() < deadline:
            await asyncio.sleep(0.02)

    # What a node says.

    def _take(self, link: Link, said: Message) -> None:
        kind, task_id = said.get("type"), said.get("task_id")
        if kind == "error":
            self._told_off(str(said.get("message")))
        elif not isinstance(task_id, str):
            return  # the answer to a heartbeat
        elif kind == "execute_task":
            self._sent.pop(task_id, None)
            self._slot.execute(said)
            link.used = True
            link.leave.set()
        elif kind == "cancel_task":
            self._sent.pop(task_id, None)
            self._slot.cancel(task_id, str(said.get("reason") or "no reason is given"))
        elif kind == "task_result_response":
            self._sent.pop(task_id, None)
            self._slot.arrived(task_id)

    def _told_off(self, message: str) -> None:
        if message in ("Worker not registered", "Authentication required"):
            raise GoneError(message)
        if message.endswith((" not found", " is not assigned to this worker")):
            for task_id in [*self._slot.results, self._slot.running]:
                if task_id is not None and message.startswith(f"Task {task_id} "):
                    self._sent.pop(task_id, None)
                    self._slot.cancel(task_id, message)
                    return
        log.warning("the node says: %s", message)

    # What a node is told.

    def _changed(self, now: bool) -> None:
        """There is something to tell: now, or a little after the last heartbeat."""
        self._next_beat = min(self._next_beat, 0.0 if now else self._last_beat + PROGRESS_SECONDS)
        self._wake.set()

    async def _tell(self) -> None:
        """Send results, each again until it has arrived, and heartbeats."""
        while True:
            link = self._link
            wait = self._heartbeat_seconds
            if link is not None and not link.over:
                try:
                    await self._send_results(link)
                    if time.monotonic() >= self._next_beat:
                        await self._beat(link)
                    wait = max(self._next_beat - time.monotonic(), 0.0)
                except LOST as e:
                    log.warning("%s: %s", link.url, str(e) or type(e).__name__)
                    await link.close()
            try:
                await asyncio.wait_for(self._wake.wait(), min(wait, AGAIN_SECONDS))
            except asyncio.TimeoutError:
                pass
            self._wake.clear()

    async def _send_results(self, link: Link) -> None:
        for task_id, message in list(self._slot.results.items()):
            way = self._sent.get(task_id)
            if way is not None and not way[0].over and time.monotonic() - way[1] < AGAIN_SECONDS:
                continue
            self._sent[task_id] = link, time.monotonic()
            await link.send(message)

    async def _beat(self, link: Link) -> None:
        message: Message = {
            "type": "heartbeat",
            "worker_id": self._who.worker_id,
            "timestamp": int(time.time()),
            "hardware_metrics": self._sampler.sample(),
        }
        held, stopped = self._slot.holds(), self._slot.stopped
        if held is not None:
            message["task_status"] = held
        elif stopped is not None:
            message["task_cancelled"] = {"task_id": stopped}
        self._last_beat = time.monotonic()
        self._next_beat = self._last_beat + self._heartbeat_seconds
        await link.send(message)
        if held is None and self._slot.stopped == stopped:
            self._slot.stopped = None

    async def _watch(self) -> None:
        """Stop what runs when there has been no node for too long: the mesh runs it elsewhere by then."""
        last = time.monotonic()
        while self._cut_off_seconds is not None:
            await asyncio.sleep(min(1.0, self._cut_off_seconds / 4))
            if self._alive():
                last = time.monotonic()
            elif time.monotonic() - last > self._cut_off_seconds and self._slot.running is not None:
                self._slot.cancel(self._slot.running, f"there has been no node for {self._cut_off_seconds:g} s")
        await asyncio.Event().wait()
