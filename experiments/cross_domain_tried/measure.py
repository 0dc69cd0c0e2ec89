"""What was tried before the benchmark, on the stand-in of ``turned.py``: which parts of ours help, and what doesn't.

    python experiments/cross_domain_tried/turned.py DATA_ROOT runs/turned
    python experiments/cross_domain_tried/measure.py --commands runs/turned        # prints the trainings; run them
    python experiments/cross_domain_tried/measure.py runs runs/turned              # measures those that are there

RUNS holds ``turned_<variant>``, folders of ``python -m pipnet.self_train``. Neither test set of the benchmark takes
part. Variants with (*) need commit 0b33c47, the last one with the code that they try; it was dropped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.record import command_line, write

HERE = Path(__file__).resolve().parent
FIRST = "labels"


_UTKFACE = "'unlabelled=[${data_root}/unlabelled/wflw,${data_root}/unlabelled/utkface]'"
_BOTH = f"{_UTKFACE} face_store=runs/wflw_utkface_face_store"
_MIXED = "start: teacher, labelled_share: {share}, views: {views}, select: {{weighted: {weighted}, min_face: {least}}}"


def _stages(
    first: int,
    *mixed: int,
    share: float = 0.7,
    views: int = 4,
    weighted: bool = True,
    least: float = 0.3,
    more: str = "",
) -> str:
    """``curriculum.stages`` as those of ours: labels for some epochs, then mixed stages."""
    keys = _MIXED.format(share=share, views=views, weighted=str(weighted).lower(), least=least) + more
    listed = [f"{{name: labels, epochs: {first}, pseudo: false}}"]
    listed += [f"{{name: mixed, epochs: {epochs}, {keys}}}" for epochs in mixed]
    return f"curriculum=ours 'curriculum.stages=[{', '.join(listed)}]'"


# Variant, as the README's table has it, to the arguments of its command.
VARIANTS = {
    FIRST: "curriculum=labels",
    "paper_short": "curriculum=paper_short",
    "ours": "curriculum=ours",
    "ours_half": _stages(35, 10, 15, 15, share=0.5, views=8),
    "ours_unweighted": _stages(45, 15, 15, weighted=False, least=0),
    "ours_one_look": _stages(45, 15, 15, views=1),
    "ours_utkface": f"curriculum=ours {_BOTH}",
    "ours_cosines": _stages(60, 24, 36, least=0, more=", lr: 0.0005").replace("teacher", "newest")
    + f" curriculum.one_schedule=false {_UTKFACE} pool=runs/wflw_utkface_pool",
    "labels_paper": "curriculum=labels transform=paper",
    "paper_uneven": "curriculum=paper_short transform=paper "
    "'curriculum.stages=[{name: labels, epochs: 20, pseudo: false}, {name: cells_2x2, epochs: 6, pool_factor: 3}, "
    "{name: cells_3x3, epochs: 6, pool_factor: 2}, {name: full, epochs: 43}]' " + _BOTH,
}
DROPPED = ("ours_cosines",)  # needs commit 0b33c47, and is written for it


def commands(folder: Path) -> str:
    """A line for each training, behind a comment where it needs code that was dropped."""
    start = f"python -m pipnet.self_train experiment=cross_domain_turned dataset.root={folder}"
    return "\n".join(
        ("# at commit 0b33c47:\n" if name in DROPPED else "") + f"{start} folder=runs/turned_{name} {how}"
        for name, how in VARIANTS.items()
    )


def measure(runs: Path, folder: Path) -> dict[str, Any]:
    """Figures of the variants that are there, percent.

    Raises:
        FileNotFoundError: The yardstick, labelled only, is not there.
    """
    from pipnet.config import dataset_config, read_split
    from pipnet.evaluation.evaluate import evaluate
    from pipnet.inference.landmarker import FaceLandmarker
    from pipnet.layouts import get_layout
    from pipnet.metrics import bootstrap, mean_error, paired_bootstrap

    dataset = dataset_config("own_csv", folder.parent) | {"root": folder, "layout": "300w_68"}
    samples, _ = read_split(dataset, "test")
    layout = get_layout("300w_68")
    found = {name: runs / f"turned_{name}" for name in VARIANTS if (runs / f"turned_{name}" / "best.pt").is_file()}
    if FIRST not in found:
        raise FileNotFoundError(f"{runs}/turned_{FIRST}/best.pt is not there; --commands prints how to make it")
    errors, rows = {}, {}
    for name, run in found.items():
        stages = json.loads((run / "stages.json").read_text(encoding="utf-8"))
        result = evaluate(FaceLandmarker.load(run / "best.pt", runtime="torch"), samples, layout=layout)
        errors[name] = result.errors("box")
        mean = bootstrap(errors[name], {"mean": mean_error})["mean"].scaled(100)
        difference = None
        if name != FIRST:
            change = paired_bootstrap(errors[name], errors[FIRST]).scaled(100)
            difference = [round(value, 3) for value in (change.value, change.low, change.high)]
        rows[name] = {
            "training_images": sum(stage["images"] for stage in stages),
            "validation": [round(stage["val_nme_box"], 3) for stage in stages],
            "target": [round(value, 3) for value in (mean.value, mean.low, mean.high)],
            "difference": difference,
        }
        print(name, rows[name], flush=True)
    return {"faces": len(samples), "seeds": 1, "unit": "NME by box size, percent", "rows": rows}


def main(arguments: Sequence[str]) -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("paths", nargs="*", type=Path, metavar="RUNS FOLDER")
    parser.add_argument("--commands", type=Path, metavar="FOLDER", help="print the trainings, FOLDER being turned.py's")
    parser.add_argument("--output", type=Path, default=HERE / "metrics.json")
    options = parser.parse_args(arguments)
    if options.commands:
        print(commands(options.commands))
        return
    if len(options.paths) != 2:
        parser.error("RUNS and FOLDER are needed, or --commands")
    try:
        metrics = measure(*options.paths)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    if options.output.is_file():  # rows whose runs lie elsewhere stay
        rows = json.loads(options.output.read_text(encoding="utf-8"))["rows"] | metrics["rows"]
        metrics["rows"] = {name: rows[name] for name in VARIANTS if name in rows}
    write(options.output, metrics)


if __name__ == "__main__":
    main(sys.argv[1:])
