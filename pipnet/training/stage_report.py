"""What a person looks at between the stages of a self-training: tables, sheets, TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from pipnet.atomic import replacing
from pipnet.data.images import read_image
from pipnet.training.pseudo_labels import PseudoLabels
from pipnet.training.pseudo_labels_report import write_sheet, write_table

_PERCENTILES = (5, 25, 50, 75, 95)
_MOST_FACES = 20_000  # that the percentiles and the histogram are made of, evenly spread over all


def report_labels(folder: Path, name: str, number: int, labels: PseudoLabels) -> dict[str, float]:
    """Write the table, the sheet and the summary of a stage's pseudo-labels, once, and show them in TensorBoard.

    Args:
        folder: Of the run.
        name: Of the stage.
        number: Of the stage.
        labels: Of the stage.

    Returns:
        Percentiles of the confidence of the points: ``p5`` to ``p95``, and ``mean``.
    """
    summary = labels.folder / "summary.json"
    if summary.is_file():  # written last
        return json.loads(summary.read_text(encoding="utf-8"))["confidence"]
    for leftover in labels.folder.glob(".*-*.*"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)
    confidence = labels.confidence_of(slice(None, None, -(-len(labels) // _MOST_FACES)))
    percentiles = {f"p{p}": float(np.percentile(confidence, p)) for p in _PERCENTILES}
    percentiles["mean"] = float(confidence.mean())
    write_table(labels, labels.folder / "table.csv")
    write_sheet(labels, labels.folder / "sheet.png")
    with SummaryWriter(str(folder), purge_step=number) as writer:
        for key, value in percentiles.items():
            writer.add_scalar(f"confidence/{key}", value, number)
        writer.add_histogram("confidence", confidence, number)
        sheet = labels.folder / "sheet.png"
        if sheet.is_file():
            writer.add_image("pseudo_labels", read_image(sheet), number, dataformats="HWC")
    about = {"stage": name, **labels.about, "confidence": percentiles}
    with replacing(summary) as temporary:
        temporary.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return percentiles


def report_stage(folder: Path, record: dict[str, Any]) -> None:
    """Add the validation of a finished stage to the curves of the run."""
    with SummaryWriter(str(folder)) as writer:
        for name in ("val_nme", "val_nme_box"):
            writer.add_scalar(f"stage/{name}", record[name], record["number"])


def stage_table(stages: list[dict[str, Any]]) -> str:
    """The stages of a run as text.

    Example:
        >>> stage = {"name": "0_labels", "images": 96, "val_nme": 5.125, "val_nme_box": 4.0, "confidence": None}
        >>> print(stage_table([stage]))
        stage            images   val NME   by box   confidence (median)
        0_labels             96     5.125    4.000                     -
        all                  96
    """
    lines = [f"{'stage':14} {'images':>8} {'val NME':>9} {'by box':>8} {'confidence (median)':>21}"]
    for stage in stages:
        median = "-" if stage["confidence"] is None else f"{stage['confidence']['p50']:.3f}"
        figures = f"{stage['images']:8d} {stage['val_nme']:9.3f} {stage['val_nme_box']:8.3f}"
        lines.append(f"{stage['name']:14} {figures} {median:>21}")
    return "\n".join([*lines, f"{'all':14} {sum(stage['images'] for stage in stages):8d}"])
