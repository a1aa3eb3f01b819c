"""What the pytest and the unittest side have in common: the plan, and events.

An event is one line of JSON, appended to a file in one write. Only the process
that was started writes: a child that a test forks and that runs on does not.
"""
import json
import os
import sys
import time

TEXT_MAX = 3500  # characters of one message

_own = (os.open, os.write, os.close, os.getpid, os.getpid(), json.dumps)  # tests may replace these


class Events:
    def __init__(self, path):
        self._path = path

    def write(self, kind, **more):
        opened, wrote, closed, pid, me, dumps = _own
        if pid() != me:
            return
        more["e"] = kind
        line = dumps(more) + "\n"
        # Opened each time: a test that closes all file descriptors costs no verdict.
        fd = opened(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            data = line.encode("ascii")
            while data:
                data = data[wrote(fd, data):]
        finally:
            closed(fd)


def clip(text, most=TEXT_MAX):
    """The beginning and the end of text, with a mark where something was left out."""
    if len(text) <= most:
        return text
    head = most // 3
    tail = most - head - 60
    return "%s\n[labmesh: %d characters left out here]\n%s" % (text[:head], len(text) - head - tail, text[-tail:])


def wait(plan):
    """Waits, in an interpreter that was started early, until the suite may be loaded."""
    if os.path.exists(plan["go"]):
        return
    Events(plan["events"]).write("waiting")
    while not os.path.exists(plan["go"]):
        time.sleep(0.005)


def load_plan():
    with open(sys.argv[1], encoding="utf-8") as f:
        return json.load(f)


def watch(stack, seconds):
    """Have the stacks of all threads written when seconds have passed."""
    if not seconds:
        return
    try:
        import faulthandler

        faulthandler.dump_traceback_later(seconds, file=stack)
    except Exception:
        pass


def unwatch():
    try:
        import faulthandler

        faulthandler.cancel_dump_traceback_later()
    except Exception:
        pass


def dump_on_crash(stack):
    try:
        import faulthandler

        faulthandler.enable(file=stack)
    except Exception:
        pass
