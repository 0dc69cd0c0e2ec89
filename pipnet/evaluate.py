"""Measure a checkpoint on a labelled set.

python -m pipnet.evaluate                                            # the weights that ship, on the 300W test faces
python -m pipnet.evaluate checkpoint=runs/mine/best.pt dataset=wflw  # layouts are mapped where that is possible
python -m pipnet.evaluate boxes=detector                             # boxes from the face detector, misses are failures
"""

from __future__ import annotations

import sys
from typing import Any

from pipnet.console import needs

with needs("train", __name__):
    from omegaconf import DictConfig

    from pipnet.config import command, dataset_layout, plain, read_split
    from pipnet.evaluation.evaluate import box_noise_curve, evaluate
    from pipnet.evaluation.report import format_table, write_report
    from pipnet.inference.landmarker import SHIPPED_GRAPH, SHIPPED_WEIGHTS, FaceLandmarker


@command("evaluate")
def main(cfg: DictConfig) -> None:
    """Measure as the config says."""
    settings = plain(cfg)
    metrics = measure_checkpoint(settings)
    dataset = settings["dataset"]
    print(f"checkpoint {settings['checkpoint']} ({metrics['protocol']['model_layout']})")
    print(f"dataset    {dataset['name']}, split {settings['split']} ({metrics['protocol']['data_layout']})")
    print(f"boxes      {settings['boxes']}")
    print(f"faces      {metrics['faces']}, {metrics['missed']} missed, {len(metrics['skipped'])} skipped\n")
    print(format_table(metrics))
    print(f"\nreport     {settings['output']}")


def measure_checkpoint(settings: dict[str, Any]) -> dict[str, Any]:
    """Measure and write the report from a plain config (the content of ``conf/evaluate.yaml``).

    Returns:
        The content of ``metrics.json``.
    """
    samples, bad = read_split(settings["dataset"], settings["split"])
    landmarker = FaceLandmarker.load(
        {"shipped": SHIPPED_WEIGHTS, "shipped_int8": SHIPPED_GRAPH}.get(settings["checkpoint"], settings["checkpoint"]),
        device=settings["device"],
        detector=settings["detector"],
        runtime=settings["runtime"],
    )
    shared: dict[str, Any] = {
        "layout": dataset_layout(settings["dataset"]),
        "seed": settings["seed"],
        "batch_size": settings["batch_size"],
        "on_bad": settings["dataset"]["on_bad"],
        "progress": sys.stderr.isatty(),
    }
    evaluation = evaluate(
        landmarker,
        samples,
        boxes=settings["boxes"],
        shift=settings["jitter"]["shift"],
        scale=settings["jitter"]["scale"],
        min_iou=settings["min_iou"],
        crop_space=settings["crop_space"],
        crop_space_scale=settings["crop_space_scale"],
        **shared,
    )
    noise = box_noise_curve(
        landmarker, samples, levels=settings["box_noise"], resamples=settings["resamples"], **shared
    )
    about = {
        "checkpoint": str(settings["checkpoint"]),
        "dataset": settings["dataset"]["name"],
        "split": settings["split"],
    }
    return write_report(
        evaluation,
        settings["output"],
        noise=noise,
        about=about,
        unread=bad.reasons,
        resamples=settings["resamples"],
        worst=settings["worst"],
    )


if __name__ == "__main__":
    main()
