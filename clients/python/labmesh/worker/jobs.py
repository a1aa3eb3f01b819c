"""What a worker runs: jobs, and the handlers that come with it for programs and tests."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import os
import re
import sys
import threading
import traceback
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional, Union

from . import programs

TRACEBACK_CHARS_MAX = 8000
NO_TESTS = 5
"""Exit code of pytest, and of unittest since Python 3.12, when there were no tests."""


class TaskError(Exception):
    """A handler raises it when the task failed by its own fault; ``result`` is kept with it.

    ``cause`` is a word of the mesh's: ``exit`` (the work itself failed; the default), ``signal``,
    ``program`` (what should run is not here) or ``config`` (the task makes no sense).
    """

    def __init__(self, message: str, result: Any = None, *, cause: str = "exit") -> None:
        super().__init__(message)
        self.result = result
        self.cause = cause


@dataclass
class Job:
    """A task as its handler sees it."""

    task_id: str
    type: str
    config: Mapping[str, Any]
    directory: Path
    """Its own, empty at the start and removed when it has ended."""
    worker_id: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    """What the programs that it runs find in their environment besides the usual."""
    percent: Optional[float] = None
    """How far it is, as :meth:`progress` was told last."""
    stopped: threading.Event = field(default_factory=threading.Event, repr=False)
    told: Callable[[], None] = field(default=lambda: None, repr=False)

    @property
    def cancelled(self) -> bool:
        """Whether the mesh wants it no more. A plain function looks at this now and
        then; one that is ``async`` gets ``asyncio.CancelledError`` instead."""
        return self.stopped.is_set()

    def wait_cancelled(self, seconds: float) -> bool:
        """Sleep, but not beyond a cancel; says whether there was one. For plain functions."""
        return self.stopped.wait(seconds)

    def progress(self, percent: float) -> None:
        """Say how far it is, from 0 to 100. The mesh hears of it within a second or so."""
        self.percent = min(max(float(percent), 0.0), 100.0)
        self.told()


Handler = Union[Callable[[Job], Any], Callable[[Job], Awaitable[Any]]]
"""Runs a job. What it returns is the result, as JSON; what it raises is the error."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    status: str
    """completed, failed or timed_out."""
    result: Any = None
    error: str = ""
    cause: str = ""


async def conclude(handler: Handler, job: Job) -> Outcome:
    """Run a handler and catch what it raises, but for a cancel."""
    try:
        return Outcome("completed", await _call(handler, job))
    except TaskError as e:
        return Outcome("failed", e.result, str(e), e.cause)
    except Exception as e:
        said = "".join(traceback.format_exception(type(e), e, e.__traceback__))
        return Outcome("failed", {"traceback": said[-TRACEBACK_CHARS_MAX:]}, f"{type(e).__name__}: {e}", "exit")


async def _call(handler: Handler, job: Job) -> Any:
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None)):
        return await handler(job)
    return await _in_thread(handler, job)


async def _in_thread(handler: Handler, job: Job) -> Any:
    """Run a plain function beside the loop. A cancel waits until the function has seen it.

    The thread is a daemon, so that one which never looks does not keep the worker from ending.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: Optional[BaseException]) -> None:
        if ended.done():
            return
        if error is None:
            ended.set_result(result)
        else:
            ended.set_exception(error)

    def work() -> None:
        result: Any = None
        error: Optional[BaseException] = None
        try:
            result = handler(job)
        except StopIteration as e:  # a future cannot hold one
            error = RuntimeError(f"the handler raised {e!r}")
        except BaseException as e:  # SystemExit too: it ends the job and not the worker
            error = e if isinstance(e, Exception) else RuntimeError(f"the handler raised {e!r}")
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            pass  # the worker has ended before

    threading.Thread(target=work, name=f"task {job.task_id}", daemon=True).start()
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        job.stopped.set()
        await asyncio.wait({ended})
        if not ended.cancelled():
            ended.exception()  # looked at: nobody wants it
        raise


async def run_custom(job: Job) -> dict[str, Any]:
    """Run the program ``name`` with ``args``; its exit code is the verdict. There is no shell
    unless ``shell`` is true: then ``name`` is a script for ``/bin/sh``."""
    config = _checked(job.config, {"name": str, "args": list, "shell": bool, "dir": str, "umask": str, "stdin": str, "grace_seconds": (int, float)})
    name, args = config.get("name"), config.get("args") or []
    if not name:
        raise TaskError("config: name: it is missing: give the program to run", cause="config")
    if not all(isinstance(a, str) for a in args):
        raise TaskError("config: args: it must be a list of texts", cause="config")
    argv = ["/bin/sh", "-c", name, "sh", *args] if config.get("shell") else [name, *args]
    return await _verdict(
        job,
        argv,
        job.directory / config.get("dir", ""),
        stdin=config.get("stdin", "").encode("utf-8", "replace"),
        umask=_umask(config.get("umask", "")),
        grace=float(config.get("grace_seconds") or programs.GRACE_SECONDS),
    )


async def run_test(job: Job) -> dict[str, Any]:
    """Run the test file ``test_file`` with ``test_args``: by pytest if this Python has it, else by
    unittest; what is not Python must be executable. A relative path is from where the worker was started."""
    if "framework" in job.config:
        raise TaskError("this worker runs test files, not parts of suites: give requirements that only nodes meet, e.g. tags", cause="config")
    config = _checked(job.config, {"test_file": str, "test_args": list, "dir": str, "umask": str})
    said, args = config.get("test_file"), config.get("test_args") or []
    if not said:
        raise TaskError("config: test_file: it is missing: give the file to test", cause="config")
    if not all(isinstance(a, str) for a in args):
        raise TaskError("config: test_args: it must be a list of texts", cause="config")
    name, _, node = said.partition("::")
    file = Path(name).absolute()
    if not file.exists():
        raise TaskError(f"config: test_file: there is no {file} on this machine", cause="program")
    runner, argv = choose(file, node, args)
    directory = file if file.is_dir() else file.parent
    place = Path(directory, config.get("dir", ""))
    return await _verdict(job, argv, place, runner=runner, umask=_umask(config.get("umask", "")))


def choose(file: Path, node: str, args: list[str]) -> tuple[str, list[str]]:
    """How a test file is run: the name of what runs it, and the command."""
    python = os.environ.get("LABMESH_PYTHON") or sys.executable
    named = bool(node) or file.is_dir() or file.name.startswith("test_") or file.name.endswith("_test.py")
    if file.suffix == ".py" or file.is_dir():
        base = "." if file.is_dir() else file.name
        if named and importlib.util.find_spec("pytest"):
            target = f"{base}::{node}" if node else base
            return "pytest", [python, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", *args, target]
        if file.is_dir():
            return "unittest", [python, "-m", "unittest", "discover", *args]
        if named:
            target = f"{file.stem}.{node.replace('::', '.')}" if node else file.name
            return "unittest", [python, "-m", "unittest", target, *args]
        return "python", [python, base, *args]
    if os.access(file, os.X_OK):
        return "program", [str(file), *args]
    raise TaskError(f"config: test_file: {file} is no Python file and not executable: nothing here can run it", cause="program")


async def _verdict(
    job: Job,
    argv: list[str],
    directory: Path,
    *,
    runner: str = "",
    stdin: bytes = b"",
    umask: int = -1,
    grace: float = programs.GRACE_SECONDS,
) -> dict[str, Any]:
    """Run a program and make of its end a result, or an error that holds one."""
    scratch = job.directory / "tmp"
    scratch.mkdir(exist_ok=True)
    env = {"TMPDIR": str(scratch), **job.env, "LABMESH_TASK_ID": job.task_id, "LABMESH_WORKER_ID": job.worker_id}
    if runner in ("pytest", "unittest", "python"):
        env = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", **env}
    try:
        ended = await programs.run(argv, directory=directory, env=env, stdin=stdin, umask=umask, grace=grace)
    except FileNotFoundError as e:
        if not directory.is_dir():
            raise TaskError(f"config: dir: there is no directory {directory} on this machine", cause="program") from None
        raise TaskError(f"there is no program {e.filename or argv[0]} on this machine", cause="program") from None
    except (OSError, ValueError) as e:
        raise TaskError(f"{argv[0]} cannot be run on this machine: {e}", cause="program") from None
    result = _result(runner, ended)
    error = _fault(runner, ended)
    if error:
        raise TaskError(error, result, cause="signal" if ended.signal else "exit")
    return result


def _result(runner: str, ended: programs.Ended) -> dict[str, Any]:
    result: dict[str, Any] = {"exit_code": ended.code}
    if runner:
        result["runner"] = runner
    if ended.signal:
        result["exit_code"], result["signal"] = -1, ended.signal
    for name, kept in (("stdout", ended.stdout), ("stderr", ended.stderr)):
        result[name], result[name + "_bytes"] = kept.text, kept.bytes
        if kept.truncated:
            result[name + "_truncated"] = True
    if runner == "pytest":
        summary = _pytest_summary(ended.stdout.text)
        if summary:
            result["summary"] = summary
    return result


def _fault(runner: str, ended: programs.Ended) -> str:
    """What a program's end says was wrong, in words; empty when all is well."""
    code, tests = ended.code, runner in ("pytest", "unittest")
    if ended.signal:
        return f"the program was killed by {ended.signal}"
    if tests and code == NO_TESTS or runner == "unittest" and code == 0 and "Ran 0 tests" in ended.stderr.text:
        return "no tests were found in the file"
    if runner == "pytest" and code == 2:
        return "the test run was interrupted, or a file could not be imported (pytest exit code 2)"
    if runner == "pytest" and code == 4:
        return "pytest did not understand its arguments, or found no such test (exit code 4)"
    if code and runner:
        return f"tests failed (exit code {code})"
    return f"the program ended with exit code {code}" if code else ""


_COUNTS = re.compile(r"^=* ?((?:\d+ [a-z]+, )*\d+ (?:passed|failed|errors?|skipped|deselected|xfailed|xpassed|warnings?)\b.*?|no tests ran.*?) ?=*$")


def _pytest_summary(printed: str) -> str:
    """The line of counts at the end of what pytest printed."""
    for line in reversed(printed.splitlines()):
        match = _COUNTS.match(line.strip())
        if match:
            return match.group(1)
    return ""


def _checked(config: Mapping[str, Any], kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The config without its nulls, if it has only these fields, of these types."""
    given = {name: value for name, value in config.items() if value is not None}
    for name, value in given.items():
        if name not in kinds:
            raise TaskError(f"config: {name}: there is no such field", cause="config")
        right = isinstance(value, kinds[name]) and (kinds[name] is bool or not isinstance(value, bool))
        if not right:
            raise TaskError(f"config: {name}: it is of another type than it should be", cause="config")
    return given


def _umask(text: str) -> int:
    if not text:
        return -1
    if not re.fullmatch("0?[0-7]{1,3}", text):
        raise TaskError(f'config: umask: {text[:20]!r} is none: give it as octal digits, e.g. "022"', cause="config")
    return int(text, 8)
