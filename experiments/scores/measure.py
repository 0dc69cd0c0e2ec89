"""What the scores are worth: do they know which faces and points are wrong, and are they probabilities?

    python experiments/scores/measure.py DATA_ROOT

DATA_ROOT holds ``300W/`` and ``WFLW/``. Writes ``metrics.json`` and ``risk_coverage.png`` beside this file. Takes
3 minutes. The scores were fitted on the 202 validation faces
(``experiments/300w_mobilenet_v2/ship.py``); nothing here was used to choose them.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from scipy.stats import rankdata, spearmanr

from experiments.record import data_root, write
from pipnet.data.datasets import read_dataset
from pipnet.data.images import read_image
from pipnet.data.sample import Sample
from pipnet.evaluation.evaluate import Evaluation, evaluate
from pipnet.geometry import crop_of_square
from pipnet.inference.landmarker import SHIPPED_WEIGHTS, FaceLandmarker
from pipnet.layouts import get_layout
from pipnet.metrics import labelled_box
from pipnet.model import checkpoint
from pipnet.model.confidence import TOLERANCE
from pipnet.model.pipnet import PIPNet
from pipnet.training.calibration import squares_beside

HERE = Path(__file__).resolve().parent
SETS = {
    "common": ("Common-554", "300w", "300W", "300w_68", {"part": "common"}, {"boxes": "labels"}),
    "common_detector": (
        "Common-554, detector boxes", "300w", "300W", "300w_68", {"part": "common"}, {"boxes": "detector"},
    ),
    "common_jittered": (
        "Common-554, boxes off by up to 30 %", "300w", "300W", "300w_68", {"part": "common"},
        {"boxes": "jittered", "shift": 0.3, "scale": 0.3},
    ),
    "wflw": ("WFLW-108", "wflw", "WFLW", "wflw_98", {"part": "test"}, {"boxes": "labels"}),
    "wflw_detector": ("WFLW-108, detector boxes", "wflw", "WFLW", "wflw_98", {"part": "test"}, {"boxes": "detector"}),
}  # fmt: skip
BINS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0)
DROPPED = 0.1
RESAMPLES = 2000


class VotesRuntime:
    """The network with another score: the peak of the score map, or the negative spread of the votes, ranks only."""

    def __init__(self, net: PIPNet, score: str) -> None:
        self.net, self.score, self.input_size = net, score, net.input_size

    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with torch.inference_mode():
            images = torch.from_numpy(crops).permute(0, 3, 1, 2)
            votes = self.net.count_votes(self.net(self.net.normalize(images)))
        scores = votes.peak if self.score == "peak" else -torch.log(votes.spread + 0.01)
        return votes.points_unit.numpy(), scores.numpy(), scores.mean(dim=1).numpy()


def coverage_curve(errors: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Mean error of the best-scored k faces, for k from 1 to F; ties share what they cost on average."""
    order = np.argsort(-scores, kind="stable")
    return np.cumsum(errors[order]) / np.arange(1, len(errors) + 1)


def interval(values: np.ndarray) -> dict[str, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return {"low": float(low), "high": float(high)}


def face_figures(result: Evaluation) -> dict[str, Any]:
    """How well face scores order faces by error; a face that was missed has no score and counts as rejected."""
    found = ~result.missed
    errors, scores = result.errors()[found], result.scores[found]
    if result.protocol["boxes"] == "detector":  # a missed face is a failure that was already left out
        failed_all = int((result.errors() > 0.08).sum())
    else:
        failed_all = int((errors > 0.08).sum())
    keep = len(result) - round(DROPPED * len(result))
    ranked = np.argsort(-np.where(found, np.nan_to_num(result.scores, nan=-np.inf), -np.inf), kind="stable")
    kept_errors = result.errors()[ranked[:keep]]
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(errors), (RESAMPLES, len(errors)))
    areas = np.array([coverage_curve(errors[d], scores[d]).mean() / errors[d].mean() for d in draws])
    ranks = np.array([spearmanr(-scores[d], errors[d])[0] for d in draws[:500]])
    curve = coverage_curve(errors, scores)
    best = coverage_curve(errors, -errors)
    return {
        "faces": len(result),
        "rank_correlation": {"value": float(spearmanr(-scores, errors)[0]), **interval(ranks)},
        "area": float(100 * curve.mean()),
        "area_random": float(100 * errors.mean()),
        "area_best": float(100 * best.mean()),
        "area_ratio": {"value": float(curve.mean() / errors.mean()), **interval(areas)},
        "failures_8": failed_all,
        "failures_8_kept": int((kept_errors > 0.08).sum()),
        "kept": keep,
        "mean": float(100 * errors.mean()),
        "mean_kept": float(100 * kept_errors[np.isfinite(kept_errors)].mean()),
        "curve": [float(100 * curve[max(round(c * len(curve)) - 1, 0)]) for c in np.linspace(0.05, 1, 20)],
    }


def point_figures(result: Evaluation) -> dict[str, Any]:
    """How well point scores order points, and whether they are the probabilities that they claim to be."""
    found = ~result.missed
    size = result.norms["box"][found]
    distance = np.linalg.norm(result.pred - result.true, axis=-1)[found] / size[:, None]
    scores = result.point_scores[found]
    labelled = ~np.isnan(distance)
    right = distance[labelled] <= TOLERANCE
    table = reliability(scores[labelled], right)
    face_right = distance.mean(axis=1) <= TOLERANCE
    return {
        "rank_correlation": float(spearmanr(-scores[labelled], distance[labelled])[0]),
        "within_tolerance": float(100 * right.mean()),
        "mean_score": float(100 * scores[labelled].mean()),
        "calibration_error": expected_calibration_error(table),
        "reliability": table,
        "face_within_tolerance": float(100 * face_right.mean()),
        "face_mean_score": float(100 * result.scores[found].mean()),
        "face_calibration_error": expected_calibration_error(reliability(result.scores[found], face_right)),
    }


def reliability(scores: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    rows = []
    for low, high in pairwise(BINS):
        inside = (scores >= low) & ((scores < high) | (high == BINS[-1]))
        if inside.any():
            rows.append(
                {
                    "from": low,
                    "to": high,
                    "count": int(inside.sum()),
                    "mean_score": float(100 * scores[inside].mean()),
                    "right": float(100 * right[inside].mean()),
                }
            )
    return rows


def expected_calibration_error(rows: list[dict[str, float]]) -> float:
    counts = np.array([row["count"] for row in rows])
    gaps = np.array([abs(row["mean_score"] - row["right"]) for row in rows])
    return float((counts * gaps).sum() / counts.sum())


def higher(a: np.ndarray, b: np.ndarray) -> float:
    """Chance that a value of ``a`` is above one of ``b`` (area under the ROC curve), in percent."""
    ranks = rankdata(np.concatenate([a, b]))[: len(a)]
    return float(100 * (ranks.sum() - len(a) * (len(a) + 1) / 2) / (len(a) * len(b)))


def occlusion_attribute(result: Evaluation) -> dict[str, Any]:
    """Faces of WFLW with and without its attribute "occlusion".

    It marks faces, not points, so the lowest-scored fifth of a face's points is looked at as well. Every face of the
    set has some attribute; "alike" leaves out large pose and blur, which are harder than occlusion.
    """
    hidden = result.in_subset("occlusion")
    alike = ~result.in_subset("pose") & ~result.in_subset("blur")
    means = 100 * result.point_scores.mean(axis=1)
    fifth = 100 * np.sort(result.point_scores, axis=1)[:, : result.layout.num_points // 5].mean(axis=1)
    figures = {}
    for name, chosen in (("all", np.ones(len(result), bool)), ("alike", alike)):
        a, b = chosen & hidden, chosen & ~hidden
        figures[name] = {
            "faces": int(a.sum()),
            "others": int(b.sum()),
            "score": float(means[a].mean()),
            "score_others": float(means[b].mean()),
            "lowest_fifth": float(fifth[a].mean()),
            "lowest_fifth_others": float(fifth[b].mean()),
            "others_higher": higher(fifth[b], fifth[a]),
        }
    return figures


def synthetic_occluders(landmarker: FaceLandmarker, samples: list[Sample]) -> dict[str, Any]:
    """A rectangle of noise, of one colour, or of another part of the photo over each face of Common-554, in turn."""
    rng = np.random.default_rng(0)
    images, boxes, covered = [], [], []
    for number, sample in enumerate(samples):
        image = read_image(sample.image).copy()
        longer = float(max(sample.box[2:] - sample.box[:2]))
        centre = sample.points[rng.integers(len(sample.points))]
        half = longer * rng.uniform(0.1, 0.25, 2)
        limit = np.array(image.shape[1::-1])
        x0, y0 = np.clip(np.round(centre - half), 0, limit - 1).astype(int)
        x1, y1 = np.clip(np.round(centre + half), [x0 + 1, y0 + 1], limit).astype(int)
        if number % 3 == 0:
            patch: np.ndarray | int = rng.integers(0, 256, (y1 - y0, x1 - x0, 3))
        elif number % 3 == 1:
            patch = rng.integers(0, 256, 3)
        else:
            x, y = rng.integers(0, limit - (x1 - x0, y1 - y0) + 1)
            patch = image[y : y + y1 - y0, x : x + x1 - x0].copy()
        image[y0:y1, x0:x1] = patch
        inside = (sample.points >= (x0, y0)).all(axis=1) & (sample.points < (x1, y1)).all(axis=1)
        images.append(image)
        boxes.append(sample.box)
        covered.append(inside)
    faces = landmarker.predict_batch(images, boxes)
    hidden = np.stack(covered)
    # Points differ: the jaw is never as sure as the eyes. So each point is compared with itself, without the rectangle
    # on the same face, and with the same point of other faces.
    plain = landmarker.predict_batch([read_image(s.image) for s in samples], [s.box for s in samples])
    true = np.stack([sample.points for sample in samples])
    size = labelled_box(true)
    size = np.sqrt((size[:, 2] - size[:, 0]) * (size[:, 3] - size[:, 1]))
    right = np.linalg.norm(faces.points - true, axis=-1) / size[:, None] <= TOLERANCE
    same = [higher(scores[~h], scores[h]) for scores, h in zip(faces.scores.T, hidden.T, strict=True) if h.sum() >= 10]
    return {
        "faces": len(samples),
        "points": int(hidden.sum()),
        "score": float(100 * faces.scores[hidden].mean()),
        "score_uncovered": float(100 * plain.scores[hidden].mean()),
        "right": float(100 * right[hidden].mean()),
        "lower_than_uncovered": float(100 * (faces.scores[hidden] < plain.scores[hidden]).mean()),
        "same_point_of_others_higher": float(np.mean(same)),
    }


def backgrounds(landmarker: FaceLandmarker, samples: list[Sample]) -> dict[str, Any]:
    """Crops of the photos of Common-554 beside the labelled face."""
    rng = np.random.default_rng(0)
    crops = []
    for sample in samples:
        image = read_image(sample.image)
        for square in squares_beside(sample.box, image.shape[1::-1], rng)[:2]:
            crops.append(crop_of_square(square, landmarker.runtime.input_size).warp(image))
    scores = np.concatenate([landmarker.runtime(np.stack(crops[i : i + 32]))[2] for i in range(0, len(crops), 32)])
    return {"crops": len(crops), "above_half": int((scores >= 0.5).sum()), "above_tenth": int((scores >= 0.1).sum())}


def measure(root: Path) -> dict[str, Any]:
    net = checkpoint.load(SHIPPED_WEIGHTS).net
    landmarkers = {"calibrated": FaceLandmarker.load(device="cpu", runtime="onnxruntime")}
    base = landmarkers["calibrated"]
    for name in ("spread", "peak"):
        landmarkers[name] = FaceLandmarker(VotesRuntime(net, name), layout=base.layout, crop_scale=base.crop_scale)
    metrics: dict[str, Any] = {"tolerance": TOLERANCE, "sets": {}, "rankings": {}}
    for key, (_, reader, folder, layout_name, options, how) in SETS.items():
        layout = get_layout(layout_name)
        samples, _ = read_dataset(reader, root=root / folder, layout=layout, **options)
        for name, landmarker in landmarkers.items():
            if name != "calibrated" and how["boxes"] != "labels":
                continue
            result = evaluate(landmarker, samples, layout=layout, **how)
            if name == "calibrated":
                metrics["sets"][key] = {"face": face_figures(result), "point": point_figures(result)}
                if key == "wflw":
                    metrics["occlusion_attribute"] = occlusion_attribute(result)
            if how["boxes"] == "labels":
                figures = face_figures(result)
                metrics["rankings"].setdefault(key, {})[name] = {
                    "face": figures["rank_correlation"]["value"],
                    "area_ratio": figures["area_ratio"]["value"],
                    "point": point_figures(result)["rank_correlation"],
                }
        if key == "common":
            metrics["synthetic_occluders"] = synthetic_occluders(base, samples)
            metrics["backgrounds"] = backgrounds(base, samples)
    return metrics


def plot(metrics: dict[str, Any]) -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
    coverage = np.linspace(5, 100, 20)
    for axis, key in zip(axes, ("common", "wflw"), strict=True):
        f = metrics["sets"][key]["face"]
        axis.plot(coverage, f["curve"], color="#0072b2", label="ordered by score")
        axis.axhline(f["area_random"], color="#999999", linestyle="--", label="random order")
        axis.set(title=SETS[key][0], xlabel="faces kept, %", ylabel="NME of those kept, %", ylim=(0, None))
        axis.legend(frameon=False, loc="lower right")
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(HERE / "risk_coverage.png", dpi=110)


def main() -> None:
    metrics = measure(data_root(__doc__))
    write(HERE / "metrics.json", metrics)
    plot(metrics)


if __name__ == "__main__":
    main()
