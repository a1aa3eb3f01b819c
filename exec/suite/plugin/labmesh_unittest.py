"""Runs or collects unittest tests by a plan, and says as an event what became of each.

Started as a program: python3 labmesh_unittest.py plan.json. A test is named
file::Class::method, with the file relative to where it runs.
"""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import labmesh_events as helpers  # noqa: E402

sys.path.remove(HERE)
sys.path[0] = os.getcwd()

import argparse  # noqa: E402
import fnmatch  # noqa: E402
import importlib  # noqa: E402
import importlib.util  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
import unittest  # noqa: E402


def options(args):
    parser = argparse.ArgumentParser(prog="unittest", add_help=False)
    parser.add_argument("-k", action="append", dest="patterns", default=[])
    parser.add_argument("-p", "--pattern", default="test*.py")
    parser.add_argument("-b", "--buffer", action="store_true")
    parser.add_argument("--locals", action="store_true")
    parser.add_argument("-f", "--failfast", action="store_true")
    parser.add_argument("-v", "-q", "--verbose", "--quiet", action="count")
    return parser.parse_args(args)


def walk(path, pattern):
    """The test files below path, in order."""
    if not os.path.isdir(path):
        yield os.path.normpath(path)
        return
    for name in sorted(os.listdir(path)):
        at = os.path.join(path, name)
        if os.path.isdir(at) and not os.path.islink(at):
            if not name.startswith(".") and name not in ("__pycache__", "node_modules") and not os.path.exists(os.path.join(at, "pyvenv.cfg")):
                yield from walk(at, pattern)
        elif fnmatch.fnmatch(name, pattern):
            yield os.path.normpath(at)


def load(file):
    """The module of a file, imported under its name below the first directory that is no package."""
    top = os.path.dirname(os.path.abspath(file))
    parts = [os.path.splitext(os.path.basename(file))[0]]
    while os.path.exists(os.path.join(top, "__init__.py")):
        parts.insert(0, os.path.basename(top))
        top = os.path.dirname(top)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    if top not in sys.path:
        sys.path.insert(0, top)
    name = ".".join(parts)
    here = os.path.realpath(file)
    known = sys.modules.get(name)
    if known is None:
        importlib.invalidate_caches()
        known = importlib.import_module(name)
    if os.path.realpath(getattr(known, "__file__", None) or "") == here:
        return known
    name = "labmesh_%s_%d" % (name.replace(".", "_"), len(sys.modules))  # another file has that name
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def flatten(tests):
    if isinstance(tests, unittest.TestSuite):
        for test in tests:
            yield from flatten(test)
    elif tests is not None:
        yield tests


def name_of(file, test):
    if isinstance(test, unittest.TestCase) and hasattr(test, "_testMethodName"):
        return "%s::%s::%s" % (file, type(test).__qualname__, test._testMethodName)
    return "%s::%s" % (file, test.id())


class Result(unittest.TestResult):
    def __init__(self, events, plan, names, opts):
        super().__init__(sys.stderr, None, None)
        self.events, self.plan, self.names = events, plan, names
        self.stack = open(plan["stack"], "a")
        helpers.dump_on_crash(self.stack)
        self.buffer, self.tb_locals = opts.buffer, opts.locals
        self.fail_fast = opts.failfast or plan.get("fail_fast")
        self.quarantine = set(plan.get("quarantine", ()))
        self.open = None  # the newest test, whose class may still have something to tear down
        self.began = 0
        self.tests = []  # with their names
        self.ended = {}  # name: [verdict, texts, seconds], from when it begins

    # A test is over when the next begins: what its class tears down belongs to its last test.

    def settle(self):
        if self.open is None:
            return
        name, self.open = self.open, None
        helpers.unwatch()
        verdict, texts, seconds = self.ended[name]
        text = helpers.clip("\n".join(texts))
        self.events.write("end", id=name, verdict=verdict, seconds=round(seconds, 6), text=text)

    def begin(self, test):
        """A test begins with what is set up for its class and its module."""
        name = self.names.get(id(test)) or test.id()
        if name in self.ended:
            return
        self.settle()
        self.ended[name] = ["passed", [], 0.0]
        self.open = name
        self.events.write("start", id=name)
        helpers.watch(self.stack, self.plan.get("timeout"))
        self.began = time.perf_counter()

    def startTest(self, test):
        self.begin(test)
        super().startTest(test)

    def stopTest(self, test):
        if self.open:
            entry = self.ended[self.open]
            entry[2] = time.perf_counter() - self.began
            if self.fail_fast and entry[0] in ("failed", "error") and self.open not in self.quarantine:
                self.shouldStop = True
        super().stopTest(test)

    def say(self, test, verdict, text, shown=True):
        name = self.names.get(id(test))
        if name is None:
            self.outside(test, text)
        else:
            self.begin(test)  # unless it has: some are skipped without a start
            entry = self.ended[name]
            if entry[0] in ("passed", "skipped") or verdict == "error":
                entry[0] = verdict
            entry[1].append(text)
        if shown:
            sys.stderr.write("=" * 70 + "\n%s: %s\n" % (verdict, name or test) + "-" * 70 + "\n" + text + "\n")
            sys.stderr.flush()

    def outside(self, holder, text):
        """What a class or a module set up or tore down went wrong."""
        what = holder.id()  # setUpClass (module.Class)
        if what.startswith("tearDown") and self.open:
            entry = self.ended[self.open]
            if entry[0] != "failed":
                entry[0] = "error"
            entry[1].append(what + "\n" + text)
            return
        for test, name in self.within(what):
            self.begin(test)
            self.ended[name][:2] = ["error", [what + "\n" + text]]
        self.settle()

    def within(self, what):
        """The tests of the class or module that what, as in setUpClass (module.Class), is about, but for those that ended."""
        scope = what[what.find("(") + 1:].rstrip(")")
        for test, name in self.tests:
            at = type(test).__module__
            if scope in (at, "%s.%s" % (at, type(test).__qualname__)) and (name == self.open or name not in self.ended):
                yield test, name

    def addError(self, test, err):
        super().addError(test, err)
        self.say(test, "error", self._exc_info_to_string(err, test))

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.say(test, "failed", self._exc_info_to_string(err, test))

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        if self.names.get(id(test)) is None:  # a class or a module
            for t, _ in self.within(test.id()):
                self.say(t, "skipped", str(reason), False)
            self.settle()
            return
        self.say(test, "skipped", str(reason), False)

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.say(test, "xfailed", self._exc_info_to_string(err, test), False)

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.say(test, "failed", "unexpected success: it is marked as an expected failure, and passed")

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            failed = issubclass(err[0], test.failureException)
            self.say(test, "failed" if failed else "error", "%s\n%s" % (subtest._subDescription(), self._exc_info_to_string(err, test)))


class Suite(unittest.TestSuite):
    """Says when what belongs to one test is over and what belongs to the next begins."""

    _next = None

    def _tearDownPreviousClass(self, test, result):
        super()._tearDownPreviousClass(test, result)
        self._next = test
        if test is not None and self._get_previous_module(result) == type(test).__module__:
            result.settle()
            result.begin(test)

    def _handleModuleTearDown(self, result):
        super()._handleModuleTearDown(result)
        result.settle()
        if self._next is not None:
            result.begin(self._next)


def main():
    plan = helpers.load_plan()
    helpers.wait(plan)
    events = helpers.Events(plan["events"])
    opts = options(plan.get("args") or [])
    loader = unittest.TestLoader()
    patterns = [p if "*" in p else "*%s*" % p for p in opts.patterns]
    want = None if plan.get("collect") else set(plan["cases"])
    tests, names, files = [], {}, []
    only = {}  # by file: the names in it that were asked for
    for path in plan["paths"]:
        path, _, name = path.partition("::")
        if os.path.exists(path):
            new = [f for f in walk(path, opts.pattern) if f not in files]
            files += new
            for f in new if name else []:
                only[f] = []
            for f in walk(path, opts.pattern):
                if name and f in only:
                    only[f].append("%s::%s" % (f, name))
                elif not name:
                    only.pop(f, None)
        else:
            events.write("error", id=path, text="there is no %s here: check the path, and that the bundle holds it" % path)
    for file in files:
        events.write("importing", id=file)
        found = []
        try:
            module = load(file)
            found = list(flatten(loader.loadTestsFromModule(module)))
        except unittest.SkipTest as e:
            events.write("skipped", id=file, text=helpers.clip(str(e)))
        except (Exception, SystemExit):
            events.write("error", id=file, text=helpers.clip(traceback.format_exc()))
        for test in found:
            if type(test).__name__ == "_FailedTest":
                events.write("error", id=file, text=helpers.clip(str(getattr(test, "_exception", test))))
                continue
            name = name_of(file, test)
            if want is None:
                if patterns and not any(fnmatch.fnmatchcase(test.id(), p) for p in patterns):
                    continue
                chosen = only.get(file)
                if chosen is None or any(name == c or name.startswith(c + "::") for c in chosen):
                    events.write("item", id=name)
            elif name in want:
                tests.append((test, name))
                names[id(test)] = name
    code = 0
    if want is not None:
        have = set(names.values())
        for name in plan["cases"]:
            if name not in have:
                events.write("missing", id=name)
        events.write("collected")
        result = Result(events, plan, names, opts)
        result.tests = tests
        try:
            Suite([test for test, _ in tests])(result)
        except KeyboardInterrupt:
            events.write("interrupted", text="KeyboardInterrupt")
            events.write("done", code=130)
            raise
        result.settle()
        code = 0 if result.wasSuccessful() else 1
    events.write("done", code=code)
    sys.exit(code)


main()
