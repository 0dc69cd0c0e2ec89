"""How the ranges of 8-bit numbers are measured, and what it does to the points.

    python experiments/int8/ranges.py DATA_ROOT      # ranges.json; 3 minutes

The network that ships, made 8-bit in four ways with the same 300 training faces, on ONNX Runtime and OpenVINO, against
its 32-bit graph on the 202 validation faces of DATA_ROOT/300W: what was chosen was chosen here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from experiments.record import data_root, write

FILE = Path(__file__).with_suffix(".json")
# key: (ranges are means over faces, offsets are stretched)
WAYS = {"extremes": (False, False), "means": (True, False), "stretched": (False, True), "shipped": (True, True)}


@contextmanager
def made_otherwise(means: bool, stretched: bool) -> Iterator[None]:
    """Exports inside differ from pipnet's own in how ranges are measured."""
    import onnxruntime.quantization as tool

    from pipnet.model.predictor import Predictor

    ours, stretch = tool.quantize_static, Predictor.spread_offsets

    def quantize_static(*arguments: Any, extra_options: dict[str, Any], **options: Any) -> None:
        ours(*arguments, extra_options={**extra_options, "CalibMovingAverage": means}, **options)

    with (
        mock.patch.object(tool, "quantize_static", quantize_static),
        mock.patch.object(Predictor, "spread_offsets", stretch if stretched else lambda self, crops: None),
    ):
        yield


def measure(data_root: Path) -> dict[str, Any]:
    """Every way on both runtimes."""
    from pipnet.data.datasets import read_dataset
    from pipnet.export.faces import calibration_crops
    from pipnet.inference.landmarker import SHIPPED_WEIGHTS
    from pipnet.inference.runtimes import OnnxRuntime, OpenVinoRuntime
    from pipnet.layouts import get_layout
    from pipnet.metrics import nme, norm_distances
    from pipnet.model import checkpoint
    from pipnet.model.onnx_graph import onnx_graph

    loaded = checkpoint.load(SHIPPED_WEIGHTS)
    cut = {"crop_scale": loaded.crop_scale, "size": loaded.net.input_size}
    sets = {
        part: read_dataset(
            "300w", root=data_root / "300W", layout=get_layout("300w_68"), part="train", validation=part
        )[0]
        for part in ("exclude", "only")
    }
    faces = calibration_crops(sets["exclude"], count=300, **cut)
    samples = sets["only"]
    crops = calibration_crops(samples, count=len(samples), **cut)
    boxes = np.stack([sample.box for sample in samples])
    true = np.stack([sample.points for sample in samples])
    eyes = norm_distances(true, loaded.layout)["outer_eye"]
    centre = (boxes[:, :2] + boxes[:, 2:])[:, None] / 2
    side = loaded.crop_scale * (boxes[:, 2:] - boxes[:, :2]).max(axis=1)[:, None, None]

    def error(points_unit: np.ndarray) -> float:
        return 100 * float(np.nanmean(nme(centre + (points_unit - 0.5) * side, true, eyes)))

    exact = OnnxRuntime("32 bits", threads=1, content=onnx_graph(loaded))(crops)[0]
    metrics: dict[str, Any] = {"faces": len(samples), "calibration_faces": len(faces), "nme_fp32": error(exact)}
    for name, (means, stretched) in WAYS.items():
        with made_otherwise(means, stretched):
            content = onnx_graph(loaded, calibration=faces)
        metrics[name] = {}
        for kind in (OnnxRuntime, OpenVinoRuntime):
            runtime = kind(name, content=content)
            points = np.concatenate([runtime(crop[None])[0] for crop in crops])
            moved = np.linalg.norm(points - exact, axis=-1) * loaded.net.input_size
            metrics[name][kind.name] = {"nme": error(points), "moved_px": float(moved.mean())}
        print(name, metrics[name], flush=True)
    return metrics


def main() -> None:
    metrics = measure(data_root(__doc__))
    write(FILE, metrics)


if __name__ == "__main__":
    main()
