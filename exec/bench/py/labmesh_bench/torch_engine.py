"""PyTorch: devices, number formats, memory."""

import contextlib
import os
import re
import sys
import warnings

from . import wire

try:
    import torch
except ImportError as problem:
    raise wire.Fatal("no_engine", "%s has no usable torch: %s" % (sys.executable, problem))

GIB = float(1 << 30)

# What says that memory ran out, on the host or on a device.
OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|cannot allocate memory|bad_alloc|failed to allocate"
    r"|_ALLOC_FAILED|std::length_error|array size defines too many elements|invalid buffer size|exceeds .*memory",
    re.IGNORECASE,
)
# What says that a device or build of torch cannot do it.
NOT_SUPPORTED = re.compile(
    r"not implemented for|not supported|unsupported|doesn't support|does not support|could not run .* with arguments"
    r"|no kernel image is available|expected .* dtype|not compiled with",
    re.IGNORECASE,
)

NATIVE = {"fp64": torch.float64, "fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Engine:
    name = "torch"
    version = torch.__version__

    def __init__(self, spec):
        warnings.simplefilter("ignore")
        if spec is not None:
            choose_visible(spec, os.environ)
            if spec.threads:
                torch.set_num_threads(spec.threads)

    def env(self):
        """Versions of what torch is made of."""
        env = {"torch": torch.__version__, "cuda": torch.version.cuda, "hip": getattr(torch.version, "hip", None), "threads": torch.get_num_threads()}
        with contextlib.suppress(Exception):
            env["cudnn"] = torch.backends.cudnn.version()
        with contextlib.suppress(Exception):
            env["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
        with contextlib.suppress(Exception):
            env["mkldnn"] = torch.backends.mkldnn.is_available()
        env["transformers"], env["numpy"] = installed("transformers"), installed("numpy")
        return env

    def files(self):
        """What changes when torch does."""
        return [os.path.dirname(torch.__file__)]

    def devices(self):
        """The devices that ran a kernel, and why those of another class did not."""
        absent = {}
        found = []
        for device in candidates(absent):
            try:
                run_kernel(device)
                found.append(describe(device))
            except Exception as problem:  # whatever a driver raises
                absent[gpu_class() if device.type == "cuda" else device.type] = wire.short(problem)
        return found, absent

    def load(self, spec):
        """Makes the model of spec ready on its device."""
        device = choose_device(spec)
        try:
            run_kernel(device)
        except Exception as problem:
            raise wire.Fatal("no_device", "%s does not run a kernel: %s" % (device, wire.short(problem)))
        if spec.source == "file":
            raise wire.Fatal("unknown_model", "torch runs no model files: they hold code. Export the model to ONNX and give the .onnx file")
        return Work(spec, device)


def installed(package):
    """The version of an installed package, without importing it; None where it is not there."""
    try:
        from importlib import metadata

        return metadata.version(package)
    except Exception:
        return None


def choose_visible(spec, environ):
    """Has CUDA show the device with the UUID of spec only: slices of a GPU (MIG) are seen no other way."""
    if not spec.device_uuid:
        return
    names = [n for n in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES") if environ.get(n)]
    if not names or spec.device_uuid in environ[names[0]].split(","):
        name = "ROCR_VISIBLE_DEVICES" if getattr(torch.version, "hip", None) else "CUDA_VISIBLE_DEVICES"
        environ[name] = spec.device_uuid


def gpu_class():
    """What GPUs are called that torch sees as cuda."""
    return "rocm" if getattr(torch.version, "hip", None) else "cuda"


def candidates(absent):
    """The devices that may be there; absent takes why there is none of a class."""
    devices = [torch.device("cpu")]
    built = torch.version.cuda or getattr(torch.version, "hip", None)
    try:
        if torch.cuda.is_available():
            devices += [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
        elif built:
            absent[gpu_class()] = "torch %s is built for it (%s) and sees no device: does the driver work, and is it new enough?" % (torch.__version__, built)
    except Exception as problem:
        absent[gpu_class()] = wire.short(problem)
    for kind in ("cuda", "rocm"):
        if not built or kind != gpu_class():
            absent[kind] = "torch %s is built without %s" % (torch.__version__, "CUDA" if kind == "cuda" else "ROCm")
    if has_mps():
        devices.append(torch.device("mps"))
    return devices


def has_mps():
    mps = getattr(torch.backends, "mps", None)
    try:
        return bool(mps and mps.is_available())
    except Exception:
        return False


def run_kernel(device):
    """Runs a small kernel on device: proof that it works."""
    x = torch.ones(8, device=device)
    if float((x + x).sum()) != 16.0:
        raise RuntimeError("it computes wrongly")


def uuid_of(properties, index):
    """The UUID of a GPU as its driver says it, or None where this torch does not tell."""
    uuid = getattr(properties, "uuid", None)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if index < len(visible) and visible[index].startswith(("GPU-", "MIG-")):
        return visible[index]
    if uuid is None or gpu_class() != "cuda":
        return None
    return "GPU-%s" % uuid


def describe(device):
    """A device as the protocol has it."""
    if device.type == "cpu":
        return {"class": "cpu", "index": 0}
    if device.type == "mps":
        return {"class": "mps", "index": 0, "name": "Apple GPU"}
    p = torch.cuda.get_device_properties(device)
    known = {"class": gpu_class(), "index": device.index or 0, "name": p.name, "memory_gb": round(p.total_memory / GIB, 2)}
    uuid = uuid_of(p, device.index or 0)
    if uuid:
        known["uuid"] = uuid
    if gpu_class() == "cuda":
        known["compute_capability"] = "%d.%d" % (p.major, p.minor)
    return known


def choose_device(spec):
    """The device that spec asks for."""
    wanted, _, index = spec.device.partition(":")
    if index and not index.isdigit():
        raise wire.Fatal("bad_spec", "device: %.40r is not a class with an index after a colon" % spec.device)
    absent = {}
    there = candidates(absent)
    if wanted == "auto":
        return there[1] if len(there) > 1 else there[0]
    if wanted == "cpu":
        return there[0]
    if wanted == "mps" and has_mps():
        return torch.device("mps")
    if wanted in ("cuda", "rocm") and wanted == gpu_class():
        gpus = [d for d in there if d.type == "cuda"]
        if spec.device_uuid:
            gpus = [d for d in gpus if uuid_of(torch.cuda.get_device_properties(d), d.index) in (None, spec.device_uuid)]
        elif index:
            gpus = [d for d in gpus if d.index == int(index)]
        if gpus:
            return gpus[0]
    asked = spec.device_uuid or spec.device
    raise wire.Fatal("no_device", "torch %s sees no device %s here (%s)" % (torch.__version__, asked, absent.get(wanted) or "it sees " + ", ".join(map(str, there))))


class Loaded:
    """A model with its weights, on the CPU, and how it is fed.

    module, name, source (hf or builtin), weights (random or pretrained), shape,
    flops, attention, notes; inputs as in torch_models.Model, with a name where they go by name.
    """

    def __init__(self, **fields):
        self.__dict__.update(fields)


def choose_model(spec):
    """Finds or makes the model of spec: see docs/runner-protocol.md for the order."""
    from . import torch_models

    torch.manual_seed(spec.seed)

    known = torch_models.known_name(spec.model)
    if spec.source not in ("auto", "hf", "builtin"):
        raise wire.Fatal("bad_spec", "source: %.40r is not one of auto, hf, builtin" % spec.source)
    notes, there = [], installed("transformers")
    if known is None and (spec.source == "builtin" or not there):
        raise unknown(spec.model, "" if there else "; any other comes from the Hugging Face cache, for which %s needs the package transformers" % sys.executable)
    if spec.source == "hf" or spec.source == "auto" and there:
        try:
            from . import torch_hf

            return torch_hf.load(spec, known)
        except wire.Fatal as fatal:
            if spec.source == "hf" or known is None or fatal.code not in ("no_engine", "no_model_file"):
                raise
            notes.append("not through transformers: " + fatal.message)
    model = torch_models.describe(known, spec.sequence_length, spec.image_size)
    return Loaded(
        module=torch_models.make(known, model),
        name=known,
        source="builtin",
        weights="random",
        shape=model.shape,
        flops=model.flops,
        attention=model.attention,
        notes=notes,
        inputs=[(None, kind, shape, bound) for kind, shape, bound in model.inputs],
    )


def unknown(name, why):
    from . import torch_models

    return wire.Fatal("unknown_model", "%.80s is not a model that is built in: those are %s%s" % (name, ", ".join(sorted(torch_models.PARAMS)), why))


class Work:
    """A model on a device, in a number format."""

    def __init__(self, spec, device):
        from .torch_models import count_params

        loaded = choose_model(spec)
        self.spec, self.device, self.loaded = spec, device, loaded
        self.on_gpu = device.type == "cuda"
        self.device_ms = self._device_ms if self.on_gpu else None
        self.notes = list(loaded.notes)
        self.notes.append("inputs are on the device before the clock starts: copying them is not measured")
        self.feed, self.out, self.run, self.events = None, None, None, None
        self.unsupported = None
        params = count_params(loaded.module)
        self._take(loaded)
        self._choose_format()
        self.module = self.module.to(device)
        self.sync()
        self.model = self._model_fields(params)

    def _take(self, loaded):
        """Becomes the one owner of the module: what is converted must not be kept twice."""
        self.module, loaded.module = loaded.module.eval().requires_grad_(False), None

    # number formats

    def _choose_format(self):
        """Puts the module in the number format asked for, or in the one to fall back to, or says why it cannot be had."""
        spec = self.spec
        if spec.compile and not hasattr(torch, "compile"):
            self._plain()
            self.unsupported = "torch %s has no torch.compile: it came with 2.0" % torch.__version__
            return
        reasons = []
        for cast in [spec.cast] if spec.cast else ["native", "autocast"]:
            if reasons:
                self._take(choose_model(spec))  # the other attempt may have rounded the weights
            self._plain()
            why = self._try_format(spec.precision, cast)
            if why is None:
                return
            if why not in reasons:
                reasons.append(why)
        why = "%s cannot be had: %s" % (spec.precision, "; ".join(reasons))
        if spec.on_unsupported_precision != "fp32":
            self.unsupported, self.effective = why, None
            return
        self._take(choose_model(spec))
        self._plain()
        self.notes.append("fp32 in place of what was asked for: " + why)

    def _plain(self):
        """The format that everything runs: fp32."""
        set_tf32(False)
        self.dtype, self.cast, self.effective = torch.float32, "native", "fp32"

    def _try_format(self, precision, cast):
        """Puts the module in a number format. Returns why it cannot be had, or None."""
        kind = self.device.type
        if precision == "tf32" or precision == "fp32" and self.spec.tf32 and self.on_gpu:
            if gpu_class() != "cuda" or not self.on_gpu or torch.cuda.get_device_capability(self.device)[0] < 8:
                return "tf32 needs a CUDA device of compute capability 8.0 or more"
            set_tf32(True)
            self.effective = "tf32"
            return None
        if precision == "fp32":
            if self.spec.tf32:
                self.notes.append("tf32 changes nothing on %s" % kind)
            return None
        if precision == "int8":
            return self._quantize()
        if precision == "mixed":
            precision, cast = ("fp16" if self.on_gpu else "bf16"), "autocast"
            why = self._try_dtype(NATIVE[precision], cast)
            self.effective = "mixed(%s)" % precision
            return why
        if precision not in NATIVE:
            return "torch runs no %s here" % precision
        if precision == "fp64" and cast == "autocast":
            return "autocast to fp64 is not to be had"
        self.effective = precision
        return self._try_dtype(NATIVE[precision], cast)

    def _try_dtype(self, dtype, cast):
        """Whether the module runs with this dtype: builds and devices differ in it."""
        self.dtype, self.cast = dtype, cast
        self.module = self.module.to(dtype if cast == "native" else torch.float32).to(self.device)
        why = self._try_item()
        return why and "%s: %s" % (cast, why)

    def _try_item(self):
        """Runs one item. Returns why it cannot be, or None."""
        try:
            self.prepare(1, compiled=False)
            self.step()
        except Exception as problem:
            kind = self.kind_of(problem)
            if kind == "device_lost":
                raise wire.Fatal("device_lost", wire.short(problem))
            return None if kind == "oom" else wire.short(problem)  # of memory each batch size will say so itself
        finally:
            self.release()
        self.notes.append("one item was run to see whether %s works, before the first iteration" % self.spec.precision)
        return None

    def _quantize(self):
        """Dynamic quantization of linear layers, which torch has on CPUs."""
        if self.device.type != "cpu":
            return "torch's dynamic quantization runs on CPUs only"
        if not any(isinstance(m, torch.nn.Linear) for m in self.module.modules()):
            return "the model has no linear layers: there is nothing to quantize"
        engines = [e for e in torch.backends.quantized.supported_engines if e != "none"]
        if not engines:
            return "this build of torch has no engine for quantized arithmetic"
        if torch.backends.quantized.engine == "none":
            torch.backends.quantized.engine = engines[0]
        try:
            quantize = getattr(torch, "ao", torch).quantization.quantize_dynamic
            self.module = quantize(self.module, {torch.nn.Linear}, dtype=torch.qint8)
        except (RuntimeError, NotImplementedError, AttributeError, ImportError) as problem:
            return wire.short(problem)
        self.effective = "int8-dynamic(linear)"
        return self._try_item()

    def _model_fields(self, params):
        known = describe(self.device)
        loaded = self.loaded
        if self.device.type == "cpu" and self.spec.device.partition(":")[0] == "auto":
            self.notes.append("device auto: torch sees no accelerator here")
        return {
            "name": loaded.name,
            "source": loaded.source,
            "weights": loaded.weights,
            "params": params,
            "param_bytes": None if self.unsupported else parameter_bytes(self.module),
            "flops_per_item": loaded.flops,
            "input_shape": loaded.shape,
            "precision_requested": self.spec.precision,
            "precision_effective": self.effective,
            "cast": None if self.unsupported or self.effective == "int8-dynamic(linear)" else self.cast,
            "attn_impl": loaded.attention,
            "device_class": known["class"],
            "device_name": known.get("name"),
            "device_uuid": known.get("uuid"),
            "threads": torch.get_num_threads(),
            "notes": self.notes,
        }

    # iterations

    def prepare(self, batch, compiled=True):
        """Makes the inputs of a batch, random numbers from the seed, on the device."""
        generator = torch.Generator(device=self.device if self.on_gpu else "cpu")
        generator.manual_seed(self.spec.seed)
        named, placed = {}, []
        for name, kind, shape, bound in self.loaded.inputs:
            value = self._input((batch,) + tuple(shape), kind, bound, generator)
            if name is None:
                placed.append(value)
            else:
                named[name] = value
        run = self.module
        if compiled and self.spec.compile:
            torch._dynamo.reset()  # each batch size is compiled for itself
            run = torch.compile(self.module, dynamic=False)
        self.feed, self.run = (placed, named), run
        if self.on_gpu:
            self.events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        self.sync()

    def _input(self, shape, kind, bound, generator):
        where = self.device if self.on_gpu else torch.device("cpu")
        if kind == "tokens":
            return torch.randint(bound, shape, generator=generator, device=where).to(self.device)
        if kind == "ones":
            return torch.ones(shape, dtype=torch.long, device=self.device)
        dtype = self.dtype if self.cast == "native" else torch.float32
        return torch.randn(shape, generator=generator, device=where).to(self.device, dtype)

    def step(self):
        """One iteration, to its very end."""
        placed, named = self.feed
        if self.events:
            self.events[0].record()
        with torch.inference_mode():
            if self.cast == "autocast":
                with torch.autocast(self.device.type, dtype=self.dtype):
                    self.out = self.run(*placed, **named)
            else:
                self.out = self.run(*placed, **named)
        if self.events:
            self.events[1].record()
            self.events[1].synchronize()
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def _device_ms(self):
        return self.events[0].elapsed_time(self.events[1])

    def sync(self):
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps" and hasattr(torch, "mps"):
            torch.mps.synchronize()

    def result(self):
        """Whether all that came out is finite, and its size, mean and root mean square."""
        finite, count, total, squares = True, 0, 0.0, 0.0
        for out in tensors(self.out):
            if not out.is_floating_point():
                continue
            for part in out.reshape(-1).split(1 << 24):
                part = part.to("cpu").double()
                finite = finite and bool(torch.isfinite(part).all())
                count, total, squares = count + part.numel(), total + float(part.sum()), squares + float(part.pow(2).sum())
        if not count:
            return None, None
        return finite, "%d:%.4e:%.4e" % (count, total / count, (squares / count) ** 0.5)

    # memory

    def reset_memory(self):
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)

    def memory(self):
        if not self.on_gpu:
            return {}
        return {
            "device_peak_bytes": torch.cuda.max_memory_allocated(self.device),
            "device_reserved_bytes": torch.cuda.max_memory_reserved(self.device),
            "device_total_bytes": torch.cuda.get_device_properties(self.device).total_memory,
        }

    def release(self):
        self.feed = self.out = self.run = self.events = None
        try:
            if self.on_gpu:
                torch.cuda.empty_cache()
            elif self.device.type == "mps":
                torch.mps.empty_cache()
        except Exception as problem:  # of a device that is lost
            print("release: %s" % wire.short(problem), file=sys.stderr)

    def kind_of(self, problem):
        """What an exception means for the batch size under way."""
        words = "%s: %s" % (type(problem).__name__, problem)
        if isinstance(problem, MemoryError) or OUT_OF_MEMORY.search(words):
            return "oom"
        if self.on_gpu and not isinstance(problem, (wire.Unsupported, NotImplementedError)) and not self._alive():
            return "device_lost"
        if isinstance(problem, (wire.Unsupported, NotImplementedError)) or self.spec.precision != "fp32" and NOT_SUPPORTED.search(words) or "no kernel image" in words:
            return "unsupported"
        return "error"

    def _alive(self):
        try:
            run_kernel(self.device)
            return True
        except Exception as problem:
            return bool(OUT_OF_MEMORY.search(str(problem)))


def set_tf32(on):
    """Whether products of fp32 matrices may be computed in TF32."""
    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on


def tensors(out):
    """All tensors in what a model returned."""
    if torch.is_tensor(out):
        yield out
    elif isinstance(out, dict):
        for value in out.values():
            yield from tensors(value)
    elif isinstance(out, (list, tuple)):
        for value in out:
            yield from tensors(value)


def parameter_bytes(module):
    """Bytes of the weights as they are held; quantized ones keep them in an object of their own."""
    total = sum(p.numel() * p.element_size() for p in module.parameters())
    for m in module.modules():
        if hasattr(m, "_packed_params") and callable(getattr(m, "weight", None)):
            weight, bias = m.weight(), m.bias()
            total += weight.numel() * weight.element_size() + (0 if bias is None else bias.numel() * bias.element_size())
    return total
