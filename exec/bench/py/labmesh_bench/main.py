"""The two things a runner is asked: probe and run."""

import gc
import os
import platform
import sys
import traceback

from . import measure, wire

ENGINES = ("torch", "onnxruntime")


def main(args, fd):
    """Does what args ask for, writes events to fd, and returns the exit code."""
    if len(args) != 2 or args[0] not in ENGINES or args[1] not in ("probe", "run"):
        print("usage: runner.py torch|onnxruntime probe|run", file=sys.stderr)
        return 2
    prepare_process()
    events, stop = wire.Events(fd), wire.Stop()
    try:
        if args[1] == "probe":
            return probe(args[0], events)
        run(args[0], events, stop)
        return 0
    except BrokenPipeError:
        return 1  # nobody listens
    except wire.Fatal as fatal:
        events.emit("fatal", code=fatal.code, message=wire.short(fatal.message))
    except MemoryError:
        gc.collect()
        events.emit("fatal", code="out_of_memory", message="there is too little memory for the runner itself and the model")
    except Exception as problem:  # whatever a library raises
        traceback.print_exc()
        events.emit("fatal", code="internal", message=wire.short("%s: %s" % (type(problem).__name__, problem)))
    return 1


def prepare_process():
    """Sets what must be set before an engine is imported."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        os.environ[name] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:  # when memory runs out the kernel should choose this process, not the node
        with open("/proc/self/oom_score_adj", "w") as f:
            f.write("1000")
    except OSError:
        pass  # no Linux, or not allowed: the kernel chooses


def load_engine(name, spec):
    """The engine called name, imported. Threads must be known before that."""
    if spec is not None and spec.threads:
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[variable] = str(spec.threads)
    if name == "torch":
        from . import torch_engine as module
    else:
        from . import onnx_engine as module
    return module.Engine(spec)


def hello(engine, events, devices=None, more=None):
    """Says who this is and what it runs on."""
    env = {"python": platform.python_version(), "executable": sys.executable, "blas": blas()}
    env.update(engine.env())
    env.update(more or {})
    events.emit(
        "hello",
        runner=engine.name,
        runner_version=engine.version,
        pid=os.getpid(),
        devices=devices,
        env={name: value for name, value in env.items() if value is not None},
    )


def blas():
    """The libraries for linear algebra that were loaded, as far as the system tells."""
    found = set()
    try:
        with open("/proc/self/maps") as maps:
            for line in maps:
                name = os.path.basename(line.split(maxsplit=5)[-1].strip()) if line.count("/") else ""
                if name.startswith(("libopenblas", "libblas", "libmkl_core", "libmkl_rt", "libblis", "libatlas", "libcublas.")):
                    found.add(name)
    except OSError:
        return None
    return " ".join(sorted(found)) or None


def probe(name, events):
    """Says which devices the engine can use; each has run a small kernel. What would change the answer is told too: env.watch."""
    watch = [path for path in sys.path[1:] if os.path.isdir(path)]
    try:
        engine = load_engine(name, None)
        devices, absent = engine.devices()
        if not devices:
            raise wire.Fatal("no_device", "%s ran no kernel on any device: %s" % (name, "; ".join(absent.values()) or "it has none"))
    except wire.Fatal as fatal:
        events.emit("fatal", code=fatal.code, message=wire.short(fatal.message), env={"watch": watch})
        return 1
    hello(engine, events, devices, {"watch": watch + engine.files(), "absent": absent})
    return 0


def run(name, events, stop):
    """Measures what the spec on standard input asks for."""
    spec = wire.read_spec()
    engine = load_engine(name, spec)
    hello(engine, events)
    began = wire.CLOCK()
    work = engine.load(spec)
    events.emit("model", load_s=wire.number(wire.CLOCK() - began), **work.model)
    for batch in spec.batch_sizes:
        if stop.asked:
            break
        measure.batch(work, spec, batch, events, stop)
    events.emit("done", total_s=wire.number(wire.CLOCK() - wire.STARTED))
