"""Train what ``heads.py`` lists, and keep what each training measured in ``runs/``, one file a training.

    OMP_NUM_THREADS=1 python experiments/heads/train.py RUNS DATA_ROOT                # all that is missing
    OMP_NUM_THREADS=1 python experiments/heads/train.py RUNS DATA_ROOT --heads l1 wing --list

DATA_ROOT holds ``300W/``, ``WFLW/`` and ``infants/``. RUNS gets the checkpoints. Give the same command twice, in two
shells, to train two at a time: each takes the next that nobody trains. Stopped and given again it goes on where it
was. A test set is read once, when a training is done; what is chosen is chosen on validation faces.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from experiments.heads.heads import BATCH, HEADS, RATES, Run, all_runs
from experiments.record import command_line, read, write
from experiments.roll.measure import infants
from experiments.trainings import keep_each, list_each, trained
from pipnet.data.datasets import read_dataset
from pipnet.data.images import read_image
from pipnet.data.sample import Sample
from pipnet.data.transforms import Augment
from pipnet.evaluation.faces import jitter_boxes, true_points
from pipnet.export.faces import calibration_crops
from pipnet.geometry import crop_of_square, crop_squares, roll_angles, tight_box
from pipnet.inference.runtimes import TorchRuntime, open_runtime
from pipnet.layouts import PointLayout, get_layout
from pipnet.metrics import nme, norm_distances
from pipnet.model import checkpoint
from pipnet.model.onnx_graph import export_onnx
from pipnet.model.rivals.coordinate import CoordinateNet
from pipnet.model.rivals.maps import HeatmapNet
from pipnet.training.calibration import calibrate

HERE = Path(__file__).resolve().parent
KEPT = HERE / "runs"
LAYOUT, WFLW = get_layout("300w_68"), get_layout("wflw_98")
NOISE = (0.0, 0.05, 0.1, 0.15, 0.2)
INT8_FACES = 128  # training faces that calibrate int8
Network: TypeAlias = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]  # crops to points and scores
DECODERS = ("argmax", "quarter", "soft_argmax", "dark", "cauchy")


def kept(run: Run) -> Path:
    """The file of what a training measured."""
    return KEPT / f"{run.name}.json"


def rate_of(run: Run) -> float:
    """Learning rate of a training: the best of its head's tries.

    Raises:
        FileNotFoundError: A try is missing.
    """
    if run.rate is not None:
        return run.rate
    head = run.head if HEADS[run.head].tuned else "pip"
    return min(RATES, key=lambda rate: read(kept(Run(head, rate=rate)))["validation"])


def some_faces(runs: Path, data_root: Path, percent: int) -> Path:
    """300W with a part of its training faces, as links; a smaller part lies in a larger one."""
    root = runs / f"300W_{percent}"
    samples, _ = read_dataset("300w", root=data_root / "300W", layout=LAYOUT, part="train", validation="include")
    held_out, _ = read_dataset("300w", root=data_root / "300W", layout=LAYOUT, part="train", validation="only")
    validation = {sample.name for sample in held_out}
    train = sorted(
        (s for s in samples if s.name not in validation), key=lambda s: zlib.crc32(f"part {s.name}".encode())
    )
    for sample in [*train[: round(len(train) * percent / 100)], *held_out]:
        photo = Path(str(sample.image)).resolve()
        for file in (photo, photo.with_suffix(".pts")):
            link = root / file.relative_to((data_root / "300W").resolve())
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(file)
    return root


@dataclass(frozen=True)
class Faces:
    """Faces of a set as a network is measured on them: one plain crop of each, upright by its labels.

    The search for tilted heads of :class:`FaceLandmarker` is off: it goes by scores, and not every head has such.
    """

    samples: list[Sample]
    true: np.ndarray  # (F, 68, 2), source pixels
    norm: np.ndarray  # (F,), what errors are divided by
    angles: np.ndarray  # (F,), degrees clockwise
    boxes: np.ndarray  # (F, 4), tight in the frame in which the face is upright

    @classmethod
    def of(cls, samples: list[Sample], layout: PointLayout, norm: str, upright: np.ndarray | None = None) -> Faces:
        """``upright`` are the points of an upright face, by which faces are turned; None leaves them as they are."""
        true = true_points(samples, layout, LAYOUT)
        angles = np.zeros(len(true)) if upright is None else roll_angles(true, upright)
        return cls(samples, true, norm_distances(true, LAYOUT)[norm], angles, tight_box(true, angles))

    def errors(
        self, network: Network, crop_scale: float, size: int, boxes: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """NME and face score of each, both ``(F,)``; in other boxes than their own where these are given."""
        points, scores = self.predict(network, crop_scale, size, boxes)
        return nme(points, self.true, self.norm), scores

    def predict(
        self, network: Network, crop_scale: float, size: int, boxes: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Points ``(F, 68, 2)``, source pixels, and face scores ``(F,)``; boxes as in :meth:`errors`."""
        squares = crop_squares(self.boxes if boxes is None else boxes, crop_scale)
        crops = [crop_of_square(square, size, angle) for square, angle in zip(squares, self.angles, strict=True)]
        predicted, scores = [], []
        for first in range(0, len(crops), BATCH):
            part = slice(first, first + BATCH)
            cut = zip(crops[part], self.samples[part], strict=True)
            units, _, of_faces = network(np.stack([crop.warp(read_image(sample.image)) for crop, sample in cut]))
            points = zip(crops[part], np.asarray(units, dtype=np.float64), strict=True)
            predicted += [crop.from_unit(unit) for crop, unit in points]
            scores.append(of_faces)
        return np.stack(predicted), np.concatenate(scores)


def sets_of(data_root: Path, upright: np.ndarray) -> dict[str, Faces]:
    """Validation and test sets."""

    def of_300w(**part: Any) -> list[Sample]:
        return read_dataset("300w", root=data_root / "300W", layout=LAYOUT, **part)[0]

    wflw, _ = read_dataset("wflw", root=data_root / "WFLW", layout=WFLW, part="test")
    return {
        "validation": Faces.of(of_300w(part="train", validation="only"), LAYOUT, "outer_eye"),
        "common": Faces.of(of_300w(part="common"), LAYOUT, "outer_eye"),
        "wflw": Faces.of(wflw, WFLW, "box"),
        "infants": Faces.of(infants(data_root / "infants" / "test"), LAYOUT, "outer_eye", upright),
    }


def measured(run: Run, best: Path, data_root: Path) -> dict[str, Any]:
    """Errors and scores of every face; of the first seed also over box noise, by decoder, in int8, with flips."""
    loaded = checkpoint.load(best)
    sets = sets_of(data_root, np.array(loaded.net.arguments["mean_face"]))
    crop = loaded.crop_scale, loaded.net.input_size
    figures = errors_and_scores(loaded, sets)
    if run.seed == 0 and run.percent == 100 and run.times == 1:
        common, network = sets["common"], TorchRuntime(loaded.net)
        noisy = {level: jitter_boxes(common.boxes, level, level, seed=0) for level in NOISE}
        figures["box_noise"] = {
            str(level): _percent([common.errors(network, *crop, boxes)[0].mean()])[0] for level, boxes in noisy.items()
        }
        figures["int8"] = in_8_bits(best, data_root, common)
        figures["decoders"] = by_decoder(loaded, sets)
        figures["flips"] = with_flips(loaded, sets)
    return figures


def errors_and_scores(loaded: checkpoint.LoadedModel, sets: Mapping[str, Faces]) -> dict[str, Any]:
    """In percent, and from 0 to 1, of every face of each set."""
    crop = loaded.crop_scale, loaded.net.input_size
    found = {name: faces.errors(TorchRuntime(loaded.net), *crop) for name, faces in sets.items()}
    return {
        "errors": {name: _percent(errors) for name, (errors, _) in found.items()},
        "face_scores": {name: [round(float(score), 4) for score in scores] for name, (_, scores) in found.items()},
    }


def by_decoder(loaded: checkpoint.LoadedModel, sets: Mapping[str, Faces]) -> dict[str, Any]:
    """NME of heatmaps by each decoder, on validation faces and Common-554; empty for other networks."""
    net, figures = loaded.net, {}
    if not isinstance(net, HeatmapNet):
        return {}
    own, chosen = net.decoder, {name: sets[name] for name in ("validation", "common")}
    for decoder in DECODERS:
        net.decoder = decoder
        errors = errors_and_scores(loaded, chosen)["errors"]
        figures[decoder] = {name: round(float(np.mean(values)), 4) for name, values in errors.items()}
    net.decoder = own
    return figures


def with_flips(loaded: checkpoint.LoadedModel, sets: Mapping[str, Faces]) -> dict[str, Any]:
    """Errors and scores of coordinates that look at the mirror image too; empty for other networks."""
    net = loaded.net
    if not isinstance(net, CoordinateNet):
        return {}
    net.flips = list(LAYOUT.mirror)
    augment = Augment(**loaded.training["config"]["transform"])
    held_out = sets["validation"].samples
    net.calibrate(calibrate(net, held_out, LAYOUT, crop_scale=loaded.crop_scale, augment=augment))
    return errors_and_scores(loaded, sets)


def in_8_bits(best: Path, data_root: Path, common: Faces) -> dict[str, list[float]]:
    """Errors of the int8 graph on ONNX Runtime, of every face of Common-554."""
    samples, _ = read_dataset("300w", root=data_root / "300W", layout=LAYOUT, part="train", validation="exclude")
    loaded = checkpoint.load(best)
    crops = calibration_crops(samples, crop_scale=loaded.crop_scale, size=loaded.net.input_size, count=INT8_FACES)
    graph = best.with_name("int8.onnx")
    export_onnx(loaded, graph, calibration=crops)
    network = open_runtime(graph, "onnxruntime", threads=1)
    return {"common": _percent(common.errors(network, loaded.crop_scale, loaded.net.input_size)[0])}


def _percent(values: Any) -> list[float]:
    return [round(100 * float(value), 4) for value in values]


def train_and_keep(run: Run, runs: Path, data_root: Path) -> None:
    """Train it to its end and write its file.

    Raises:
        subprocess.CalledProcessError: The training failed; it has said why.
    """
    folder, where = runs / run.name, [f"data_root={data_root}"]
    if run.percent != 100:
        where.append(f"dataset.root={some_faces(runs, data_root, run.percent)}")
    loaded, figures = trained(
        "pipnet.train", run.arguments(rate_of(run)), where, folder, runs=runs, data_root=data_root
    )
    history = checkpoint.read(folder / "last.pt")["resume"]["history"]
    figures |= {
        "learning_rate": rate_of(run),
        "images": run.epochs * (loaded.training["faces"]["train"] // BATCH * BATCH),
        "faces": loaded.training["faces"]["train"],
        "validation": round(min(epoch["val_nme"] for epoch in history if "val_nme" in epoch), 4),
        "by_epoch": [round(epoch["val_nme"], 3) for epoch in history if "val_nme" in epoch],
        "parameters": sum(parameter.numel() for parameter in loaded.net.parameters()),
    }
    if run.rate is None:
        figures |= measured(run, folder / "best.pt", data_root)
    KEPT.mkdir(exist_ok=True)
    write(kept(run), figures)
    print(f"{run.name}: validation NME {figures['validation']:.3f} %, {figures['minutes']:.0f} minutes", flush=True)


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("runs", type=Path, metavar="RUNS")
    parser.add_argument("data_root", type=Path, metavar="DATA_ROOT")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS), help="only these; default: all")
    parser.add_argument("--list", action="store_true", help="say what is missing, and end")
    parser.add_argument("--again", action="store_true", help="measure anew what is trained, and end")
    options = parser.parse_args()
    wanted = [run for run in all_runs() if run.head in options.heads]
    if options.list:
        list_each(wanted, kept)
        return
    if options.again:
        for run in wanted:
            best = options.runs / run.name / "best.pt"
            if run.rate is None and kept(run).is_file() and best.is_file():
                write(kept(run), read(kept(run)) | measured(run, best, options.data_root.resolve()))
                print(run.name, flush=True)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    runs, data_root = options.runs.resolve(), options.data_root.resolve()
    keep_each(wanted, runs, kept, lambda run: train_and_keep(run, runs, data_root))


if __name__ == "__main__":
    main()
