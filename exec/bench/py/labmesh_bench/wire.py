"""Events out, the spec in, and what ends a run."""

import json
import math
import os
import signal
import sys
import time

PROTOCOL = 1
SPEC_BYTES_MAX = 1 << 20
MESSAGE_MAX = 2000  # characters of a message to people

CLOCK = time.perf_counter
STARTED = CLOCK()


class Fatal(Exception):
    """Nothing can be measured in this process; code is for programs, message for people."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code
        self.message = message


class Unsupported(Exception):
    """The engine cannot do what was asked, on this device."""


class Events:
    """Writes events, one JSON object a line."""

    def __init__(self, fd):
        self.fd = fd
        self.seq = 0

    def emit(self, kind, **fields):
        """Sends an event with those of the fields that are known."""
        self.seq += 1
        event = {"v": PROTOCOL, "seq": self.seq, "t": round(CLOCK() - STARTED, 6), "event": kind}
        event.update((name, value) for name, value in fields.items() if value is not None)
        data = json.dumps(event, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        while data:
            data = data[os.write(self.fd, data) :]


class Stop:
    """Whether the run was asked to end, by SIGTERM. The iteration under way is finished."""

    def __init__(self):
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, _signal, _frame):
        self.asked = True


# What a spec may say, with what holds where it does not.
FIELDS = {
    "model": "",
    "source": "auto",
    "file": "",
    "device": "auto",
    "device_uuid": "",
    "precision": "fp32",
    "on_unsupported_precision": "",
    "cast": "",
    "batch_sizes": [1],
    "sequence_length": 0,
    "image_size": 0,
    "iterations": 100,
    "min_seconds": 1.0,
    "max_seconds_per_batch": 60.0,
    "warmup_iterations": 10,
    "warmup_min_seconds": 1.0,
    "threads": 0,
    "seed": 0,
    "compile": False,
    "tf32": False,
}


class Spec:
    """What to measure: the fields of FIELDS, as attributes."""

    def __init__(self, fields):
        for name, default in FIELDS.items():
            setattr(self, name, _checked(name, fields.get(name, default), default))
        if not self.batch_sizes or not all(_whole(b) and b > 0 for b in self.batch_sizes):
            raise Fatal("bad_spec", "batch_sizes: they must be whole numbers from 1 on")
        if self.iterations < 1 or self.warmup_iterations < 1:
            raise Fatal("bad_spec", "iterations and warmup_iterations must be at least 1")


def _whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _checked(name, value, default):
    if isinstance(default, float):
        right = _whole(value) or (isinstance(value, float) and math.isfinite(value))
    elif isinstance(default, int) and not isinstance(default, bool):
        right = _whole(value)
    else:
        right = isinstance(value, type(default))
    if not right or (not isinstance(value, (bool, str, list)) and name != "seed" and value < 0):
        raise Fatal("bad_spec", "%s: %.60r is not what belongs there" % (name, value))
    return value


def read_spec():
    """Reads the spec from standard input, to its end."""
    data = sys.stdin.buffer.read(SPEC_BYTES_MAX + 1)
    if len(data) > SPEC_BYTES_MAX:
        raise Fatal("bad_spec", "the spec is longer than %d bytes" % SPEC_BYTES_MAX)
    try:
        fields = json.loads(data.decode())
    except (ValueError, RecursionError) as problem:
        raise Fatal("bad_spec", "the spec is no JSON: %s" % short(problem))
    if not isinstance(fields, dict):
        raise Fatal("bad_spec", "the spec is no JSON object")
    if fields.get("v") != PROTOCOL:
        raise Fatal("bad_spec", "the spec is of protocol version %.20r; this runner speaks version %d" % (fields.get("v"), PROTOCOL))
    return Spec(fields)


def short(problem):
    """An error for people: its words, on one line, and not too many."""
    words = " ".join(str(problem).split()) or type(problem).__name__
    return words if len(words) <= MESSAGE_MAX else words[: MESSAGE_MAX - 1] + "…"


def number(value, digits=6):
    """value to send, or None where it is unknown or no number."""
    if value is None or not math.isfinite(value):
        return None
    return round(value, digits)
