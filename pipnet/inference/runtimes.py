"""The network behind one call, whatever computes it: crops in, points and scores out, NumPy on both sides."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipnet.console import MissingExtraError, missing, needs
from pipnet.inference.sessions import (
    OpenVinoSession,
    Session,
    import_openvino,
    may_have_threads,
    onnx_session,
    read_openvino,
    threads_from_environment,
)

if TYPE_CHECKING:
    import torch

    from pipnet.model.network import LandmarkNet


def choose_device(device: str) -> torch.device:
    """A torch device by name; ``"auto"`` is CUDA where there is one, else the CPU.

    Raises:
        ValueError: No such device here.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"no device {device!r}; use 'auto', 'cpu' or 'cuda'") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {device!r} is not there, torch sees {torch.cuda.device_count()} CUDA devices; use 'cpu'"
        )
    try:
        torch.zeros(1, device=chosen).cpu()  # torch knows the names of devices that it was not built for
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} can't be used here ({reason}); use 'auto', 'cpu' or 'cuda'") from error
    return chosen


def usable_device(device: str) -> str:
    """The name of a device that is here: the one asked for, or the CPU with a warning that says why.

    Where there is no trace of an NVIDIA driver PyTorch is not imported to find out: it takes seconds.

    Example:
        >>> usable_device("cpu")
        'cpu'
    """
    if device == "cpu" or (device == "auto" and "torch" not in sys.modules and shutil.which("nvidia-smi") is None):
        return "cpu"
    if device == "auto" and importlib.util.find_spec("torch") is None:
        return "cpu"
    try:
        with needs("train"):
            return str(choose_device(device))
    except (ValueError, MissingExtraError) as error:
        # A word that is no device is a mistake, not a machine without one.
        if device.partition(":")[0] not in ("cuda", "auto"):
            raise
        warnings.warn(f"{str(error).partition('; use ')[0]}; the CPU serves instead", stacklevel=3)
        return "cpu"


RUNTIMES = ("auto", "torch", "onnxruntime", "openvino")

# Which runtimes take a graph, the fastest first. A checkpoint is PyTorch's own; the others compute a graph of it that
# is made when it is loaded, which takes seconds, so they do so only when asked for.
GRAPH_RUNTIMES = {".onnx": ("openvino", "onnxruntime"), ".xml": ("openvino",)}
_CHECKPOINT = ("torch", "onnxruntime", "openvino")

# What ONNX Runtime says of a whole file whose format, or whose operators, came after it.
_TOO_NEW = ("Unsupported model IR version", "official support for domain")


class RuntimeUnavailableError(ValueError):
    """A runtime can't serve a file or a device; the message says why and what to do."""


class Runtime(Protocol):
    """What :class:`~pipnet.inference.landmarker.FaceLandmarker` needs of a network."""

    input_size: int  # S, side of the crops in pixels

    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points on crops, RGB uint8 ``(B, S, S, 3)``.

        Returns:
            ``points_unit``, float32 ``(B, N, 2)``, fractions of the crop; ``scores``, float32 ``(B, N)`` in [0, 1]; and
            ``face_scores``, float32 ``(B,)`` in [0, 1].
        """
        ...


class _Network:
    """What the runtimes here have in common: what they say of themselves."""

    name: str
    file = ""
    threads = 0
    input_size: int
    metadata: dict[str, Any]  # as the file has it: layout, crop_scale, mean_face, precision, training, card

    def __repr__(self) -> str:
        """In a line: ``300w_mobilenet_v2_int8.onnx (mobilenet_v2), openvino in int8, 2 threads``."""
        backbone = str(self.metadata.get("backbone", "a network in memory"))
        network = f"{self.file} ({backbone})" if self.file else backbone
        return f"{network}, {self.name} in {self.metadata.get('precision', 'fp32')}, {self._where()}"

    def _where(self) -> str:
        threads = self.threads or threads_from_environment()
        return "1 thread" if threads == 1 else f"{threads or 'all'} threads"


class TorchRuntime(_Network):
    """A :class:`~pipnet.model.network.LandmarkNet` in PyTorch, on the device where its weights are.

    In a forked process PyTorch computes on one thread: more of them would wait for those of the parent, for ever.

    Args:
        net: In eval mode.
        threads: Of the whole process, as PyTorch has it; 0 leaves them as they are.
    """

    name = "torch"

    def __init__(self, net: LandmarkNet, *, threads: int = 0) -> None:
        import torch

        if threads:
            torch.set_num_threads(threads)
        self.net = net
        self.threads = threads
        self.input_size = net.input_size
        self.device = next((weights.device for weights in net.parameters()), torch.device("cpu"))
        self.metadata = {} if net.ranks_faces else {"ranks_faces": False}

    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`Runtime.__call__`."""
        import torch

        if not may_have_threads() and torch.get_num_threads() > 1:
            torch.set_num_threads(1)
        # Channels stay last in memory: the permuted view is torch's own channels_last format, no copy is made.
        batch = torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2)
        points_unit, scores, face_scores = (part.cpu().numpy() for part in self.net.predict(batch))
        return points_unit, scores, face_scores

    def _where(self) -> str:
        import torch

        return "1 thread" if torch.get_num_threads() == 1 else f"{torch.get_num_threads()} threads"


class _Graph(_Network):
    """A graph of :func:`pipnet.model.onnx_graph.export_onnx`. An object may be called from several threads.

    Args:
        path: The file.
        threads: Of one call; 0 takes ``OMP_NUM_THREADS``, and where that is not set all cores.
        content: Of the file, if it is in memory; ``path`` is then only its name in messages.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is no such graph; the message names it.
    """

    def __init__(self, path: str | Path, *, threads: int = 0, content: bytes | None = None) -> None:
        path = Path(path)
        if content is None:
            _check_there(path)
        _import(self.name)
        self._session = Session(partial(self._open, path.absolute(), content, threads))
        self.metadata = self._session.get()[1]
        self.input_size = int(self.metadata["input_size"])
        self.file, self.threads = path.name, threads

    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`Runtime.__call__`."""
        points_unit, scores, face_scores = self._session.get()[0](crops)
        return points_unit, scores, face_scores

    @staticmethod
    def _open(path: Path, content: bytes | None, threads: int) -> tuple[Callable[[np.ndarray], Any], dict[str, Any]]:
        """What computes the outputs of crops, and what the file says of itself."""
        raise NotImplementedError


class OnnxRuntime(_Graph):
    """A graph on ONNX Runtime: an ``.onnx`` file."""

    name = "onnxruntime"

    @staticmethod
    def _open(path: Path, content: bytes | None, threads: int) -> tuple[Callable[[np.ndarray], Any], dict[str, Any]]:
        try:
            session = onnx_session(path if content is None else content, threads)
            described = session.get_modelmeta().custom_metadata_map.get("pipnet")
        except Exception as error:  # ONNX Runtime has an exception of its own for each way a file can be wrong
            if any(sign in str(error) for sign in _TOO_NEW):
                version = sys.modules["onnxruntime"].__version__
                raise RuntimeUnavailableError(
                    f"{path} needs a newer onnxruntime than {version}; pip install --upgrade onnxruntime brings it"
                ) from error
            raise _damaged(path, "an ONNX file", error) from error
        return lambda crops: session.run(None, {"crops": crops}), _read_metadata(described, path)


class OpenVinoRuntime(_Graph):
    """A graph on OpenVINO, the fastest on x86 CPUs: an ``.onnx`` or ``.xml`` file."""

    name = "openvino"

    @staticmethod
    def _open(path: Path, content: bytes | None, threads: int) -> tuple[Callable[[np.ndarray], Any], dict[str, Any]]:
        try:
            model, described = read_openvino(path if content is None else content)
        except Exception as error:
            raise _damaged(path, "a file for OpenVINO", error) from error
        metadata = _read_metadata(described, path)
        try:
            return OpenVinoSession(model, threads).run, metadata
        except Exception as error:
            raise RuntimeUnavailableError(f"openvino can't compute {path} here ({_reason(error)})") from error


def open_runtime(
    path: str | Path, runtime: str, *, device: str = "cpu", threads: int = 0
) -> TorchRuntime | OnnxRuntime | OpenVinoRuntime:
    """A file on one runtime, warmed up: the first crop is as fast as the next.

    OpenVINO compiles once more when several crops first come together, for half a second.

    Args:
        path: A checkpoint (``.pt``), ``.onnx`` or ``.xml``. ONNX Runtime and OpenVINO take a checkpoint too: its graph
            is made in memory (needs the package ``onnx``).
        runtime: ``"torch"``, ``"onnxruntime"`` or ``"openvino"``.
        device: ``"cpu"``, or for PyTorch a CUDA device.
        threads: Of one call; 0 takes ``OMP_NUM_THREADS``, and where that is not set all cores.

    Raises:
        RuntimeUnavailableError: It is not installed, or does not take such a file or device.
        FileNotFoundError: No such file.
        ValueError: The file is not usable; the message names it.
    """
    path = Path(path)
    if runtime not in RUNTIMES[1:]:
        raise ValueError(f"no runtime {runtime!r}; there are: {', '.join(RUNTIMES)}")
    if threads < 0:
        raise ValueError(f"threads must be 0 (all cores) or more, got {threads}")
    suffix = path.suffix.lower()
    if runtime not in GRAPH_RUNTIMES.get(suffix, _CHECKPOINT):
        raise RuntimeUnavailableError(
            f"{path} does not run on {runtime}; {suffix} files run on {' and '.join(GRAPH_RUNTIMES[suffix])}"
        )
    if importlib.util.find_spec(runtime) is None:
        brings = "onnxruntime is not installed; pip install onnxruntime brings it"  # it comes with pipnet
        raise RuntimeUnavailableError(brings if runtime == "onnxruntime" else missing(runtime))
    if runtime != "torch" and device not in ("auto", "cpu"):
        raise RuntimeUnavailableError(f"{runtime} runs on the CPU only here, not on {device!r}; give torch a .pt file")
    if suffix in GRAPH_RUNTIMES:
        opened = _GRAPHS[runtime](path, threads=threads)
    else:
        opened = _open_checkpoint(path, runtime, device, threads)
    size = opened.input_size
    opened(np.zeros((1, size, size, 3), dtype=np.uint8))
    return opened


def open_fastest(
    path: str | Path, runtime: str = "auto", *, device: str = "cpu", threads: int = 0
) -> TorchRuntime | OnnxRuntime | OpenVinoRuntime:
    """A file on the runtime asked for, or with ``"auto"`` on the fastest; if that can't serve, on the next.

    Arguments and errors are those of :func:`open_runtime`. What could not serve is a warning.
    """
    path = Path(path)
    natural = GRAPH_RUNTIMES.get(path.suffix.lower(), ("torch",))
    if runtime == "auto":
        order = [name for name in natural if importlib.util.find_spec(name) is not None] or list(natural)
    else:
        order = [runtime, *(name for name in natural if name != runtime)]
    for index, name in enumerate(order):
        try:
            return open_runtime(path, name, device=device, threads=threads)
        except RuntimeUnavailableError as error:
            if index + 1 == len(order):
                raise
            warnings.warn(f"{error}; {order[index + 1]} serves instead", stacklevel=3)
    raise AssertionError("no file without a runtime")


_GRAPHS: dict[str, type[OnnxRuntime | OpenVinoRuntime]] = {"onnxruntime": OnnxRuntime, "openvino": OpenVinoRuntime}


def _open_checkpoint(
    path: Path, runtime: str, device: str, threads: int
) -> TorchRuntime | OnnxRuntime | OpenVinoRuntime:
    for package in ("torch", "torchvision"):
        if importlib.util.find_spec(package) is None:
            raise RuntimeUnavailableError(f"{path} is a checkpoint, and {missing(package)}; or give an .onnx file")
    # torch takes seconds to import; a graph needs none of it
    from pipnet.model import checkpoint
    from pipnet.model.onnx_graph import metadata_of, onnx_graph

    if runtime == "torch":
        loaded = checkpoint.load(path, device=choose_device(device))
        opened = TorchRuntime(loaded.net, threads=threads)
        opened.metadata, opened.file = metadata_of(loaded), path.name  # as a graph of it would say of itself
        return opened
    if importlib.util.find_spec("onnx") is None:
        raise RuntimeUnavailableError(
            f"{path} is a checkpoint, of which {runtime} needs a graph, and {missing('onnx')}; or give an .onnx file"
        )
    return _GRAPHS[runtime](path, threads=threads, content=onnx_graph(checkpoint.load(path)))


def _check_there(path: Path) -> None:
    """Also of what OpenVINO would say over several lines, some of them on standard error."""
    if not path.is_file():
        raise FileNotFoundError(f"no network {path}; give the path of a .pt, .onnx or .xml file of pipnet")
    if path.suffix.lower() == ".xml":
        if not path.with_suffix(".bin").is_file():
            raise FileNotFoundError(f"{path} lacks its weights, {path.with_suffix('.bin').name}; copy both files")
        with path.open("rb") as file:
            if not file.read(64).lstrip().startswith((b"<?xml", b"<net")):
                raise ValueError(f"{path} is damaged or not a file for OpenVINO (no XML); copy or export it again")


def _import(package: str) -> None:
    """Apart from reading files: what goes wrong here, a Ctrl-C for one, says nothing of the file."""
    try:
        import_openvino() if package == "openvino" else importlib.import_module(package)
    except Exception as error:  # OpenVINO asks for the home directory, and an account may have none
        advice = "set HOME" if "home directory" in str(error) else "install it again"
        raise RuntimeUnavailableError(f"{package} can't be imported ({_reason(error)}); {advice}") from error


def _damaged(path: Path, kind: str, error: Exception) -> ValueError:
    return ValueError(f"{path} is damaged or not {kind} ({_reason(error)}); copy or export it again")


def _reason(error: Exception) -> str:
    """The first line that says something; OpenVINO begins with the places in its code."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip(" -")]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check "))]
    return (telling or lines or [type(error).__name__])[0][:160]


def _read_metadata(text: str | None, path: Path) -> dict[str, Any]:
    if text is None:
        raise ValueError(f"{path} is no network of pipnet: it says nothing of its points; export it again")
    try:
        metadata = json.loads(text)
        version = metadata["format"]
        if isinstance(version, bool) or not isinstance(version, int):
            raise TypeError(f"format is {version!r}, not a number")
        if version <= 1:
            if "box_scale" in metadata:  # its name in graphs of pipnet 0.4
                metadata["crop_scale"] = metadata.pop("box_scale")
            numbers = float(metadata["crop_scale"]), int(metadata["input_size"])
            if not isinstance(metadata["layout"], dict) or min(numbers) <= 0:
                raise TypeError("layout, crop_scale or input_size is none")
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        problem = f"what the file says of its points can't be read ({error})"
        raise ValueError(f"{path}: {problem}; export it again") from error
    if version > 1:
        raise ValueError(f"{path} has format {version}, this pipnet reads up to 1; upgrade pipnet")
    return metadata
