"""The one place in which a worker runs tasks, and the results that it has yet to hand in."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Optional, Union

from .jobs import Handler, Job, Outcome, TaskError, conclude
from .machine import Sampler

log = logging.getLogger("labmesh.worker")

RESULT_BYTES_MAX = 64 << 10
"""Of a result as JSON. The mesh keeps no more of one."""
ERROR_CHARS_MAX = 2000

Message = dict[str, Any]
Handlers = Mapping[tuple[str, Optional[str]], Handler]
"""By the type of a task and, where one is for a name alone, the ``name`` in its config."""


class Slot:
    """Runs one job at a time. It sends nothing: ``changed`` is called when there is something to tell.

    ``changed(True)`` means now, ``changed(False)`` when it suits.
    """

    def __init__(
        self,
        worker_id: str,
        handlers: Handlers,
        work_dir: Optional[Union[str, Path]],
        sampler: Sampler,
        changed: Callable[[bool], None],
    ) -> None:
        self.results: dict[str, Message] = {}
        """By task: results that the mesh is not known to have."""
        self.stopped: Optional[str] = None
        """The task that was cancelled last, until it has been told."""
        self._worker_id = worker_id
        self._handlers = handlers
        self._work_dir = work_dir
        self._sampler = sampler
        self._changed = changed
        self._job: Optional[Job] = None
        self._task: Optional[asyncio.Task[None]] = None

    @property
    def running(self) -> Optional[str]:
        """The id of the task under way."""
        return self._job.task_id if self._job is not None else None

    def holds(self) -> Optional[Message]:
        """What a heartbeat says of the task that is held. A result is held until it has arrived."""
        if self._job is not None:
            return {"task_id": self._job.task_id, "status": "running", "progress": self._job.percent or 0.0}
        for task_id in self.results:
            return {"task_id": task_id, "status": "running", "progress": 100.0}
        return None

    def execute(self, said: Message) -> None:
        """Begin a task as a node describes it.

        What runs is given up for another task: the mesh knows of no more than one. The same task
        again is not begun again, nor is one that was completed, and of which nobody has heard yet.
        """
        task_id = said["task_id"]
        if self._job is not None and self._job.task_id == task_id and not self._job.cancelled:
            return
        if self.results.get(task_id, {}).get("status") == "completed":
            self._changed(True)
            return
        self.results.pop(task_id, None)
        before = self._task
        if before is not None and self._job is not None:
            log.warning("task %s takes the place of %s, of which the mesh has let go", task_id, self._job.task_id)
            self._stop()
        loop = asyncio.get_running_loop()

        def told() -> None:
            if not loop.is_closed():  # a function may outlive the worker
                loop.call_soon_threadsafe(self._changed, False)

        config, env = said.get("config"), said.get("env")
        self._job = Job(
            task_id=task_id,
            type=str(said.get("task_type") or ""),
            config=config if isinstance(config, Mapping) else {},
            directory=Path(),
            worker_id=self._worker_id,
            env=_texts(env),
            told=told,
        )
        timeout = said.get("timeout_seconds")
        seconds = float(timeout) if isinstance(timeout, (int, float)) and timeout > 0 else None
        self._task = asyncio.ensure_future(self._work(self._job, seconds, before))
        self._task.add_done_callback(self._over)

    def cancel(self, task_id: str, why: str) -> None:
        """Stop a task, and forget what came of it."""
        if self.running == task_id:
            log.info("task %s is cancelled: %s", task_id, why)
            self.stopped = task_id
            self._stop()
            return
        if self.results.pop(task_id, None) is not None:
            log.info("the result of task %s is not wanted any more: %s", task_id, why)
        self._changed(True)  # a node may wait to hear that it does not run

    def arrived(self, task_id: str) -> None:
        """The mesh has the result of a task."""
        self.results.pop(task_id, None)

    async def end(self, seconds: float) -> None:
        """Stop what runs, and wait until it has ended, but for a function that does not look."""
        if self._task is not None:
            self._stop()
            await asyncio.wait({self._task}, timeout=seconds)

    def _stop(self) -> None:
        if self._job is not None and self._task is not None:
            self._job.stopped.set()
            self._task.cancel()

    def _over(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.error("a task broke the worker's own code", exc_info=task.exception())
        if task is self._task:
            self._job = self._task = None
        self._changed(True)

    async def _work(self, job: Job, seconds: Optional[float], before: Optional[asyncio.Task[None]]) -> None:
        """Run a job, once the one before it has ended, and keep what comes of it."""
        if before is not None:
            await asyncio.wait({before})
        log.info("task %s begins", job.task_id)
        began = time.monotonic()
        outcome = await self._outcome(job, seconds)
        log.info("task %s is %s after %.3f s", job.task_id, outcome.status, time.monotonic() - began)
        self.results[job.task_id] = self._message(job, outcome, time.monotonic() - began)

    async def _outcome(self, job: Job, seconds: Optional[float]) -> Outcome:
        loop = asyncio.get_running_loop()
        try:
            job.directory = Path(tempfile.mkdtemp(prefix="labmesh-task-", dir=self._work_dir))
        except OSError as e:
            return Outcome("failed", None, f"there is no directory for the task: {e}", "disk")
        try:
            return await asyncio.wait_for(conclude(self._handler(job), job), seconds)
        except asyncio.TimeoutError:
            return Outcome("timed_out", None, f"the attempt ran past its timeout of {seconds:g} s", "timeout")
        finally:
            clear = loop.run_in_executor(None, lambda: shutil.rmtree(job.directory, ignore_errors=True))
            await asyncio.shield(clear)

    def _handler(self, job: Job) -> Handler:
        name = job.config.get("name")
        for key in ((job.type, name if isinstance(name, str) else None), (job.type, None)):
            if key in self._handlers:
                return self._handlers[key]

        async def refuse(_: Job) -> Any:
            raise TaskError(
                f"this worker has nothing for {job.type or 'tasks without a type'}: it runs {', '.join(kinds(self._handlers))}", cause="program"
            )

        return refuse

    def _message(self, job: Job, outcome: Outcome, seconds: float) -> Message:
        message: Message = {
            "type": "task_result",
            "worker_id": self._worker_id,
            "task_id": job.task_id,
            "status": outcome.status,
            "execution_time_seconds": round(seconds, 6),
            "hardware_metrics": self._sampler.sample(),
        }
        if outcome.status != "completed":
            message["error"] = outcome.error[:ERROR_CHARS_MAX] or "it failed and did not say why"
            message["cause"] = outcome.cause
        try:
            result = plain(outcome.result)
        except (ValueError, TypeError, RecursionError) as e:
            message["status"], message["error"], message["cause"] = "failed", f"the result cannot be written as JSON: {e}", "exit"
            return message
        if result is not None:
            message["result"] = result
        return message


def kinds(handlers: Handlers) -> list[str]:
    """The types of task that there are handlers for."""
    return sorted({type for type, _ in handlers})


def plain(result: Any) -> Any:
    """A result as JSON has it; of one that is too large, how large it was."""
    text = json.dumps(result, allow_nan=False)
    if len(text) > RESULT_BYTES_MAX:
        return {"truncated": True, "bytes": len(text)}
    return json.loads(text)


def _texts(said: Any) -> dict[str, str]:
    """Variables of an environment that a node gives with a task."""
    if not isinstance(said, Mapping):
        return {}
    return {k: v for k, v in said.items() if isinstance(k, str) and isinstance(v, str) and not k.startswith("LABMESH_")}
