"""How ONNX Runtime, OpenVINO and OpenCV are started here, and started again in other processes."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from pipnet.files import openable, replacing

T = TypeVar("T")


class Session(Generic[T]):
    """What ``open_()`` gives, opened when it is first needed, and again in each process that it gets into.

    A session has threads, and they don't live on in a forked process: there it would wait for them, at the latest when
    it is closed. So a fork leaves it alone for good and opens its own. A copy, pickled or not, opens its own too.
    ``open_`` must be picklable.
    """

    def __init__(self, open_: Callable[[], T]) -> None:
        self._open = open_
        self._opened: T | None = None
        self._lock = threading.Lock()
        _sessions.add(self)

    def get(self) -> T:
        """The session of this process."""
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def __reduce__(self) -> tuple[Any, ...]:
        return Session, (self._open,)

    def _leave(self) -> None:
        """In a forked process: never closed, because that would join threads that are not there."""
        if self._opened is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._opened))
        self._opened, self._lock = None, threading.Lock()  # another thread may have held the lock


_sessions: weakref.WeakSet[Session[Any]] = weakref.WeakSet()
_torch_may_have_threads = True


def may_have_threads() -> bool:
    """Whether PyTorch may compute on several threads; in a forked process its OpenMP would wait for the parent's."""
    return _torch_may_have_threads


def _forked() -> None:
    global _torch_may_have_threads
    _torch_may_have_threads = _torch_may_have_threads and "torch" not in sys.modules
    for session in list(_sessions):
        session._leave()
    if "onnxruntime" in sys.modules or "openvino" in sys.modules:
        # What they tear down when a program ends waits for their threads as well, even where there was no session
        # (1.32). Python has ended by then, so nothing is lost when the process does without it.
        with suppress(AttributeError):  # not in every C library
            libc = ctypes.CDLL(None)
            libc.on_exit(ctypes.cast(libc._exit, ctypes.c_void_p), None)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forked)


class OpenVinoSession:
    """A graph from :func:`read_openvino` compiled for this CPU; ``threads`` as in :func:`onnx_session`.

    One crop goes through a version compiled for exactly one, which is a sixth faster than the one for any number; that
    one is compiled when the first batch of several comes.
    """

    def __init__(self, model: Any, threads: int = 0) -> None:
        self._model = model
        threads = threads or threads_from_environment()
        # Its default precision is 16 bits on CPUs that have them, and points then move by pixels.
        self._settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        single = model.clone()
        single.reshape([1, *list(model.inputs[0].get_partial_shape())[1:]])
        self._single = self._compile(single)
        self._several: Any = None
        self._requests = threading.local()
        self._compiling = threading.Lock()

    def run(self, crops: np.ndarray) -> list[np.ndarray]:
        """Outputs of the graph for uint8 crops ``(B, S, S, 3)``, arrays of their own."""
        import openvino

        request = self._request(single=len(crops) == 1)
        # Not request.infer([crops]): its many ways to take inputs cost a fiftieth of the network.
        crops = np.require(crops, np.uint8, ("C_CONTIGUOUS", "WRITEABLE"))  # as it is, if it is so
        request.set_input_tensor(openvino.Tensor(crops, shared_memory=True))
        request.infer()
        return [np.array(output.data) for output in request.output_tensors]

    def _request(self, *, single: bool) -> Any:
        """A request is a run's memory: each thread has its own, so that an object may be called from several."""
        name = "single" if single else "several"
        request = getattr(self._requests, name, None)
        if request is None:
            with self._compiling:
                if not single and self._several is None:
                    self._several = self._compile(self._model)
            request = (self._single if single else self._several).create_infer_request()
            setattr(self._requests, name, request)
        return request

    def _compile(self, model: Any) -> Any:
        return _core.get().compile_model(model, "CPU", self._settings)


def import_openvino() -> Any:
    """The module ``openvino``, without its telemetry.

    Imported for the first time it reports that over the network, from a process of multiprocessing, which runs a user's
    unguarded script a second time wherever processes are spawned (Python 3.14, macOS, Windows).
    """
    known = "openvino_telemetry" in sys.modules
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed
    try:
        return importlib.import_module("openvino")
    finally:
        if not known:
            del sys.modules["openvino_telemetry"]


# OpenVINO, once for the process and for good. Each core gives the thread that makes it a stack for signal handlers, and
# takes it away when it goes. When several go in another order than they came (2026.4), the next Ctrl-C finds none, and
# the process ends in a crash.
_core = Session(lambda: import_openvino().Core())


def read_openvino(source: str | Path | bytes) -> tuple[Any, str | None]:
    """The ``openvino.Model`` of an ``.onnx`` or ``.xml`` file, or of an ONNX content, and its metadata (JSON)."""
    with nullcontext(BytesIO(source)) if isinstance(source, bytes) else openable(source) as there:
        model = _core.get().read_model(there)
    key = ["framework", "pipnet"]  # where OpenVINO keeps the metadata of an ONNX file, also in its own format
    metadata = model.get_rt_info(key).astype(str) if model.has_rt_info(key) else None
    _mark_pixels(model)
    return model, metadata


def export_openvino(source: str | Path | bytes, path: str | Path) -> None:
    """Write an ONNX file, or its content, in OpenVINO's format: ``path``, and its weights beside it as ``.bin``.

    Both appear whole or not at all; the weights first, because a reader starts from ``path``.

    Raises:
        OSError: A file can't be written.
    """
    openvino = import_openvino()
    path = Path(path)
    model, _ = read_openvino(source)
    with replacing(path) as description, replacing(path.with_suffix(".bin")) as weights:
        written = description.with_suffix(".bin")
        try:
            with openable(description) as name:
                openvino.save_model(model, name, compress_to_fp16=False)
            os.replace(written, weights)
        except RuntimeError as error:  # how OpenVINO reports a full disk
            raise OSError(f"{path} can't be written: {str(error).strip().splitlines()[-1]}") from error
        finally:
            written.unlink(missing_ok=True)


def _mark_pixels(model: Any) -> None:
    """Say of an 8-bit graph that its crops are 8-bit numbers on a scale.

    OpenVINO looks for an operation that makes numbers so; without one it computes the first convolution in 32 bits.
    Graphs in 32 bits, and files that have the mark already, have no such scale and stay as they are.
    """
    from openvino import opset13 as ops

    node = _only_user(model.inputs[0].get_node())
    while node is not None and node.get_type_name() in ("Pad", "Transpose"):
        node = _only_user(node)
    if node is None or node.get_type_name() != "Convert":
        return
    scaled = _only_user(node)
    if scaled is not None and scaled.get_type_name() == "Subtract":  # of the zero point, which is 0
        scaled = _only_user(scaled)
    if scaled is None or scaled.get_type_name() != "Multiply":
        return
    scale = float(scaled.input_value(1).get_node().data.reshape(-1)[0])
    zero, white, end = (ops.constant(np.full((1, 1, 1, 1), value, np.float32)) for value in (0, 255, 255 * scale))
    marked = ops.fake_quantize(node.output(0), zero, white, zero, end, 256)
    for target in list(scaled.output(0).get_target_inputs()):
        target.replace_source_output(marked.output(0))
    model.validate_nodes_and_infer_types()


def _only_user(node: Any) -> Any:
    """The one node that computes with a node's output, or None; asking for its shape is no computing."""
    users = [target.get_node() for target in node.output(0).get_target_inputs()]
    users = [user for user in users if user.get_type_name() != "ShapeOf"]
    return users[0] if len(users) == 1 else None


def onnx_session(model: str | Path | bytes, threads: int = 0) -> Any:
    """An ``onnxruntime.InferenceSession`` of a file or its content, on the CPU.

    ``threads`` are those of one run; 0 takes ``OMP_NUM_THREADS``, and where that is not set all cores.
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


_quiet_lock = threading.RLock()


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """OpenCV and the FFmpeg inside it print no warnings: what goes wrong, pipnet says in its own words."""
    import cv2

    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when the first video is opened
    logging: Any = getattr(cv2.utils, "logging", cv2)  # OpenCV 5, OpenCV 4
    with _quiet_lock:
        before = logging.getLogLevel()
        logging.setLogLevel(0)
        try:
            yield
        finally:
            logging.setLogLevel(before)
