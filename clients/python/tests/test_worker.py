import asyncio
import json
import os
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any, Awaitable, Callable

try:
    import websockets  # noqa: F401
except ImportError:
    raise unittest.SkipTest("the package websockets is not there (Debian: python3-websockets)") from None

import labmesh
from labmesh import signing
from labmesh.worker import Job, TaskError, Worker, link, session

from .fake_mesh import FakeMesh

SAID_NO = '{"type":"register_response","status":"error"}'  # of no registration that is asked for
FAST = {"heartbeat_seconds": 0.1, "worker_id": "w"}


def alive(pid: int) -> bool:
    """Whether a process is there and is more than what waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


class WorkerTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        for name, value in (("PROGRESS_SECONDS", 0.05), ("AGAIN_SECONDS", 0.3), ("SETTLE_SECONDS", 0.5), ("BACKOFF_MIN", 0.01)):
            self.addCleanup(setattr, session, name, getattr(session, name))
            setattr(session, name, value)
        self.mesh = await FakeMesh().start()
        self.addAsyncCleanup(self.mesh.stop)
        held = tempfile.TemporaryDirectory()
        self.addCleanup(held.cleanup)
        self.dir = Path(held.name)

    async def serve(self, *urls: str, key: str = "key", **options: Any) -> Worker:
        worker = Worker(list(urls) or self.mesh.url, key, work_dir=self.dir, **{**FAST, **options})
        self.start(worker)
        return worker

    def start(self, worker: Worker) -> "asyncio.Task[None]":
        serving = asyncio.ensure_future(worker.serve())

        async def end() -> None:
            worker.stop()
            await asyncio.wait_for(serving, 20)

        self.addAsyncCleanup(end)
        return serving

    async def ask(self, task_type: str, config: Any, **more: Any) -> dict[str, Any]:
        """Have the worker run a task over its newest connection."""
        connection = await self.mesh.next()
        await connection.execute("t1", task_type, config, **more)
        return await self.mesh.result("t1")


class Protocol(WorkerTest):
    async def test_it_says_who_it_is_and_what_it_has(self) -> None:
        await self.serve(hardware=["tpu"], tags={"site": "lab"})
        connection = await self.mesh.next()
        self.assertEqual(self.mesh.auths, [{"type": "auth", "auth_type": "api_key", "api_key": "key", "worker_id": "w"}])
        register = self.mesh.registers[0]
        self.assertEqual((register["worker_id"], register["kinds"], register["tags"]), ("w", ["custom", "test"], {"site": "lab"}))
        self.assertEqual(register["capabilities"]["hardware"][0], "cpu")
        self.assertIn("tpu", register["capabilities"]["hardware"])
        self.assertGreater(register["capabilities"]["cpu"]["threads"], 0)
        for _ in range(2):
            beat = await connection.expect("heartbeat")
            self.assertEqual(beat["worker_id"], "w")
            self.assertNotIn("task_status", beat)
            self.assertGreaterEqual(beat["hardware_metrics"]["disk_free_gb"], 0)

    async def test_a_wrong_key_is_the_end(self) -> None:
        serving = asyncio.ensure_future(Worker(self.mesh.url, "wrong", **FAST).serve())
        with self.assertRaisesRegex(labmesh.DeniedError, "Invalid API key"):
            await asyncio.wait_for(serving, 15)

    async def test_it_comes_back_by_its_token_and_without_one_by_its_key(self) -> None:
        await self.serve()
        await (await self.mesh.next()).close()
        connection = await self.mesh.next()
        self.mesh.tokens.clear()
        await connection.close()
        await self.mesh.next()
        self.assertEqual([a["auth_type"] for a in self.mesh.auths], ["api_key", "token", "token", "api_key"])

    async def test_one_task_comes_over_each_connection(self) -> None:
        await self.serve()
        for n in range(3):
            connection = await self.mesh.next()
            await connection.execute(f"t{n}", "custom", {"name": "sh", "args": ["-c", "sleep 0.2; echo hi"]})
            after = await self.mesh.next()
            beat = await after.expect("heartbeat")
            self.assertEqual(beat["task_status"], {"task_id": f"t{n}", "status": "running", "progress": 0.0})
            said = await self.mesh.result(f"t{n}")
            self.assertEqual((said["status"], said["result"]["stdout"]), ("completed", "hi\n"))
            await connection.gone()
            self.mesh.connections.put_nowait(after)
        self.assertEqual({a["auth_type"] for a in self.mesh.auths[1:]}, {"token"})

    async def test_a_result_is_said_until_it_has_arrived(self) -> None:
        await self.serve()
        connection = await self.mesh.next()
        await connection.execute("t1", "custom", {"name": "true"})
        await self.mesh.result("t1", ack=False)
        connection = await self.mesh.next()
        self.assertEqual((await connection.expect("heartbeat", lambda b: "task_status" in b))["task_status"]["task_id"], "t1", "it is still held")
        await self.mesh.result("t1", ack=False)
        await connection.close()
        connection = await self.mesh.next()
        await self.mesh.result("t1")
        for _ in range(5):
            beat = await connection.expect("heartbeat")
            if "task_status" not in beat:
                return
        self.fail("the task is held after its result has arrived")

    async def test_a_result_goes_to_another_node(self) -> None:
        other = await FakeMesh().start()
        self.addAsyncCleanup(other.stop)
        await self.serve(self.mesh.url, other.url)
        connection = await self.mesh.next()
        await connection.execute("t1", "custom", {"name": "sleep", "args": ["0.3"]})
        await self.mesh.stop()
        there = await other.next()
        self.assertEqual(there.auth["auth_type"], "token")
        self.assertEqual((await other.result("t1"))["status"], "completed")

    async def test_a_result_that_is_not_wanted_is_forgotten(self) -> None:
        await self.serve()
        connection = await self.mesh.next()
        await connection.execute("t1", "custom", {"name": "true"})
        await self.mesh.result("t1", ack=False)
        after = await self.mesh.next()
        await after.send(type="error", message="Task t1 is not assigned to this worker")
        await after.expect("heartbeat", lambda b: "task_status" not in b)

    async def test_the_same_task_again_is_not_begun_again(self) -> None:
        await self.serve()
        connection = await self.mesh.next()
        for _ in range(2):
            await connection.execute("t1", "custom", {"name": "sh", "args": ["-c", f"echo x >> {self.dir}/begun; sleep 0.3"]})
        connection = await self.mesh.next()
        await self.mesh.result("t1", ack=False)
        await connection.execute("t1", "custom", {"name": "sh", "args": ["-c", f"echo x >> {self.dir}/begun"]})
        connection = await self.mesh.next()
        self.assertEqual((await self.mesh.result("t1"))["status"], "completed")
        self.assertEqual((self.dir / "begun").read_text(), "x\n")

    async def test_a_failure_of_which_nobody_heard_is_tried_again(self) -> None:
        worker = Worker(self.mesh.url, "key", work_dir=self.dir, **FAST)
        tries: list[int] = []

        @worker.task("benchmark")
        def flaky(job: Job) -> int:
            tries.append(1)
            if len(tries) == 1:
                raise TaskError("once")
            return len(tries)

        self.start(worker)
        connection = await self.mesh.next()
        await connection.execute("t1", "benchmark", {})
        self.assertEqual((await self.mesh.result("t1", ack=False))["error"], "once")
        connection = await self.mesh.next()
        await connection.execute("t1", "benchmark", {})
        said = await self.mesh.result("t1")
        while said["status"] == "failed":  # the first, once more
            said = await self.mesh.result("t1")
        self.assertEqual(said["result"], 2)

    async def test_a_task_takes_the_place_of_one_that_the_mesh_let_go(self) -> None:
        await self.serve()
        connection = await self.mesh.next()
        await connection.execute("t1", "custom", {"name": "sleep", "args": ["60"]})
        connection = await self.mesh.next()
        await connection.execute("t2", "custom", {"name": "echo", "args": ["two"]})
        self.assertEqual((await self.mesh.result("t2"))["result"]["stdout"], "two\n")

    async def test_it_registers_again_when_a_node_does_not_know_it(self) -> None:
        await self.serve()
        await (await self.mesh.next()).send(type="error", message="Worker not registered")
        await self.mesh.next()
        self.assertEqual(len(self.mesh.registers), 2)

    async def test_a_cancel_of_what_does_not_run_is_answered_at_once(self) -> None:
        await self.serve(heartbeat_seconds=60)
        connection = await self.mesh.next()
        await connection.expect("heartbeat")
        await connection.send(type="cancel_task", task_id="over", reason="migration")
        await connection.expect("heartbeat", lambda b: "task_status" not in b)

    async def test_nonsense_from_a_node_does_no_harm(self) -> None:
        await self.serve()
        for frame in ("{", "[]", "5", SAID_NO, "\ud800".encode("utf-8", "surrogatepass")):
            connection = await self.mesh.next()
            await connection.socket.send(frame)
            if frame == SAID_NO:
                self.mesh.connections.put_nowait(connection)
        connection = await self.mesh.next()
        for odd in ({"type": 5}, {}, {"type": "execute_task"}, {"type": "execute_task", "task_id": 7}, {"type": "cancel_task", "task_id": "none"},
                    {"type": "task_result_response"}, {"type": "error"}, {"type": "news", "task_id": "x"}):
            await connection.send(**odd)
        await connection.execute("t1", "custom", "no object", env=[], timeout_seconds="x")
        self.assertIn("name: it is missing", (await self.mesh.result("t1"))["error"])

    async def test_a_node_that_is_silent_is_left(self) -> None:
        self.addCleanup(setattr, link, "ANSWER_SECONDS", link.ANSWER_SECONDS)
        link.ANSWER_SECONDS = 0.2
        other = await FakeMesh().start()
        self.addAsyncCleanup(other.stop)
        self.mesh.silent = True
        await self.serve(self.mesh.url, other.url)
        await other.next()

    async def test_messages_are_signed(self) -> None:
        await self.serve(signing_key="secret")
        connection = await self.mesh.next()
        seen = set()
        for _ in range(3):
            beat = await connection.expect("heartbeat")
            self.assertTrue(signing.verify(beat, "secret"))
            seen.add(beat["signature"])
        self.assertEqual(len(seen), 3, "a signature is good once")
        self.assertTrue(signing.verify(self.mesh.registers[0], "secret"))
        forged = {"type": "execute_task", "task_id": "t1", "task_type": "custom", "config": {"name": "true"}}
        await connection.send(**signing.sign(forged, "another"))
        await connection.send(**signing.sign({**forged, "task_id": "t2"}, "secret"))
        await self.mesh.result("t2")

    async def test_it_stops_what_runs_when_it_is_cut_off(self) -> None:
        await self.serve(cut_off_seconds=0.3)
        connection = await self.mesh.next()
        await connection.execute("t1", "custom", {"name": "sh", "args": ["-c", f"echo $$ > {self.dir}/pid; sleep 60"]})
        connection = await self.mesh.next()
        await self.until((self.dir / "pid").exists)
        pid = int((self.dir / "pid").read_text())
        port = int(self.mesh.url.rpartition(":")[2])
        await self.mesh.stop()
        await self.until(lambda: not alive(pid))
        self.mesh = await FakeMesh().start(port)
        beat = await (await self.mesh.next()).expect("heartbeat")
        self.assertNotIn("task_status", beat, "the mesh is told that it does not run")
        self.addAsyncCleanup(self.mesh.stop)

    async def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 15
        while not done():
            self.assertLess(time.monotonic(), deadline, "not done after 15 s")
            await asyncio.sleep(0.01)

    async def test_a_worker_that_stops_hands_in_what_has_ended(self) -> None:
        worker = Worker(self.mesh.url, "key", work_dir=self.dir, **FAST)
        serving = asyncio.ensure_future(worker.serve())
        connection = await self.mesh.next()
        await connection.execute("t1", "custom", {"name": "true"})
        await self.mesh.result("t1", ack=False)
        worker.stop()
        connection = await self.mesh.next()
        await self.mesh.result("t1")
        await asyncio.wait_for(serving, 10)
        self.assertEqual(list(self.dir.iterdir()), [], "no directory of a task is left")


class Handlers(WorkerTest):
    async def test_programs(self) -> None:
        await self.serve()
        cases: list[tuple[Any, str, str]] = [
            ({"name": "sh", "args": ["-c", "echo out; echo err >&2; exit 3"]}, "exit", "exit code 3"),
            ({"name": "echo $HOME", "args": []}, "program", "there is no program echo $HOME"),
            ({"name": "echo $0 $1; exit 4", "args": ["one"], "shell": True}, "exit", "exit code 4"),
            ({"name": "sh", "args": ["-c", "kill -9 $$"]}, "signal", "killed by SIGKILL"),
            ({"name": "true", "dir": "/nowhere"}, "program", "no directory /nowhere"),
            ({"name": "true", "args": [5]}, "config", "a list of texts"),
            ({"name": "true", "nmae": 1}, "config", "nmae: there is no such field"),
            ({"name": "true", "shell": "yes"}, "config", "shell: it is of another type"),
            ({"name": "true", "umask": "9"}, "config", "umask"),
            ({"name": "a\0b"}, "program", "cannot be run"),
            ({}, "config", "name: it is missing"),
            ({"name": "cat", "stdin": "hello", "args": ["-", "/nowhere"]}, "exit", "exit code 1"),
        ]
        for n, (config, cause, error) in enumerate(cases):
            connection = await self.mesh.next()
            await connection.execute(f"t{n}", "custom", config)
            said = await self.mesh.result(f"t{n}")
            self.assertEqual((said["status"], said["cause"]), ("failed", cause), said)
            self.assertIn(error, said["error"])
            if n == 0:
                self.assertEqual((said["result"]["exit_code"], said["result"]["stdout"], said["result"]["stderr"]), (3, "out\n", "err\n"))
        self.assertEqual(said["result"]["stdout"], "hello")

    async def test_a_program_sees_its_own_and_nothing_secret(self) -> None:
        os.environ["LABMESH_API_KEY"] = "do-not-show"
        self.addCleanup(os.environ.pop, "LABMESH_API_KEY")
        await self.serve()
        said = await self.ask("custom", {"name": "env; pwd; umask", "shell": True, "umask": "077"}, env={"GIVEN": "x", "LABMESH_TASK_ID": "forged"})
        printed = said["result"]["stdout"]
        self.assertIn("GIVEN=x\n", printed)
        self.assertIn("LABMESH_TASK_ID=t1\n", printed)
        self.assertIn("LABMESH_WORKER_ID=w\n", printed)
        self.assertIn("\n0077\n", printed)
        self.assertNotIn("do-not-show", printed)
        self.assertIn(f"\n{self.dir}/labmesh-task-", printed)

    async def test_output_is_cut_in_the_middle(self) -> None:
        await self.serve()
        said = await self.ask("custom", {"name": "echo first; yes | head -c 1000000; echo last", "shell": True})
        self.assertEqual((said["result"]["stdout_bytes"], said["result"]["stdout_truncated"]), (1_000_011, True))
        self.assertRegex(said["result"]["stdout"], r"(?s)^first\n.*bytes left out here.*\nlast\n$")
        self.assertLess(len(said["result"]["stdout"]), 5000)

    @unittest.skipUnless(os.path.isdir("/proc/self"), "there is no /proc")
    async def test_a_cancel_ends_the_whole_tree(self) -> None:
        await self.serve()
        connection = await self.mesh.next()
        script = f"""
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pids = [os.getpid(), subprocess.Popen(["sleep", "61"]).pid, subprocess.Popen(["sleep", "62"], start_new_session=True).pid]
middle = subprocess.Popen([sys.executable, "-c", "import subprocess; print(subprocess.Popen(['sleep', '63'], start_new_session=True, stdout=subprocess.DEVNULL).pid)"], stdout=subprocess.PIPE)
pids.append(int(middle.communicate()[0]))
open({str(self.dir / 'part')!r}, "w").write(" ".join(map(str, pids)))
os.rename({str(self.dir / 'part')!r}, {str(self.dir / 'pids')!r})
time.sleep(60)
"""
        await connection.execute("t1", "custom", {"name": sys.executable, "args": ["-c", script], "grace_seconds": 0.2})
        connection = await self.mesh.next()
        deadline = time.monotonic() + 15
        while not (self.dir / "pids").exists() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        pids = [int(p) for p in (self.dir / "pids").read_text().split()]
        self.assertEqual([alive(p) for p in pids], [True] * 4)
        await connection.send(type="cancel_task", task_id="t1", reason="user_request")
        beat = await connection.expect("heartbeat", lambda b: "task_status" not in b)
        self.assertEqual(beat["task_cancelled"], {"task_id": "t1"})
        self.assertEqual([alive(p) for p in pids], [False] * 4)
        self.assertNotIn("task_cancelled", await connection.expect("heartbeat"))

    @unittest.skipUnless(os.path.isdir("/proc/self"), "there is no /proc")
    async def test_a_task_that_is_over_leaves_nothing_behind(self) -> None:
        await self.serve()
        said = await self.ask("custom", {"name": "setsid sleep 64 & echo $!", "shell": True})
        self.assertEqual(said["status"], "completed")
        self.assertFalse(alive(int(said["result"]["stdout"])))

    async def test_a_timeout_is_kept(self) -> None:
        await self.serve()
        said = await self.ask("custom", {"name": "sleep", "args": ["60"]}, timeout_seconds=0.2)
        self.assertEqual((said["status"], said["cause"]), ("timed_out", "timeout"))

    async def test_functions_of_ones_own(self) -> None:
        worker = Worker(self.mesh.url, "key", work_dir=self.dir, **FAST)

        @worker.task("benchmark")
        async def bench(job: Job) -> Any:
            job.progress(40)
            await asyncio.sleep(0.3)
            return {"model": job.config["model"], "in": job.directory.is_dir()}

        @worker.task("custom", name="double")
        def double(job: Job) -> Any:
            return 2 * job.config["args"][0]

        self.start(worker)
        connection = await self.mesh.next()
        self.assertEqual(self.mesh.registers[0]["kinds"], ["benchmark", "custom", "test"])
        await connection.execute("b", "benchmark", {"model": "bert"})
        connection = await self.mesh.next()
        await connection.expect("heartbeat", lambda b: b.get("task_status", {}).get("progress") == 40.0)
        self.assertEqual((await self.mesh.result("b"))["result"], {"model": "bert", "in": True})
        for n, (config, want) in enumerate([
            ({"name": "double", "args": [21]}, 42),
            ({"name": "double", "args": []}, "IndexError: list index out of range"),
            ({"name": "double", "args": ["x" * 50_000]}, {"truncated": True, "bytes": 100_002}),
            ({"name": "double", "args": [1e308]}, "the result cannot be written as JSON: Out of range float values are not JSON compliant"),
        ]):
            await connection.execute(f"t{n}", "custom", config)
            said = await self.mesh.result(f"t{n}")
            self.assertTrue(said.get("result") == want or said.get("error", "").startswith(str(want)), said)
            connection = await self.mesh.next()
        await connection.execute("p", "custom", {"name": "echo", "args": ["a program"]})
        self.assertEqual((await self.mesh.result("p"))["result"]["stdout"], "a program\n")

    async def test_a_plain_function_sees_a_cancel(self) -> None:
        worker = Worker(self.mesh.url, "key", work_dir=self.dir, **FAST)
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        @worker.task("benchmark")
        def bench(job: Job) -> None:
            job.wait_cancelled(60)
            loop.call_soon_threadsafe(ended.set)

        self.start(worker)
        connection = await self.mesh.next()
        await connection.execute("b", "benchmark", {})
        connection = await self.mesh.next()
        await connection.send(type="cancel_task", task_id="b", reason="migration")
        await asyncio.wait_for(ended.wait(), 15)
        await connection.expect("heartbeat", lambda b: b.get("task_cancelled") == {"task_id": "b"})

    async def test_without_a_handler(self) -> None:
        await self.serve()
        said = await self.ask("benchmark", {"model": "bert"})
        self.assertEqual((said["status"], said["cause"]), ("failed", "program"))
        self.assertIn("nothing for benchmark: it runs custom, test", said["error"])
        with self.assertRaises(labmesh.InvalidError):
            Worker(self.mesh.url, "key").task("bench")

    async def test_test_files(self) -> None:
        (self.dir / "test_it.py").write_text(
            "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): pass\n    def test_b(self): self.fail('no')\n"
        )
        (self.dir / "test_none.py").write_text("import unittest\n")
        (self.dir / "script.py").write_text("import sys; print(sys.argv[1:])\n")
        (self.dir / "prog").write_text("#!/bin/sh\nexit 7\n")
        (self.dir / "prog").chmod(0o755)
        (self.dir / "data").write_text("x")
        await self.serve()
        cases: list[tuple[dict[str, Any], str, str]] = [
            ({"test_file": "test_it.py"}, "failed", "tests failed (exit code 1)"),
            ({"test_file": "test_it.py::T::test_a"}, "completed", ""),
            ({"test_file": "test_none.py"}, "failed", "no tests were found"),
            ({"test_file": "script.py", "test_args": ["-x"]}, "completed", ""),
            ({"test_file": "prog"}, "failed", "tests failed (exit code 7)"),
            ({"test_file": "data"}, "failed", "no Python file and not executable"),
            ({"test_file": "none.py"}, "failed", "on this machine"),
            ({}, "failed", "test_file: it is missing"),
            ({"framework": "pytest", "cases": ["a"]}, "failed", "not parts of suites"),
        ]
        for n, (config, status, error) in enumerate(cases):
            if "test_file" in config:
                config["test_file"] = str(self.dir / config["test_file"])
            connection = await self.mesh.next()
            await connection.execute(f"t{n}", "test", config)
            said = await self.mesh.result(f"t{n}")
            self.assertEqual(said["status"], status, said)
            self.assertIn(error, said.get("error", ""))
        self.assertFalse((self.dir / "__pycache__").exists())


if __name__ == "__main__":
    unittest.main()
