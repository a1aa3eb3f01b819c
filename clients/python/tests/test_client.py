import io
import json
import tempfile
import threading
import time
import unittest
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Optional
from urllib.parse import parse_qs, urlsplit

import labmesh
from labmesh import client as client_module
from labmesh.logs import LogFrame, lines_of, read_frame
from labmesh.types import parse_time

TASK = {
    "task_id": "t1", "type": "custom", "name": None, "status": "completed", "priority": 1, "worker_id": "w", "attempts": 1,
    "created": "2026-11-23T21:59:29.123456Z", "started": "2026-11-23T21:59:30.000000Z", "ended": None, "config": {"name": "true"},
    "requirements": {}, "result": {"exit_code": 0}, "error": None, "cause": None, "labels": {}, "news": 1,
    "history": [{"attempt": 1, "worker_id": "w", "status": "completed", "start_time": None, "end_time": None,
                 "execution_time_seconds": 0.5, "error_message": None, "cause": None}],
}


class Answer:
    """What a fake node answers."""

    def __init__(self, body: Any, status: int = 200, headers: Optional[dict[str, str]] = None, cut: int = 0) -> None:
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.status = status
        self.headers = headers or {}
        self.cut = cut  # bytes that are promised and not sent


class Request:
    def __init__(self, method: str, target: str, headers: Any, body: bytes) -> None:
        self.method = method
        self.path = urlsplit(target).path
        self.query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        self.key = headers.get("X-API-Key")
        self.json = json.loads(body) if body else None


Script = Callable[[Request], Optional[Answer]]


class FakeNode:
    """An HTTP server that answers what a test says; ``None`` cuts the connection."""

    def __init__(self, test: unittest.TestCase, script: Script) -> None:
        self.requests: list[Request] = []
        node = self

        class Handler(BaseHTTPRequestHandler):
            def serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = Request(self.command, self.path, self.headers, body)
                node.requests.append(request)
                answer = script(request)
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body) + answer.cut))
                self.end_headers()
                self.wfile.write(answer.body)
                self.close_connection = True

            do_GET = do_POST = serve

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.closed = False

        def close() -> None:
            if not self.closed:
                self.closed = True
                self.server.shutdown()
                self.server.server_close()
                thread.join()

        self.close = close
        test.addCleanup(close)

    def client(self, **options: Any) -> labmesh.Client:
        return labmesh.Client(self.url, "key", **{"patience": 2.0, **options})


def error(status: int, message: str = "no", **more: Any) -> Answer:
    return Answer({"error": message, **more}, status, {"Retry-After": "0.02"})


class Calls(unittest.TestCase):
    def test_a_submit_is_one_task_however_often_it_is_sent(self) -> None:
        answers: list[Optional[Answer]] = [None, error(503), error(429), Answer(b'{"task', cut=9), Answer({"task_id": "t1", "created": False, "message": "m"})]
        node = FakeNode(self, lambda _: answers.pop(0))
        done = node.client().submit(labmesh.custom("true"))
        self.assertEqual(done, labmesh.Submitted("t1", False, "m"))
        keys = {r.json["idempotency_key"] for r in node.requests}
        self.assertEqual((len(node.requests), len(keys)), (5, 1))
        self.assertEqual({r.key for r in node.requests}, {"key"})
        self.assertEqual(node.requests[0].json["config"], {"name": "true", "args": []})

    def test_refusals_have_their_class(self) -> None:
        for status, kind in {
            400: labmesh.InvalidError, 401: labmesh.DeniedError, 403: labmesh.DeniedError, 404: labmesh.NotFoundError, 405: labmesh.InvalidError,
            409: labmesh.ConflictError, 413: labmesh.TooLargeError, 429: labmesh.ExhaustedError, 500: labmesh.InternalError, 503: labmesh.UnavailableError,
        }.items():
            node = FakeNode(self, lambda _: error(status, "said why", field="config.name", request_id="r7" if status == 500 else ""))
            with self.assertRaisesRegex(kind, "said why") as caught:
                node.client(patience=0).get("t1")
            self.assertEqual((caught.exception.status, caught.exception.field), (status, "config.name"))
            self.assertEqual("r7" in str(caught.exception), status == 500)

    def test_what_is_no_node_is_recognised(self) -> None:
        node = FakeNode(self, lambda _: Answer(b"<h1>hello</h1>"))
        with self.assertRaisesRegex(labmesh.InternalError, "is a labmesh node at " + node.url):
            node.client().status()
        node = FakeNode(self, lambda _: Answer(b"<h1>proxy</h1>", 404))
        with self.assertRaisesRegex(labmesh.NotFoundError, "<h1>proxy"):
            node.client().status()

    def test_the_key_follows_no_redirect(self) -> None:
        thief = FakeNode(self, lambda _: Answer({}))
        node = FakeNode(self, lambda _: Answer(b"", 302, {"Location": thief.url + "/status"}))
        with self.assertRaises(labmesh.LabmeshError):
            node.client().status()
        self.assertEqual(thief.requests, [])

    def test_patience_ends(self) -> None:
        node = FakeNode(self, lambda _: error(503, "no leader"))
        began = time.monotonic()
        with self.assertRaisesRegex(labmesh.UnavailableError, "no leader"):
            node.client(patience=0.1).submit(labmesh.custom("true"))
        self.assertLess(time.monotonic() - began, 2)
        self.assertGreater(len(node.requests), 2)

    def test_nobody_there_is_said_at_once(self) -> None:
        node = FakeNode(self, lambda _: error(500))
        node.close()
        began = time.monotonic()
        with self.assertRaisesRegex(labmesh.UnavailableError, "labmesh up"):
            node.client(patience=60).status()
        self.assertLess(time.monotonic() - began, 5)

    def test_a_node_that_answered_before_is_waited_for(self) -> None:
        node = FakeNode(self, lambda _: Answer(TASK))
        client = node.client(patience=0.3)
        client.get("t1")
        node.close()
        began = time.monotonic()
        with self.assertRaises(labmesh.UnavailableError):
            client.get("t1")
        self.assertGreater(time.monotonic() - began, 0.1)

    def test_the_next_address_is_asked(self) -> None:
        dead, leaderless = FakeNode(self, lambda _: None), FakeNode(self, lambda _: error(503))
        gone = FakeNode(self, lambda _: None)
        gone.close()
        good = FakeNode(self, lambda _: Answer(TASK))
        client = labmesh.Client([gone.url, dead.url, leaderless.url, good.url], "key", patience=5)
        self.assertTrue(client.get("t1").ok)
        self.assertTrue(client.get("t1").ok)
        self.assertEqual([len(n.requests) for n in (dead, leaderless, good)], [1, 1, 2])
        self.assertEqual(client.url, good.url)

    def test_many_tasks_go_in_few_requests(self) -> None:
        def take(request: Request) -> Answer:
            return Answer({"task_ids": [t["name"] for t in request.json["tasks"]], "created": 0})

        node = FakeNode(self, take)
        tasks = [{**labmesh.custom("true"), "name": str(n)} for n in range(20_005)]
        ids = node.client().submit_batch(tasks)  # type: ignore[arg-type]
        self.assertEqual([len(r.json["tasks"]) for r in node.requests], [10_000, 10_000, 5])
        self.assertEqual(ids, [str(n) for n in range(20_005)])
        self.assertEqual(len({t["idempotency_key"] for r in node.requests for t in r.json["tasks"]}), 20_005)
        self.assertEqual(node.client().submit_batch([]), [])

    def test_a_large_batch_is_split_by_its_bytes(self) -> None:
        node = FakeNode(self, lambda r: Answer({"task_ids": ["x"] * len(r.json["tasks"])}))
        big: labmesh.TaskSpec = {**labmesh.custom("true"), "env": {"X": "x" * (1 << 20)}}  # type: ignore[misc]
        self.assertEqual(len(node.client().submit_batch([big] * 60)), 60)
        self.assertEqual(len(node.requests), 2)

    def test_lists_go_through_the_pages(self) -> None:
        def page(request: Request) -> Answer:
            cursor = int(request.query.get("cursor", "0"))
            limit = min(int(request.query["limit"]), 2)
            more = {"next_cursor": str(cursor + limit)} if cursor + limit < 5 else {}
            return Answer({"tasks": [{**TASK, "task_id": str(n)} for n in range(cursor, min(cursor + limit, 5))], **more})

        node = FakeNode(self, page)
        self.assertEqual([t.task_id for t in node.client().list(status="failed", type="test", worker_id="w")], list("01234"))
        self.assertEqual({k: v for k, v in node.requests[0].query.items() if k != "limit"}, {"status": "failed", "type": "test", "worker_id": "w"})
        self.assertEqual([t.task_id for t in node.client().list(limit=3)], list("012"))
        self.assertEqual(list(node.client().list(limit=0)), [])

    def test_a_task_in_full(self) -> None:
        node = FakeNode(self, lambda _: Answer(TASK))
        task = node.client().get("a/b c")
        self.assertEqual(node.requests[0].path, "/api/tasks/a%2Fb%20c")
        self.assertTrue(task.done and task.ok)
        self.assertEqual(task.created, datetime(2026, 11, 23, 21, 59, 29, 123456, timezone.utc))
        self.assertIsNone(task.ended)
        self.assertEqual((task.history[0].attempt, task.result, task.raw["news"]), (1, {"exit_code": 0}, 1))
        with self.assertRaises(labmesh.InvalidError):
            node.client().get("")

    def test_waiting(self) -> None:
        states = ["pending", "running", "failed"]
        node = FakeNode(self, lambda _: Answer({**TASK, "status": states[0] if len(states) == 1 else states.pop(0), "error": "exit code 1"}))
        task = node.client().wait("t1")
        self.assertEqual((task.status, len(node.requests)), ("failed", 3))
        with self.assertRaisesRegex(labmesh.TaskFailedError, "t1 is failed: exit code 1") as caught:
            node.client().wait(task, check=True)
        self.assertEqual(caught.exception.task, task)
        slow = FakeNode(self, lambda _: Answer({**TASK, "status": "running"}))
        with self.assertRaisesRegex(TimeoutError, "is running after 0.05 s"):
            slow.client().wait("t1", 0.05)
        self.assertEqual([t.status for t in node.client().wait_all(["t1", "t1"], 5)], ["failed", "failed"])

    def test_a_cancel_may_be_said_twice(self) -> None:
        answers: list[Optional[Answer]] = [None, error(400, "Cannot cancel task in cancelled state"), Answer({**TASK, "status": "cancelled"})]
        FakeNode(self, lambda _: answers.pop(0)).client().cancel("t1", "why not")
        late = [error(400, "Cannot cancel task in completed state"), Answer(TASK)]
        with self.assertRaisesRegex(labmesh.InvalidError, "completed state"):
            FakeNode(self, lambda _: late.pop(0)).client().cancel("t1")

    def test_rows(self) -> None:
        said = {"columns": ["n", "s"], "types": ["BIGINT", "VARCHAR"], "rows": [[9007199254740993, "é"], [None, None]], "truncated": True, "log_index": 7}
        node = FakeNode(self, lambda _: Answer(said))
        rows = node.client().query("SELECT 1", timeout=5, max_rows=2)
        self.assertEqual(node.requests[0].json, {"sql": "SELECT 1", "timeout_seconds": 5, "max_rows": 2})
        self.assertEqual(list(rows), [{"n": 9007199254740993, "s": "é"}, {"n": None, "s": None}])
        self.assertEqual((len(rows), rows.truncated, rows.log_index), (2, True, 7))

    def test_workers_and_status(self) -> None:
        worker = {"worker_id": "w", "hostname": "h", "status": "active", "reason": None, "last_heartbeat": None, "slots": 2, "slots_used": 1,
                  "capabilities_summary": {"hardware": ["cpu", "cuda"]}, "capabilities": {"cpu": {"threads": 4}}, "tags": {"site": "x"}}
        status = {"workers": {"total": 1}, "tasks": {"total": 0}, "uptime": 1.5, "version": "v", "node_id": "n", "leader": None, "voters": ["n"], "quorum": 1}
        answers = {"/api/workers": {"workers": [worker]}, "/api/workers/w": worker, "/status": status}
        node = FakeNode(self, lambda r: Answer(answers[r.path]))
        self.assertEqual(node.client().workers()[0].hardware, ("cpu", "cuda"))
        self.assertEqual(node.client().worker("w").capabilities, {"cpu": {"threads": 4}})
        self.assertEqual((node.client().status().leader, node.client().status().voters), (None, ("n",)))

    def test_a_body_that_is_no_json_is_the_callers_fault(self) -> None:
        node = FakeNode(self, lambda _: Answer({}))
        with self.assertRaises(ValueError):
            node.client().submit({"type": "custom", "config": {"name": "x", "n": float("nan")}})
        with self.assertRaises(labmesh.InvalidError):
            node.client().submit("custom")  # type: ignore[arg-type]
        self.assertEqual(node.requests, [])


class Logs(unittest.TestCase):
    def test_a_stream_that_breaks_off_goes_on_where_it_was(self) -> None:
        parts = {
            None: Answer(b"data 1 0 7\none\ntwodata 1 7 5\n th", cut=10),
            "1-7": Answer(b"data 1 7 7\n three\ngap 1 14 100\nstill 0 0 0\nbegin 2 0 0\n"),
            "2-0": Answer(b"note 2 0 5\nhellodata 2 0 3\n\xc3\xa9!end 2 3 0\n"),
        }
        node = FakeNode(self, lambda r: parts[r.query.get("after")])
        got = list(node.client().logs("t1", stream="stderr", follow=True))
        self.assertEqual("".join(got), "one\ntwo three\n\n[labmesh: 100 bytes left out here]\n\n[labmesh: attempt 2 begins here]\n\n[labmesh: hello]\né!")
        self.assertEqual(node.requests[0].query, {"stream": "stderr", "frames": "1", "follow": "1"})

    def test_it_goes_on_at_another_node(self) -> None:
        one = FakeNode(self, lambda _: Answer(b"data 1 0 4\none\n", cut=1))
        two = FakeNode(self, lambda _: Answer(b"data 1 4 4\ntwo\nend 1 8 0\n"))
        client = labmesh.Client([one.url, two.url], "key", patience=5)
        lines = client.logs("t1", follow=True)
        self.assertEqual(next(lines), "one\n")
        one.close()
        self.assertEqual(list(lines), ["two\n"])
        self.assertEqual(two.requests[0].query["after"], "1-4")

    def test_what_cannot_be_had_is_said(self) -> None:
        with self.assertRaises(labmesh.NotFoundError):
            list(FakeNode(self, lambda _: error(404)).client().logs("t1", follow=True))
        with self.assertRaisesRegex(labmesh.InternalError, "no frames"):
            list(FakeNode(self, lambda _: Answer(b"plain text\n")).client().logs("t1"))
        with self.assertRaises(labmesh.UnavailableError):
            list(FakeNode(self, lambda _: error(503)).client(patience=0.1).logs("t1", follow=True))

    def test_frames_that_make_no_sense(self) -> None:
        for wrong in (b"data 1 0 70000\n", b"data 1 0 -1\n", b"x 1 0 0\n", b"end 1 0 5\n", b"data 1 0\n", b"a" * 100, b"data 1 0 1 1\n", b"\xff 1 1 1\n"):
            with self.assertRaises(labmesh.InternalError, msg=wrong):
                read_frame(io.BytesIO(wrong))
        for short in (b"", b"data 1 0 5\nabc"):
            with self.assertRaises(EOFError, msg=short):
                read_frame(io.BytesIO(short))

    def test_lines(self) -> None:
        frames = [LogFrame("data", 1, 0, b"a\nb\xc3"), LogFrame("data", 1, 4, b"\xa9\xff\r\n\n"), LogFrame("data", 1, 9, b"end")]
        self.assertEqual(list(lines_of(frames)), ["a\n", "bé\ufffd\r\n", "\n", "end"])


class Downloads(unittest.TestCase):
    def setUp(self) -> None:
        held = tempfile.TemporaryDirectory()
        self.addCleanup(held.cleanup)
        self.dir = Path(held.name)

    def node(self, files: list[dict[str, Any]], content: bytes = b"hello", cut: int = 0) -> FakeNode:
        def answer(request: Request) -> Answer:
            if request.path.endswith("/artifacts"):
                return Answer({"task_id": "t1", "attempt": 2, "tree": "x", "bytes": 5, "files": files})
            return Answer(content, cut=cut)

        return FakeNode(self, answer)

    def test_files_come_whole(self) -> None:
        files: list[dict[str, Any]] = [
            {"path": ".labmesh/stdout", "bytes": 5}, {"path": "link", "bytes": 0, "link": "out/a b"},
            {"path": "out/a b", "bytes": 5, "executable": True}, {"path": "out/empty", "directory": True},
        ]
        node = self.node(files)
        wrote = node.client().download("t1", self.dir)
        self.assertEqual(sorted(p.relative_to(self.dir).as_posix() for p in wrote), ["link", "out/a b", "out/empty"])
        self.assertEqual((self.dir / "link").read_bytes(), b"hello")
        self.assertTrue((self.dir / "out/a b").stat().st_mode & 0o100)
        self.assertEqual([r.path for r in node.requests[1:]], ["/api/tasks/t1/artifacts/out/a%20b"])
        self.assertEqual(node.requests[1].query, {"attempt": "2"})
        self.assertEqual(node.client().download("t1", self.dir, "*.txt"), [])
        self.assertEqual(node.client().download("t1", self.dir, ".labmesh/*"), [self.dir / ".labmesh/stdout"])

    def test_nothing_is_written_elsewhere(self) -> None:
        (self.dir / "in").mkdir()
        for bad in ({"path": "../x"}, {"path": "/x"}, {"path": ""}, {"path": "l", "link": "/etc/passwd"}, {"path": "a/l", "link": "../../x"}):
            with self.assertRaises(labmesh.InvalidError, msg=bad):
                self.node([{"bytes": 5, **bad}]).client().download("t1", self.dir / "in")
        (self.dir / "in" / "door").symlink_to(self.dir)
        with self.assertRaises(labmesh.InvalidError):
            self.node([{"path": "door/x", "bytes": 5}]).client().download("t1", self.dir / "in")
        self.assertEqual([p.name for p in self.dir.iterdir()], ["in"])

    def test_a_file_that_breaks_off_is_not_left(self) -> None:
        for content, cut in ((b"hel", 2), (b"hel", 0)):
            with self.assertRaises(labmesh.LabmeshError):
                self.node([{"path": "a", "bytes": 5}], content, cut).client().download("t1", self.dir)
        self.assertEqual(list(self.dir.iterdir()), [])


class Types(unittest.TestCase):
    def test_times(self) -> None:
        self.assertIsNone(parse_time(None))
        self.assertEqual(parse_time("2026-11-23T21:59:29Z"), datetime(2026, 11, 23, 21, 59, 29, tzinfo=timezone.utc))
        self.assertEqual(parse_time("2026-11-23T21:59:29.5Z"), datetime(2026, 11, 23, 21, 59, 29, 500_000, tzinfo=timezone.utc))

    def test_tasks_as_they_are_written(self) -> None:
        self.assertEqual(labmesh.custom("echo hi", shell=True), {"type": "custom", "config": {"name": "echo hi", "args": [], "shell": True}})
        self.assertEqual(labmesh.test("a.py", "-v")["config"], {"test_file": "a.py", "test_args": ["-v"]})
        self.assertEqual(labmesh.benchmark("m", batch_sizes=[1, 8])["config"]["batch_sizes"], [1, 8])

    def test_limits_are_those_of_the_api(self) -> None:
        self.assertEqual(client_module.BATCH_TASKS_MAX, 10_000)


if __name__ == "__main__":
    unittest.main()
