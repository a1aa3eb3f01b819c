"""ONNX Runtime, for .onnx files.

A file says what it takes, with names or nothing for the sizes that are free. The
first size is the batch; what the others are taken for is said in the notes. The
number format is the file's own: none is converted.
"""

import mmap
import os
import re
import sys

from . import wire

try:
    import onnxruntime as ort
except ImportError as problem:
    raise wire.Fatal("no_engine", "%s has no usable onnxruntime: %s" % (sys.executable, problem))
import numpy as np  # which onnxruntime needs itself

# Execution providers, by the class of device they run on.
PROVIDERS = {
    "cuda": ("CUDAExecutionProvider", "TensorrtExecutionProvider"),
    "rocm": ("MIGraphXExecutionProvider", "ROCMExecutionProvider"),
    "mps": ("CoreMLExecutionProvider",),
    "openvino": ("OpenVINOExecutionProvider",),
    "cpu": ("CPUExecutionProvider",),
}

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}
FORMATS = {"tensor(float)": "fp32", "tensor(float16)": "fp16", "tensor(double)": "fp64", "tensor(bfloat16)": "bf16"}

# Names of operators in a file whose products are of whole numbers.
QUANTIZED = (b"DynamicQuantizeLinear", b"MatMulInteger", b"ConvInteger", b"QLinearMatMul", b"QLinearConv", b"DequantizeLinear")

TOKENS = 1000  # every vocabulary has so many words

OUT_OF_MEMORY = re.compile(r"out of memory|failed to allocate|bad_alloc|cannot allocate memory|unable to allocate|available memory|_ALLOC_FAILED", re.IGNORECASE)

GPUS_MAX = 64


def message(number, *parts):
    """A field of a protocol buffer that holds bytes, a text, or a message made of such parts."""
    data = b"".join(p.encode() if isinstance(p, str) else p for p in parts)
    return bytes([number << 3 | 2, len(data)]) + data


def whole(number, value):
    """A field of a protocol buffer that holds a small whole number."""
    return bytes([number << 3, value])


def kernel():
    """What a probe runs: a model of one node, y = x + x, of float[4], in the format of ONNX (onnx.proto3)."""

    def value(name):
        shape = message(2, message(1, whole(1, 4)))
        return message(1, name) + message(2, message(1, whole(1, 1), shape))

    node = message(1, "x") + message(1, "x") + message(2, "y") + message(4, "Add")
    graph = message(1, node) + message(2, "probe") + message(11, value("x")) + message(12, value("y"))
    return whole(1, 7) + message(7, graph) + message(8, whole(2, 13))


class Engine:
    name = "onnxruntime"
    version = ort.__version__

    def __init__(self, spec):
        ort.set_default_logger_severity(3)
        if spec is not None and spec.device_uuid and not os.environ.get("CUDA_VISIBLE_DEVICES"):
            os.environ["CUDA_VISIBLE_DEVICES"] = spec.device_uuid

    def env(self):
        """Versions of what it is made of."""
        return {"onnxruntime": ort.__version__, "providers": " ".join(ort.get_available_providers()), "numpy": np.__version__}

    def files(self):
        """What changes when onnxruntime does."""
        return [os.path.dirname(ort.__file__)]

    def devices(self):
        """The devices that ran a kernel, and why those of another class did not."""
        found, absent = [], {}
        for kind in PROVIDERS:
            if not providers_of(kind):
                absent[kind] = "onnxruntime %s has no provider for it: it has %s" % (ort.__version__, ", ".join(ort.get_available_providers()))
                continue
            for index in range(GPUS_MAX if kind in ("cuda", "rocm") else 1):
                try:
                    run_kernel(kind, index)
                except Exception as problem:  # whatever a driver raises
                    if index == 0:
                        absent[kind] = wire.short(problem)
                    break
                found.append({"class": kind, "index": index})
        return found, absent

    def load(self, spec):
        """Makes the model of spec ready on its device."""
        path = spec.file or spec.model
        if not path.endswith(".onnx") or not os.path.isfile(path):
            raise wire.Fatal("no_model_file", "%.200s is no .onnx file that is there: put the model into the bundle of the task" % path)
        kind, index = choose_device(spec)
        return Work(spec, path, kind, index)


def providers_of(kind):
    """The execution providers that this onnxruntime has for a class of device."""
    there = ort.get_available_providers()
    return [p for p in PROVIDERS[kind] if p in there]


def choose_device(spec):
    """Class and index of the device that spec asks for."""
    wanted, _, index = spec.device.partition(":")
    if index and not index.isdigit():
        raise wire.Fatal("bad_spec", "device: %.40r is not a class with an index after a colon" % spec.device)
    if wanted == "auto":
        wanted = next(kind for kind in PROVIDERS if providers_of(kind))
    if not providers_of(wanted) if wanted in PROVIDERS else True:
        raise wire.Fatal("no_device", "onnxruntime %s has no provider for %.40s; it has %s" % (ort.__version__, wanted, ", ".join(ort.get_available_providers())))
    return wanted, 0 if spec.device_uuid else int(index or 0)


def open_session(model, kind, index, threads=0, tf32=False, notes=None):
    """A session whose first provider is the one for kind, or an error: it must not fall back to the CPU unseen."""
    options = ort.SessionOptions()
    if threads:
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    provider = providers_of(kind)[0]
    settings = {}
    if kind in ("cuda", "rocm"):
        settings["device_id"] = str(index)
    if kind == "cuda":
        settings["use_tf32"] = str(int(tf32))
    wanted = [(provider, settings)] if settings else [provider]
    if kind != "cpu":
        wanted.append("CPUExecutionProvider")  # runs what the other has no kernel for
    try:
        session = ort.InferenceSession(model, options, providers=wanted)
    except Exception as problem:
        if "use_tf32" not in str(problem):
            raise
        del settings["use_tf32"]
        if notes is not None:
            notes.append("this onnxruntime does not say whether it computes in TF32")
        session = ort.InferenceSession(model, options, providers=wanted)
    if session.get_providers()[0] != provider:
        raise RuntimeError("%s does not start: its libraries or the driver are missing or do not match" % provider)
    return session


def run_kernel(kind, index):
    """Runs a small kernel on a device: proof that it works."""
    y = open_session(kernel(), kind, index).run(None, {"x": np.ones(4, np.float32)})[0]
    if y.tolist() != [2.0] * 4:
        raise RuntimeError("it computes wrongly")


class Work:
    """A model file in a session; see measure for what it must have."""

    device_ms = None  # onnxruntime tells no times of the device

    def __init__(self, spec, path, kind, index):
        self.spec, self.kind, self.index = spec, kind, index
        self.unsupported, self.feed, self.binding, self.out = None, None, None, None
        self.notes = ["inputs are on the device before the clock starts: copying them is not measured"]
        try:
            self.session = open_session(path, kind, index, spec.threads, spec.tf32, self.notes)
        except MemoryError:
            raise
        except Exception as problem:
            if OUT_OF_MEMORY.search(str(problem)):
                raise MemoryError(str(problem))
            raise wire.Fatal("no_model_file", "onnxruntime does not load %.200s: %s" % (path, wire.short(problem)))
        self.sizes = {}
        effective = file_format(self.session, path)
        if spec.compile:
            self.unsupported = "onnxruntime has nothing to compile: it optimizes every model when it loads it"
        asked = "fp32" if spec.precision == "tf32" else spec.precision
        if effective is not None and effective.partition("(")[0] != asked:
            if effective == "fp32" and spec.on_unsupported_precision == "fp32":
                self.notes.append("fp32 in place of %s: it is what the file computes in" % spec.precision)
            else:
                self.unsupported = "the file computes in %s, not in %s: ask for that, or export the model in %s" % (effective, spec.precision, spec.precision)
                effective = None
        shapes = {i.name: self._shape(i, None) for i in self.session.get_inputs()}
        self.model = {
            "name": os.path.basename(path),
            "source": "file",
            "weights": "pretrained",
            "param_bytes": None,
            "input_shape": {"%s[%d]" % (name, axis): size for name, shape in shapes.items() for axis, size in enumerate(shape) if size is not None},
            "precision_requested": spec.precision,
            "precision_effective": effective,
            "device_class": kind,
            "device_uuid": spec.device_uuid or None,
            "threads": spec.threads or None,
            "notes": self.notes,
        }

    # what it is fed

    def _shape(self, spec_of_input, batch):
        """The shape of an input: free sizes are filled in. The batch stays as it is given, for None too."""
        shape, rank = [], len(spec_of_input.shape)
        for axis, size in enumerate(spec_of_input.shape):
            if isinstance(size, int) and size > 0:
                shape.append(size)
            elif axis == 0:
                shape.append(batch)
            else:
                shape.append(self._free(spec_of_input.name, size, axis, rank))
        return shape

    def _free(self, name, symbol, axis, rank):
        key = symbol or "%s[%d]" % (name, axis)
        if key not in self.sizes:
            if rank == 4:
                self.sizes[key] = 3 if axis == 1 else self.spec.image_size or 224
            else:
                self.sizes[key] = self.spec.sequence_length or 128
            self.notes.append("the size %s of %s is free: taken for %d" % (symbol or "of axis %d" % axis, name, self.sizes[key]))
        return self.sizes[key]

    def prepare(self, batch):
        """Makes the inputs of a batch, random numbers from the seed, on the device."""
        inputs = self.session.get_inputs()
        first = [i.shape[0] for i in inputs if i.shape]
        fixed = [size for size in first if isinstance(size, int) and size > 0]
        if len(fixed) == len(first) and fixed and fixed[0] != batch:
            raise wire.Unsupported("the batch size of the file is fixed at %d: export it with a free one" % fixed[0])
        random = np.random.default_rng(self.spec.seed & (1 << 64) - 1)
        self.feed = {i.name: make_input(i, self._shape(i, batch), random) for i in inputs}
        if self.kind not in ("cuda", "rocm"):
            return
        self.binding = self.session.io_binding()
        for name, value in self.feed.items():
            self.binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value, "cuda", self.index))
        for output in self.session.get_outputs():
            self.binding.bind_output(output.name, "cuda", self.index)
        self.binding.synchronize_inputs()

    # iterations

    def step(self):
        """One iteration, to its very end."""
        if self.binding is None:
            self.out = self.session.run(None, self.feed)
            return
        self.session.run_with_iobinding(self.binding)
        self.binding.synchronize_outputs()

    def result(self):
        """Whether all that came out is finite, and its size, mean and root mean square."""
        out = self.out if self.binding is None else self.binding.copy_outputs_to_cpu()
        out = [o.astype(np.float64).ravel() for o in out if isinstance(o, np.ndarray) and o.dtype.kind == "f" and o.size]
        if not out:
            return None, None
        count = sum(o.size for o in out)
        mean, square = sum(float(o.sum()) for o in out) / count, sum(float(o @ o) for o in out) / count
        finite = all(bool(np.isfinite(o).all()) for o in out)
        return finite, "%d:%.4e:%.4e" % (count, mean, square**0.5)

    # memory

    def reset_memory(self):
        pass  # onnxruntime tells nothing of the memory of a device

    def memory(self):
        return {}

    def release(self):
        self.feed = self.binding = self.out = None

    def kind_of(self, problem):
        """What an exception means for the batch size under way."""
        words = "%s: %s" % (type(problem).__name__, problem)
        if isinstance(problem, MemoryError) or OUT_OF_MEMORY.search(words):
            return "oom"
        if isinstance(problem, wire.Unsupported) or "NOT_IMPLEMENTED" in words:
            return "unsupported"
        if self.kind == "cuda" and "CUDA failure" in words:
            return "device_lost"
        return "error"


def make_input(of, shape, random):
    """A value for an input: floats are normal, masks are ones, other whole numbers are words."""
    dtype = DTYPES.get(of.type)
    if dtype is None:
        raise wire.Unsupported("the input %.80s is of type %s, which this runner cannot make" % (of.name, of.type))
    name = of.name.lower()
    if np.dtype(dtype).kind == "f":
        return random.standard_normal(shape, np.float32).astype(dtype)
    if "mask" in name or dtype is np.bool_:
        return np.ones(shape, dtype)
    if "type" in name or "segment" in name:
        return np.zeros(shape, dtype)
    if "position" in name and shape:
        return np.broadcast_to(np.arange(shape[-1]), shape).astype(dtype)
    return random.integers(0, TOKENS if np.dtype(dtype).itemsize > 1 else 100, shape).astype(dtype)


def file_format(session, path):
    """The number format of a file's arithmetic, by its operators and by the types of what goes in and comes out; None where they do not tell."""
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if any(data.find(name) >= 0 for name in QUANTIZED):
            return "int8(file)"
    for value in list(session.get_inputs()) + list(session.get_outputs()):
        if value.type in FORMATS:
            return FORMATS[value.type]
    return None
