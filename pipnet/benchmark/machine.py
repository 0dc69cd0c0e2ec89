"""What the figures were measured on: processor, cores, versions, load."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_SETTINGS = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "MALLOC_", "ONEDNN_", "DNNL_")
_PACKAGES = ("torch", "onnxruntime", "openvino", "numpy", "opencv-python")


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_vnni() -> bool | None:
    """Whether the processor multiplies and adds int8 in one instruction (VNNI); None where the system does not say."""
    flags = _cpuinfo("flags").split()
    return bool({"avx512_vnni", "avx_vnni"} & set(flags)) if flags else None


def load_average() -> float | None:
    """Processes that wanted a core, over the last minute; None where the system does not say."""
    with suppress(AttributeError, OSError):
        return os.getloadavg()[0]
    return None


def describe() -> dict[str, Any]:
    """Processor, cores, system, versions, and environment variables that change times, as plain types."""
    versions = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "processor": _cpuinfo("model name") or platform.processor() or platform.machine() or "unknown",
        "vnni": has_vnni(),
        "cores": usable_cores(),
        "system": platform.system(),
        "python": platform.python_version(),
        "pipnet": import_module("pipnet").__version__,
        # What sets threads or the allocator from outside: times differ with it.
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith(_SETTINGS)},
        "versions": versions,
    }


def _cpuinfo(key: str) -> str:
    """A line of Linux's description of the first core; empty elsewhere."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.partition(":")[0].strip() == key:
                return line.partition(":")[2].strip()
    return ""
