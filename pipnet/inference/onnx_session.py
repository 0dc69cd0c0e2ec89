"""How ONNX Runtime is started here, for the face detector and the landmark network alike."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pipnet.atomic import openable


def onnx_session(model: str | Path | bytes, threads: int = 0) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU.

    Args:
        model: A file, or its content.
        threads: Of one run; 0 takes ``OMP_NUM_THREADS``, and where that is not set all cores.
    """
    import onnxruntime  # here, so that nobody pays for a network that isn't used

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or threads_from_environment()
    options.inter_op_num_threads = 1
    # Idle threads would spin after each run and slow whatever runs next: the other network, the camera, the window.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only: ONNX Runtime warns about devices that are not there
    with nullcontext(model) if isinstance(model, bytes) else openable(model) as source:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def threads_from_environment() -> int:
    """OpenMP's own variable, which ONNX Runtime does not read; it may be a list, one number for each nesting level."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 0
