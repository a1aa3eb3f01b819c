"""Runs or collects pytest tests by a plan, and says as an event what became of each.

Started as a program: python3 labmesh_pytest.py plan.json. It needs no place on
PYTHONPATH, so nothing of it is seen by tests or by what they start.
"""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
CAPTURE_MAX = 1 << 20  # bytes of captured output that are kept, from its beginning and its end each


class Plugin:
    def __init__(self, pytest, helpers, plan):
        self.pytest = pytest
        self.helpers = helpers
        self.plan = plan
        self.events = helpers.Events(plan["events"])
        self.stack = open(plan["stack"], "a")
        self.reports = []
        self.want = None
        if not plan.get("collect"):
            self.want = set(plan["cases"])
        self.config = None

    # The session.

    def wait(self):
        """Everything up to here was pytest's own, and that of plugins that are installed."""
        self.helpers.wait(self.plan)

    def pytest_configure(self, config):
        self.config = config
        if hasattr(config.option, "no_summary"):
            config.option.no_summary = True  # each failure is printed as it comes

    def pytest_sessionstart(self, session):
        self.helpers.dump_on_crash(self.stack)

    def pytest_keyboard_interrupt(self, excinfo):
        if excinfo.type.__name__ == "Interrupted":
            return  # as by --stepwise, between two tests
        self.events.write("interrupted", text=self.helpers.clip(str(excinfo.exconly())))

    # Collection.

    def pytest_collectstart(self, collector):
        if isinstance(collector, self.pytest.File):
            self.events.write("importing", id=collector.nodeid)

    def pytest_collectreport(self, report):
        if report.failed:
            self.events.write("error", id=report.nodeid, text=self.helpers.clip(str(report.longrepr)))
        elif report.skipped:
            self.events.write("skipped", id=report.nodeid, text=self.helpers.clip(reason(report)))

    def pytest_collection_finish(self, session):
        if self.want is None:
            for item in session.items:
                self.events.write("item", id=item.nodeid)
            return
        missing = self.want.difference(item.nodeid for item in session.items)
        for nodeid in self.plan["cases"]:
            if nodeid in missing:
                self.events.write("missing", id=nodeid)
        self.events.write("collected")

    # One test.

    def pytest_runtest_logstart(self, nodeid, location):
        self.reports = []
        self.events.write("start", id=nodeid)
        self.helpers.watch(self.stack, self.plan.get("timeout"))

    def pytest_runtest_logreport(self, report):
        if report.outcome == "rerun":
            return
        self.reports.append(report)
        if report.failed:
            self.show(report)

    def pytest_runtest_logfinish(self, nodeid, location):
        self.helpers.unwatch()
        if not self.reports:
            return
        verdict, text = judge(self.reports)
        phases = {}
        for r in self.reports:
            phases[r.when] = round(phases.get(r.when, 0) + r.duration, 6)
        self.events.write("end", id=nodeid, verdict=verdict, seconds=round(sum(phases.values()), 6),
                          phases=phases, text=self.helpers.clip(text))
        if self.plan.get("fail_fast") and verdict in ("failed", "error") and nodeid not in self.plan.get("quarantine", ()):
            self.config.labmesh_session.shouldstop = "fail fast"

    def show(self, report):
        """Prints a failure when it happens: at the end may be too late."""
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is None:
            return
        try:
            writer = terminal._tw
            writer.line()
            terminal.write_sep("_", "%s of %s failed" % (report.when, report.nodeid))
            report.toterminal(writer)
            for name, content in report.sections:
                terminal.write_sep("-", name)
                writer.line(content[-CAPTURE_MAX:].rstrip("\n"))
            terminal.currentfspath = None
            writer.flush()
        except Exception as e:  # it is for people; the event matters more
            print("labmesh: this failure could not be printed: %r" % e, file=sys.__stderr__)


def hooks(pytest, plugin):
    """Hooks whose options need pytest itself."""

    class Wrapped:
        @pytest.hookimpl(tryfirst=True)
        def pytest_load_initial_conftests(self, early_config):
            plugin.wait()

        @pytest.hookimpl(hookwrapper=True)
        def pytest_cmdline_main(self, config):
            plugin.wait()
            for name, value in (("numprocesses", None), ("dist", "no"), ("tx", []), ("distload", False), ("looponfail", False)):
                if hasattr(config.option, name):  # of xdist: the mesh spreads tests
                    setattr(config.option, name, value)
            yield

        @pytest.hookimpl(hookwrapper=True)
        def pytest_collection_modifyitems(self, session, config, items):
            yield
            config.labmesh_session = session
            if plugin.want is not None:
                items[:] = [item for item in items if item.nodeid in plugin.want]

    return Wrapped()


def reason(report):
    if isinstance(report.longrepr, tuple) and len(report.longrepr) == 3:
        path, line, text = report.longrepr
        return text[len("Skipped: "):] if text.startswith("Skipped: ") else text
    return str(report.longrepr)


def judge(reports):
    """The verdict on a test, and what to say about it, from the reports of its phases."""
    verdict, texts = "passed", []
    for r in reports:
        expected = getattr(r, "wasxfail", None)
        if r.failed:
            if r.when == "call" and verdict != "error":
                verdict = "failed"
            elif verdict != "failed":
                verdict = "error"
            prefix = "" if r.when == "call" else "in %s: " % r.when
            texts.append(prefix + str(r.longrepr))
        elif r.skipped and expected is not None:
            verdict = "xfailed"
            texts.append(expected or "expected to fail")
        elif r.skipped:
            verdict = "skipped"
            texts.append(reason(r))
        elif r.when == "call" and expected is not None:
            verdict = "xpassed"
            texts.append(expected or "expected to fail")
    if verdict in ("failed", "error"):
        most, seen = 1200, set()
        for r in reports:
            for name, content in r.sections:
                if content and name not in seen:
                    seen.add(name)
                    texts.append("--- %s ---\n%s" % (name, content[-most:]))
    return verdict, "\n".join(texts)


def bound_capture():
    """Keeps a test that prints without end from filling the memory: of what it
    printed, only the beginning and the end are read back."""
    try:
        from _pytest.capture import FDCapture

        plain = FDCapture.snap

        def snap(self):
            try:
                f = self.tmpfile.buffer
                size = os.fstat(f.fileno()).st_size
                if size > 2 * CAPTURE_MAX:
                    f.seek(0)
                    head = f.read(CAPTURE_MAX)
                    f.seek(size - CAPTURE_MAX)
                    tail = f.read(CAPTURE_MAX)
                    self.tmpfile.seek(0)
                    self.tmpfile.truncate()
                    mark = "\n[labmesh: %d bytes left out here]\n" % (size - len(head) - len(tail))
                    return head.decode("utf-8", "replace") + mark + tail.decode("utf-8", "replace")
            except Exception:
                pass
            return plain(self)

        FDCapture.snap = snap
    except Exception:
        pass


def names_plugins(args):
    """Whether pytest may be told here to load plugins of the suite's own as it begins."""
    texts = list(args) + [os.environ.get("PYTEST_ADDOPTS", "")]
    for name in ("pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg"):
        try:
            with open(name, encoding="utf-8", errors="replace") as f:
                texts.append(f.read())
        except OSError:
            pass
    return ("PYTEST_PLUGINS" in os.environ or any("-p" in text for text in texts)
            or any(name.endswith((".egg-info", ".dist-info")) for name in os.listdir(".")))


def main():
    sys.path.insert(0, HERE)
    import labmesh_events as helpers

    plan = helpers.load_plan()
    events = helpers.Events(plan["events"])
    sys.path.remove(HERE)
    sys.path[0] = os.getcwd()  # as with python3 -m pytest
    import pytest

    bound_capture()
    if names_plugins(plan.get("args", [])):
        helpers.wait(plan)
    args = ["--rootdir=" + os.getcwd(), "-o", "cache_dir=" + plan["cache"], "--color=no",
            "--continue-on-collection-errors"]
    if plan.get("collect"):
        args += ["--collect-only", "-qq"]
    args += plan.get("args", [])
    paths = []
    for path in plan["paths"]:
        if os.path.exists(path.split("::")[0]):
            paths.append(path)
        else:
            events.write("error", id=path, text="there is no %s here: check the path, and that the bundle holds it" % path)
    code = 0
    if paths:
        plugin = Plugin(pytest, helpers, plan)
        sys.argv[:] = ["pytest"] + args + paths
        code = int(pytest.main(args + paths, plugins=[plugin, hooks(pytest, plugin)]))
    events.write("done", code=code)
    sys.exit(code)


main()
