"""What ``python -m pipnet.export`` does, from its arguments to its exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipnet.console import careful_output
from pipnet.demo.wording import said
from pipnet.export import options as given


def run(arguments: Sequence[str] | None = None) -> int:
    """See :func:`pipnet.export.main`."""
    careful_output()
    parser, options = given.parse(arguments)
    try:
        if options.show is not None:
            from pipnet.export.show import describe

            print(describe(options.show), flush=True)
            return 0
        return _export(options)
    except (ValueError, OSError) as error:
        from pipnet.export.writing import ExportError

        if isinstance(error, ExportError):
            print(f"pipnet.export: {error}", file=sys.stderr)
            return 1
        parser.error(said(error))
    except KeyboardInterrupt:
        print("pipnet.export: interrupted; nothing was written", file=sys.stderr)
        return 1


def _export(options: argparse.Namespace) -> int:
    from pipnet.export.card import card_of
    from pipnet.export.faces import find_faces
    from pipnet.export.show import megabytes
    from pipnet.export.writing import LIMIT_INT8, missing_package, write
    from pipnet.inference.landmarker import SHIPPED_WEIGHTS
    from pipnet.model import checkpoint

    output: Path = options.output
    if problem := missing_package(output):  # before anything that takes time
        raise ValueError(problem)
    source = SHIPPED_WEIGHTS if options.checkpoint is None else Path(options.checkpoint)
    loaded = checkpoint.load(source)
    card = card_of(loaded, source)
    faces = find_faces(loaded, options)
    for reason in faces.left_out:
        print(f"left out: {reason}")
    output.parent.mkdir(parents=True, exist_ok=True)
    differences = write(loaded, output, precision=options.precision, crops=faces.crops, card=card)
    files = [output, output.with_suffix(".bin")] if output.suffix == ".xml" else [output]
    size = loaded.net.input_size
    calibrated = f", calibrated on {faces}" if options.precision == "int8" else ""
    print(f"{' and '.join(map(str, files))}: {options.precision}{calibrated}, {megabytes(files)}")
    print(f"compared with PyTorch on {faces}, in pixels of the {size} px crop:")
    for difference in differences:
        if difference.not_compared:
            print(f"  {difference.runtime:<12} not compared: {difference.not_compared}")
            continue
        print(
            f"  {difference.runtime:<12} largest {difference.largest_px:.2g}, mean {difference.mean_px:.2g}; scores "
            f"{difference.largest_score:.2g} at most"
        )
    for difference in differences:
        if options.precision == "int8" and difference.mean_px > LIMIT_INT8 * size:
            print(
                f"warning: on {difference.runtime} 8 bits move points by {100 * difference.mean_px / size:.2f} % of "
                f"the crop's side on average, more than {100 * LIMIT_INT8:g} %. Calibrate on more faces like those it "
                "will see (--calibration-faces, --dataset or --faces DIR), or export --precision fp32"
            )
    print(f'use: FaceLandmarker.load("{output}"), or python -m pipnet.demo --weights {output}')
    return 0
