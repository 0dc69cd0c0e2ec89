"""A trained network as one graph that is enough to predict: ``python -m pipnet.export``.

    python -m pipnet.export runs/mine/best.pt                                   # best.onnx, 32 bits
    python -m pipnet.export runs/mine/best.pt --precision int8 --data-root DIR  # best_int8.onnx
    python -m pipnet.export shipped --format openvino --output out              # out/300w_mobilenet_v2.xml and .bin
    python -m pipnet.export --show best_int8.onnx                               # what a file says of itself

Layout, crop scale, training record and card travel in the file. int8 is calibrated on faces that the network was
trained on, on another ``--dataset``, or on ``--faces DIR`` without labels; ``--calibration-faces`` of them, and every
second one is cut in a box that is off, as those of hard faces are.

Every file is opened again before it gets its name, with each runtime that is installed and can serve it, and compared
with PyTorch. A 32-bit graph that is off by more than 0.001 px of the crop is not kept; an 8-bit one that moves points
by more than 0.3 % of the crop's side on average is kept with a warning. docs/export.md describes the graph.

Needs the extra ``export``, and ``openvino`` for that format. Exit status: 0; 1 when the graph differs from the network,
a package of an extra is not installed, or the user interrupted; 2 when something could not be used or written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from pipnet.export.writing import Difference
    from pipnet.model.checkpoint import LoadedModel


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with arguments other than the process's own; returns the exit status."""
    from pipnet import console

    def work() -> int:
        from pipnet.export.command import run

        return run(arguments)

    return console.run("export", work, alone=arguments is None, unfinished="nothing was written")


def export(
    checkpoint: str | Path | LoadedModel,
    path: str | Path,
    *,
    precision: str = "fp32",
    crops: np.ndarray | None = None,
    card: str | None = None,
) -> list[Difference]:
    """Write a network as one graph, and compare it with PyTorch.

    Args:
        checkpoint: A file, or what :func:`pipnet.model.checkpoint.load` made of it.
        path: ``.onnx``, or ``.xml`` for OpenVINO.
        precision: ``"fp32"`` or ``"int8"``.
        crops: Faces as the network sees them, RGB uint8 ``(K, S, S, 3)``;
            :func:`pipnet.export.faces.calibration_crops` cuts them. int8 is calibrated on them; fp32 is
            compared on them, or on synthetic faces.
        card: Text about the weights; None takes ``NAME.md`` beside the checkpoint, or makes one.

    Returns:
        How far each runtime is from PyTorch.

    Raises:
        pipnet.export.writing.ExportError: A 32-bit graph differs; nothing is kept.
        ValueError: An argument is wrong, the checkpoint can't be used, or a package is missing.
        OSError: A file can't be read or written.
    """
    from pipnet.export.command import PRECISIONS, SUFFIXES, card_of
    from pipnet.export.faces import synthetic_faces
    from pipnet.export.writing import write
    from pipnet.model import checkpoint as checkpoints

    path, source = Path(path), None
    if path.suffix not in SUFFIXES.values():
        raise ValueError(f"{path}: the name must end in {' or '.join(SUFFIXES.values())}")
    if precision not in PRECISIONS:
        raise ValueError(f"no precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    if precision == "int8" and crops is None:
        raise ValueError("int8 is calibrated on training faces: give crops, uint8 (K, S, S, 3)")
    if isinstance(checkpoint, str | Path):
        source = Path(checkpoint)
        checkpoint = checkpoints.load(source)
    return write(
        checkpoint,
        path,
        precision=precision,
        crops=synthetic_faces(checkpoint).crops if crops is None else crops,
        card=card_of(checkpoint, source) if card is None else card,
    )
