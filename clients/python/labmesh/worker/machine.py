"""What this machine offers, and what it is doing.

What cannot be known is left out. Nothing is taken for granted: a GPU is what
``nvidia-smi`` lists.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

_GIB = 1 << 30
_ASK_SECONDS = 20.0


def capabilities(hostname: Optional[str] = None, more_hardware: Sequence[str] = ()) -> dict[str, Any]:
    """What this machine offers, as a worker says it when it registers."""
    found: dict[str, Any] = {
        "hostname": hostname or socket.gethostname(),
        "platform": f"{platform.system().lower()}/{_machine()}",
        "cpu": _cpu(),
        "memory": _memory(),
        "tools": _tools(),
        "webnn": {"available": False},
        "webgpu": {"available": False},
    }
    hardware = ["cpu"]
    gpu = _nvidia()
    if gpu:
        found["gpu"] = gpu
        hardware.append("cuda")
    if platform.system() == "Darwin" and _machine() == "arm64":
        hardware.append("mps")
    found["hardware"] = list(dict.fromkeys([*hardware, *more_hardware]))
    return found


def _machine() -> str:
    name = platform.machine().lower()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(name, name)


def _cpu() -> dict[str, Any]:
    model, freq, cores = None, None, set()
    physical = "0"
    for name, value in _colon_lines("/proc/cpuinfo"):
        if name == "model name":
            model = model or value
        elif name == "cpu MHz":
            freq = freq or _number(value)
        elif name == "physical id":
            physical = value
        elif name == "core id":
            cores.add((physical, value))
    cpu: dict[str, Any] = {"cores": len(cores) or None, "threads": _threads()}
    if model:
        cpu["model"] = model
    if freq:
        cpu["freq_mhz"] = freq
    return cpu


def _threads() -> int:
    """The processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def _memory() -> dict[str, float]:
    sizes = {name: (_number(value.split()[0]) or 0) * 1024 for name, value in _colon_lines("/proc/meminfo") if value}
    if "MemTotal" in sizes:
        return {"total_gb": _gib(sizes["MemTotal"]), "available_gb": _gib(sizes.get("MemAvailable", sizes.get("MemFree", 0)))}
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return {"total_gb": _gib(total)}
    except (ValueError, OSError, AttributeError):
        return {}


def _tools() -> dict[str, str]:
    tools = {"python3": platform.python_version()}
    if importlib.util.find_spec("pytest"):
        try:
            tools["pytest"] = importlib.metadata.version("pytest")
        except importlib.metadata.PackageNotFoundError:
            pass
    return tools


def _nvidia() -> Optional[dict[str, Any]]:
    """The GPUs that the driver of NVIDIA lists."""
    program = shutil.which("nvidia-smi")
    if not program:
        return None
    ask = [program, "--query-gpu=index,uuid,name,memory.total,compute_cap,driver_version", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(ask, capture_output=True, text=True, timeout=_ASK_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return gpus_of(said)


def gpus_of(said: str) -> Optional[dict[str, Any]]:
    """The GPUs in what nvidia-smi printed: a line for each, with index, UUID, name, MiB, compute capability and driver."""
    devices: list[dict[str, Any]] = []
    driver = None
    for line in said.splitlines():
        words = [w.strip() for w in line.split(",")]
        if len(words) != 6 or not words[0].isdigit():
            continue
        device: dict[str, Any] = {"index": int(words[0]), "uuid": words[1], "name": words[2]}
        mib, compute = _number(words[3]), _number(words[4])
        if mib:
            device["memory_gb"] = round(mib / 1024, 2)
        if compute:
            device["compute_capability"] = words[4]
        devices.append(device)
        driver = words[5]
    if not devices:
        return None
    first = devices[0]
    gpu: dict[str, Any] = {"count": len(devices), "devices": devices, "name": first["name"], "driver": driver}
    if "memory_gb" in first:
        gpu["memory_gb"] = first["memory_gb"]
    if "compute_capability" in first:
        gpu["cuda_compute"] = float(first["compute_capability"])
    return gpu


class Sampler:
    """Tells what the machine is doing. The CPU's share is since the last call."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._last = _cpu_times()

    def sample(self) -> dict[str, float]:
        found: dict[str, float] = {}
        now = _cpu_times()
        if now and self._last and now[1] > self._last[1]:
            busy, total = now[0] - self._last[0], now[1] - self._last[1]
            found["cpu_percent"] = round(100 * busy / total, 1)
        self._last = now
        try:
            found["load1"] = round(os.getloadavg()[0], 2)
        except (OSError, AttributeError):
            pass
        memory = _memory()
        if "available_gb" in memory:
            found["memory_available_gb"] = memory["available_gb"]
        try:
            found["disk_free_gb"] = _gib(shutil.disk_usage(self._directory).free)
        except OSError:
            pass
        return found


def _cpu_times() -> Optional[tuple[float, float]]:
    """CPU time that was worked, and all of it, in ticks since the machine started."""
    try:
        with open("/proc/stat") as f:
            ticks = [float(w) for w in f.readline().split()[1:9]]
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
    except (OSError, ValueError, IndexError):
        return None


def _colon_lines(path: str) -> list[tuple[str, str]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            pairs = (line.partition(":") for line in f)
            return [(name.strip(), value.strip()) for name, colon, value in pairs if colon]
    except OSError:
        return []


def _number(text: str) -> Optional[float]:
    try:
        return float(text)
    except ValueError:
        return None


def _gib(size: float) -> float:
    return round(size / _GIB, 2)
