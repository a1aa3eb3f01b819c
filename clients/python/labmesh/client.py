"""The client: what a program asks of the mesh."""

from __future__ import annotations

import http.client
import os
import ssl
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Any, List, Optional, Union
from urllib.parse import quote

from .discovery import URLs, discover
from .errors import InternalError, InvalidError, TaskFailedError, UnavailableError, WaitTimeoutError
from .logs import LogFrame, LogReader, Stream, lines_of
from .transport import Transport, encode
from .types import (
    Artifact,
    Artifacts,
    QueryResult,
    Status,
    Submitted,
    Task,
    TaskSpec,
    TaskSummary,
    Worker,
    artifacts_of,
    query_of,
    status_of,
    summary_of,
    task_of,
    worker_of,
)

TaskRef = Union[str, Submitted, TaskSummary]
"""A task: by its id, or as a method of the client gave it."""

BATCH_TASKS_MAX = 10_000
BATCH_BYTES_GOAL = 48 << 20
"""Of tasks in one request: below what the API takes, with room for what is around them."""

POLL_SECONDS_MIN = 0.05
POLL_SECONDS_MAX = 1.0
QUERY_SECONDS_MAX = 600.0
FETCH_SECONDS = 600.0
"""For an answer that may have to come from another machine over a thin line."""


class Client:
    """A client of one mesh, through one or several of its nodes.

    ``Client()`` finds the node of this machine and its key as the command line
    does: ``LABMESH_ADDR`` and ``LABMESH_API_KEY``, else the ``api.json`` in ``data_dir``,
    ``LABMESH_DATA_DIR`` or the usual place. With several addresses the next one is
    asked when one does not answer.

    ``patience`` is for how many seconds a request is repeated while the mesh has no
    leader, its queue is full, or a node that answered before is gone. A submit
    that is repeated makes no second task. The client may be used by many threads.
    """

    def __init__(
        self,
        url: Optional[URLs] = None,
        api_key: Optional[str] = None,
        *,
        data_dir: Optional[Union[str, Path]] = None,
        patience: float = 10.0,
        timeout: float = 60.0,
        ssl_context: Optional[ssl.SSLContext] = None,
    ) -> None:
        found = discover(url, api_key, data_dir)
        self._transport = Transport(
            found.urls, found.api_key, patience=patience, timeout=timeout, ssl_context=ssl_context, source=found.source
        )

    @property
    def url(self) -> str:
        """The address of the node that is asked first."""
        return self._transport.url

    # Tasks.

    def submit(self, task: TaskSpec) -> Submitted:
        """Bring a task into the mesh. When this returns, it is there to stay."""
        said = self._transport.call("POST", "/api/tasks", body=_keyed(task, str(uuid.uuid4())))
        return Submitted(said["task_id"], bool(said.get("created", True)), said.get("message", ""))

    def submit_batch(self, tasks: Iterable[TaskSpec]) -> List[str]:
        """Bring many tasks into the mesh, and give their ids in the same order.

        They go in as few requests as the limits of the API allow; each of these is all or nothing.
        """
        ids: List[str] = []
        for body in _batches(tasks):
            ids += self._transport.call("POST", "/api/tasks/batch", body=body)["task_ids"]
        return ids

    def get(self, task: TaskRef) -> Task:
        """A task in full, with its result and its attempts."""
        return task_of(self._transport.call("GET", _task_path(task)))

    def list(
        self,
        *,
        status: Optional[str] = None,
        type: Optional[str] = None,
        worker_id: Optional[str] = None,
        limit: Optional[int] = None,
    ) -> Iterator[TaskSummary]:
        """Tasks in the order of their submits, fetched page by page; at most ``limit`` of them."""
        query = {"status": status, "type": type, "worker_id": worker_id}
        asked = {name: value for name, value in query.items() if value is not None}
        left = limit
        while left is None or left > 0:
            asked["limit"] = str(1000 if left is None else min(left, 1000))
            page = self._transport.call("GET", "/api/tasks", query=asked)
            for said in page["tasks"]:
                yield summary_of(said)
            if left is not None:
                left -= len(page["tasks"])
            if not page.get("next_cursor"):
                return
            asked["cursor"] = page["next_cursor"]

    def cancel(self, task: TaskRef, reason: str = "") -> None:
        """Say that a task is wanted no more. To do so twice is no error."""
        try:
            self._transport.call("POST", _task_path(task) + "/cancel", body={"reason": reason} if reason else {})
        except InvalidError:
            if self.get(task).status != "cancelled":
                raise

    def why(self, task: TaskRef) -> str:
        """Why the task is where it is, above all why it waits, in a sentence."""
        return str(self._transport.call("GET", _task_path(task) + "/why")["summary"])

    def wait(self, task: TaskRef, timeout: Optional[float] = None, *, check: bool = False) -> Task:
        """Wait until the task has ended, and give it in full.

        After ``timeout`` seconds it raises :class:`WaitTimeoutError`, and the task goes on. With
        ``check`` it raises :class:`TaskFailedError` for a task that ended but is not completed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = POLL_SECONDS_MIN
        while True:
            seen = self.get(task)
            if seen.done:
                break
            left = float("inf") if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeoutError(f"task {seen.task_id} is {seen.status} after {timeout:g} s; it goes on")
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, POLL_SECONDS_MAX)
        if check and not seen.ok:
            raise TaskFailedError(seen)
        return seen

    def wait_all(self, tasks: Iterable[TaskRef], timeout: Optional[float] = None, *, check: bool = False) -> List[Task]:
        """Wait until all the tasks have ended, and give them in the same order."""
        deadline = None if timeout is None else time.monotonic() + timeout
        return [self.wait(t, None if deadline is None else max(deadline - time.monotonic(), 0), check=check) for t in tasks]

    def run(self, task: TaskSpec, timeout: Optional[float] = None) -> Task:
        """Submit a task, wait for it, and raise :class:`TaskFailedError` unless it completes."""
        return self.wait(self.submit(task), timeout, check=True)

    # What tasks leave.

    def logs(
        self, task: TaskRef, *, stream: Stream = "stdout", follow: bool = False, attempt: Optional[int] = None
    ) -> Iterator[str]:
        """The lines that a task printed, each with its end.

        With ``follow`` it goes on until the task ends, also when it has not started yet.
        ``attempt`` is one attempt and no other; without it the newest and, when following, those
        that come. Lines ``[labmesh: …]`` say where output is missing or another attempt begins.
        """
        return lines_of(self.log_frames(task, stream=stream, follow=follow, attempt=attempt))

    def log_frames(
        self, task: TaskRef, *, stream: Stream = "stdout", follow: bool = False, attempt: Optional[int] = None
    ) -> Iterator[LogFrame]:
        """The same as it comes, in bytes that know their place."""
        return iter(LogReader(self._transport, _task_path(task) + "/logs", stream, follow=follow, attempt=attempt))

    def artifacts(self, task: TaskRef, *, attempt: Optional[int] = None) -> Artifacts:
        """The files that an attempt left: ``attempt``, or the newest that left any."""
        return artifacts_of(
            self._transport.call("GET", _task_path(task) + "/artifacts", query=_of_attempt(attempt), timeout=FETCH_SECONDS)
        )

    def open_artifact(self, task: TaskRef, path: str, *, attempt: Optional[int] = None) -> IO[bytes]:
        """One of these files, to be read and closed."""
        target = f"{_task_path(task)}/artifacts/{quote(path)}"
        return self._transport.open(target, query=_of_attempt(attempt), timeout=FETCH_SECONDS)

    def download(
        self,
        task: TaskRef,
        directory: Union[str, Path],
        pattern: str = "*",
        *,
        attempt: Optional[int] = None,
    ) -> List[Path]:
        """Write the files that an attempt left into a directory, and say which.

        ``pattern`` is matched against the whole path, and ``*`` also takes slashes.
        Each file is whole or not there. What labmesh itself keeps, below ``.labmesh/``, is left out unless
        the pattern begins with that. A symbolic link that leads out of the directory is refused.
        """
        listed = self.artifacts(task, attempt=attempt)
        root = Path(directory)
        own = pattern.startswith(".labmesh/")
        chosen = [f for f in listed.files if fnmatchcase(f.path, pattern) and (own or not f.path.startswith(".labmesh/"))]
        chosen.sort(key=lambda f: f.link is not None)  # no file is written through a link
        return [self._download(task, f, root, listed.attempt) for f in chosen]

    def _download(self, task: TaskRef, file: Artifact, root: Path, attempt: int) -> Path:
        target = root / _safe(file.path)
        if not _inside(target.parent, root):
            raise InvalidError(f"{target} is not written: a link leads out of {root}")
        if file.directory:
            target.mkdir(parents=True, exist_ok=True)
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            if file.link is not None:
                if os.path.isabs(file.link) or not _inside(target.parent / file.link, root):
                    raise InvalidError(f"{target} is not made: it is a link to {file.link}, out of {root}")
                part.symlink_to(file.link)
            else:
                self._fetch(task, file, part, attempt)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
        return target

    def _fetch(self, task: TaskRef, file: Artifact, part: Path, attempt: int) -> None:
        size = 0
        with self.open_artifact(task, file.path, attempt=attempt) as source, part.open("wb") as sink:
            try:
                while True:
                    data = source.read(1 << 20)
                    if not data:
                        break
                    size += len(data)
                    sink.write(data)
            except http.client.HTTPException as e:
                raise UnavailableError(f"{file.path} broke off after {size} of its {file.bytes} bytes: {e}") from None
        if size != file.bytes:
            raise InternalError(f"{file.path} came with {size} bytes, and has {file.bytes}")
        if file.executable:
            part.chmod(part.stat().st_mode | 0o111)

    # The mesh.

    def status(self) -> Status:
        """The mesh at a glance; also when it has no leader."""
        return status_of(self._transport.call("GET", "/status"))

    def workers(self) -> List[Worker]:
        """All workers."""
        return [worker_of(w) for w in self._transport.call("GET", "/api/workers")["workers"]]

    def worker(self, worker_id: str) -> Worker:
        """One worker, with its capabilities in full."""
        return worker_of(self._transport.call("GET", "/api/workers/" + quote(worker_id, safe="")))

    def query(self, sql: str, *, timeout: Optional[float] = None, max_rows: Optional[int] = None) -> QueryResult:
        """Ask the ledger by one read-only SQL statement (DuckDB's)."""
        body: dict[str, Any] = {"sql": sql}
        if timeout is not None:
            body["timeout_seconds"] = timeout
        if max_rows is not None:
            body["max_rows"] = max_rows
        wait = min(timeout or QUERY_SECONDS_MAX, QUERY_SECONDS_MAX) + 30
        return query_of(self._transport.call("POST", "/api/query", body=body, timeout=wait))


def _task_path(task: TaskRef) -> str:
    name = task if isinstance(task, str) else task.task_id
    if not name:
        raise InvalidError("the id of the task is empty", field="task_id")
    return "/api/tasks/" + quote(name, safe="")


def _of_attempt(attempt: Optional[int]) -> Optional[Mapping[str, str]]:
    return None if attempt is None else {"attempt": str(attempt)}


def _keyed(task: TaskSpec, key: str) -> dict[str, Any]:
    """The task with an idempotency key, so that it may be sent twice."""
    if not isinstance(task, Mapping):
        raise InvalidError(f"a task is a dictionary with type and config, not {type(task).__name__}")
    body: dict[str, Any] = dict(task)
    if not body.get("idempotency_key"):
        body["idempotency_key"] = key
    return body



def _batches(tasks: Iterable[TaskSpec]) -> Iterator[dict[str, Any]]:
    """Bodies of batch requests, each within the limits of the API."""
    base, size = uuid.uuid4(), 0
    batch: List[dict[str, Any]] = []
    for n, task in enumerate(tasks):
        body = _keyed(task, f"{base}.{n}")
        length = len(encode(body))
        if batch and (len(batch) == BATCH_TASKS_MAX or size + length > BATCH_BYTES_GOAL):
            yield {"tasks": batch}
            batch, size = [], 0
        batch.append(body)
        size += length
    if batch:
        yield {"tasks": batch}


def _safe(path: str) -> PurePosixPath:
    """A path of the mesh, if it stays below where it is put."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\0" in path:
        raise InvalidError(f"the mesh names a file {path!r}, which leads out of the directory")
    return pure


def _inside(path: Path, root: Path) -> bool:
    real, top = os.path.realpath(path), os.path.realpath(root)
    return real == top or real.startswith(top.rstrip(os.sep) + os.sep)
