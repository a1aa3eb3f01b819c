"""Warm-up and measurement of a batch size, the same for every engine.

A unit of work, which an engine's load returns, has

    model             the fields of the model event, a dict
    unsupported       why it cannot be run at all, or None
    prepare(batch)    makes the inputs, on the device
    step()            one iteration, to its very end
    device_ms         a function: what the device says the last step took; or None
    result()          whether all that came out is finite, and a checksum of it
    reset_memory()    begins to look at the peak of the device's memory
    memory()          the fields of batch_end about the device's memory
    release()         forgets inputs and outputs
    kind_of(problem)  what an exception means: oom, unsupported, device_lost or error
"""

import gc
import statistics
import time
import traceback

from . import wire

SAMPLES_MAX = 256  # in one event
SAMPLES_PAUSE = 0.25  # seconds between two lots of them
ITERATIONS_MAX = 1000000  # of a batch size, however short they are

WARMUP_LONGEST = 10  # times warmup_min_seconds, while times are not steady

# Times are steady when the medians of the last three windows lie within a tenth
# of the middle one: the rule of stats.Steady, which labmesh's own engine goes by.
WINDOWS = 3
WINDOW_LEAST, WINDOW_MOST = 5, 50  # iterations
SPREAD_MOST = 0.10


def batch(work, spec, size, events, stop):
    """Measures one batch size; whatever goes wrong concerns it alone."""
    events.emit("batch_start", batch=size)
    if work.unsupported:
        events.emit("batch_end", batch=size, status="unsupported", reason=wire.short(work.unsupported), n=0)
        return
    tally = Tally(size, events)
    try:
        fields = timed(work, spec, tally, stop)
    except Exception as problem:
        kind, reason = work.kind_of(problem), wire.short(problem)
        if kind == "error":
            traceback.print_exc()
        traceback.clear_frames(problem.__traceback__)  # they hold what filled the memory
        problem = None
        fields = dict(status=kind, reason=reason)
    work.release()
    gc.collect()
    tally.flush()
    lost = fields["status"] == "device_lost"
    if lost:
        fields["status"] = "error"
    events.emit("batch_end", batch=size, n=tally.n, **fields)
    if lost:
        raise wire.Fatal("device_lost", fields["reason"])


class Tally:
    """The raw times of a batch size, sent as they come."""

    def __init__(self, size, events):
        self.size, self.events = size, events
        self.n = 0
        self.waiting = []
        self.sent = wire.CLOCK()

    def add(self, sample):
        self.n += 1
        self.waiting.append(sample)
        if wire.CLOCK() - self.sent >= SAMPLES_PAUSE:
            self.flush()

    def flush(self):
        first = self.n - len(self.waiting)
        for i in range(0, len(self.waiting), SAMPLES_MAX):
            self.events.emit("samples", batch=self.size, i0=first + i, ms=self.waiting[i : i + SAMPLES_MAX])
        self.waiting = []
        self.sent = wire.CLOCK()


def once(work):
    """Runs one iteration: its wall time, and its device time where there is one, in ms."""
    began = wire.CLOCK()
    work.step()
    wall = (wire.CLOCK() - began) * 1e3
    if work.device_ms is None:
        return [round(wall, 6)]
    return [round(wall, 6), round(work.device_ms(), 6)]


def timed(work, spec, tally, stop):
    """Warms up and measures; returns the fields of batch_end."""
    work.prepare(tally.size)
    host = HostPeak()
    work.reset_memory()
    gc.collect()
    gc.disable()  # a collection is no part of the model
    try:
        warm_up(work, spec, tally, stop)
        cpu, began = time.process_time(), wire.CLOCK()
        tally.sent = began
        while not stop.asked:
            tally.add(once(work))
            elapsed = wire.CLOCK() - began
            enough = tally.n >= spec.iterations and elapsed >= spec.min_seconds
            if enough or elapsed >= spec.max_seconds_per_batch or tally.n >= ITERATIONS_MAX:
                break
        wall, cpu = wire.CLOCK() - began, time.process_time() - cpu
    finally:
        gc.enable()
    fields = dict(status="ok", wall_s=wire.number(wall), cpu_ms=wire.number(cpu * 1e3), host_peak_bytes=host.read())
    fields.update(work.memory())
    if stop.asked and (tally.n < spec.iterations or wall < spec.min_seconds):
        fields.update(status="cancelled", reason="the run was asked to end")
    elif tally.n < spec.iterations:
        fields.update(status="truncated", reason="%d of %d iterations were done in max_seconds_per_batch, %g s" % (tally.n, spec.iterations, spec.max_seconds_per_batch))
    if tally.n:
        fields["finite"], fields["checksum"] = work.result()
    return fields


def warm_up(work, spec, tally, stop):
    """Iterates until times are steady: at least as often and as long as the spec says.

    Unsteady times prolong it to ten times as long; slow iterations end it before
    there are as many as asked for, when it took as long as a measurement may.
    """
    began, times = wire.CLOCK(), []
    longest = WARMUP_LONGEST * spec.warmup_min_seconds
    limit = max(longest, spec.max_seconds_per_batch)
    while not stop.asked:
        times.append(once(work)[0])
        elapsed = wire.CLOCK() - began
        enough = len(times) >= spec.warmup_iterations and elapsed >= spec.warmup_min_seconds
        if elapsed >= limit or enough and (elapsed >= longest or steady(times)):
            break
    tally.events.emit(
        "warmup",
        batch=tally.size,
        n=len(times),
        first_ms=times[0] if times else None,
        total_s=wire.number(wire.CLOCK() - began),
        stable=steady(times),
    )


def steady(times):
    """Whether a warm-up has come to steady times."""
    k = min(max(len(times) // (2 * WINDOWS), WINDOW_LEAST), WINDOW_MOST)
    if len(times) < WINDOWS * k:
        return False
    medians = sorted(statistics.median(times[len(times) - (i + 1) * k : len(times) - i * k]) for i in range(WINDOWS))
    return medians[-1] - medians[0] <= SPREAD_MOST * medians[WINDOWS // 2]


class HostPeak:
    """The most memory that the process had resident at once, since this was made."""

    def __init__(self):
        try:
            with open("/proc/self/clear_refs", "w") as f:
                f.write("5")  # resets VmHWM, see proc(5)
            self.known = True
        except OSError:
            self.known = False  # what came before cannot be told from what comes now

    def read(self):
        """The peak in bytes, or None where the system does not tell."""
        if not self.known:
            return None
        with open("/proc/self/status") as f:
            for line in f:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return None
