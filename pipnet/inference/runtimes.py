"""The network behind one call: crops in, points and scores out, NumPy on both sides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipnet.inference.onnx_session import onnx_session

if TYPE_CHECKING:
    from pipnet.model.pipnet import PIPNet

RUNTIMES = ("auto", "torch", "onnxruntime")


class Runtime(Protocol):
    """What :class:`~pipnet.inference.landmarker.FaceLandmarker` needs of a network.

    Attributes:
        input_size: S, side of the crops in pixels.
    """

    input_size: int

    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points on crops.

        Args:
            crops: RGB uint8 ``(B, S, S, 3)``.

        Returns:
            ``points_unit``, float32 ``(B, N, 2)``, fractions of the crop; ``scores``, float32 ``(B, N)`` in [0, 1]; and
            ``face_scores``, float32 ``(B,)`` in [0, 1].
        """
        ...


class TorchRuntime:
    """A :class:`~pipnet.model.pipnet.PIPNet` in PyTorch, on the device where its weights are.

    Args:
        net: In eval mode.
    """

    def __init__(self, net: PIPNet) -> None:
        import torch

        self.net = net
        self.input_size = net.input_size
        self.device = next((weights.device for weights in net.parameters()), torch.device("cpu"))

    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`Runtime.__call__`."""
        import torch

        # Channels stay last in memory: the permuted view is torch's own channels_last format, no copy is made.
        batch = torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2)
        points_unit, scores, face_scores = (part.cpu().numpy() for part in self.net.predict(batch))
        return points_unit, scores, face_scores


class OnnxRuntime:
    """A graph of :func:`pipnet.model.graph.export_onnx` on ONNX Runtime; about twice as fast as PyTorch on a CPU.

    An object may be called from several threads.

    Args:
        path: The file.
        threads: Of one call; 0 takes ``OMP_NUM_THREADS``, and where that is not set all cores.

    Attributes:
        metadata: What the file says of itself: ``layout``, ``box_scale``, ``training``.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is no such graph; the message names it.
    """

    def __init__(self, path: str | Path, *, threads: int = 0) -> None:
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no network {path}; give the path of an .onnx file of pipnet")
        import onnxruntime  # noqa: F401  (what goes wrong here, a Ctrl-C for one, says nothing of the file)

        try:
            self._session = onnx_session(path, threads)
        except Exception as error:  # ONNX Runtime has an exception of its own for each way a file can be wrong
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise ValueError(f"{path} is damaged or not an ONNX file ({reason}); copy or export it again") from error
        self.metadata = _metadata(self._session, path)
        self.input_size = int(self.metadata["input_size"])

    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`Runtime.__call__`."""
        points_unit, scores, face_scores = self._session.run(None, {"crops": crops})
        return points_unit, scores, face_scores


def _metadata(session: Any, path: Path) -> dict[str, Any]:
    properties = session.get_modelmeta().custom_metadata_map
    if "pipnet" not in properties:
        raise ValueError(f"{path} is no network of pipnet: it says nothing of its points; export it again")
    try:
        metadata = json.loads(properties["pipnet"])
        known = metadata["format"], metadata["layout"], metadata["box_scale"], metadata["input_size"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: what the file says of its points can't be read ({error}); export it again"
        ) from error
    if known[0] > 1:
        raise ValueError(f"{path} has format {known[0]}, this pipnet reads up to 1; upgrade pipnet")
    return metadata
