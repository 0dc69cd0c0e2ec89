"""What may come back of what the fuzz tests throw. Runs in a process of its own, see test_fuzz.py.

    python tests/fuzzing.py WHAT EXAMPLES FOLDER

WHAT is a name of ``CHECKS``. The file under work is ``FOLDER/case*.*``, so that it is there after a crash of the
interpreter. An example that takes longer than 60 seconds ends the process with the stack of where it was.
"""

from __future__ import annotations

import faulthandler
import json
import resource
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from functools import wraps
from os import fsdecode
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from fuzzing_material import (
    arrays,
    boxes,
    changed,
    changes,
    coco_documents,
    valid_labels,
    valid_photos,
    valid_videos,
    with_right_checksums,
)
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipnet.data.datasets import read_dataset
from pipnet.data.images import MAX_PIXELS, image_size, read_image
from pipnet.data.readers_text import read_pts
from pipnet.inference.detections import Detections
from pipnet.inference.file_boxes import FileBoxes
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.layouts import PointLayout, load_layout

LONGEST_S = 60
MEMORY_GB = 12  # address space; one that is asked for more than this fails, and pipnet must say so
RIGHT_ERRORS = (ValueError, OSError)  # BadSampleError and CaptureError are ValueErrors
answers: Counter[str] = Counter()


class MiddleNetwork:
    """Sees its one point in the middle of every crop."""

    input_size = 32

    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        assert (crops.dtype, crops.shape[1:], crops.flags.c_contiguous) == (np.uint8, (32, 32, 3), True)
        return np.full((len(crops), 1, 2), 0.5), np.ones((len(crops), 1)), np.ones(len(crops))


def whole_photo(image: np.ndarray) -> Detections:
    """A detector: the photo is the face."""
    height, width = image.shape[:2]
    return Detections([[-0.5, -0.5, width - 0.5, height - 0.5]], [1.0])


def spot_landmarker() -> FaceLandmarker:
    layout = PointLayout("spot", 1, mirror=(0,))
    return FaceLandmarker(MiddleNetwork(), layout=layout, crop_scale=1.25, detector=whole_photo)


def attempt(ask: Callable[[], Any]) -> Any:
    """The answer, or None for an error of the right kind in one line."""
    try:
        answer = ask()
    except RIGHT_ERRORS as error:
        sentence = str(error)
    else:
        answers["answered"] += 1
        return answer
    assert sentence
    assert "\n" not in sentence, sentence
    answers["refused"] += 1
    return None


def check_photo(image: Any) -> None:
    assert isinstance(image, np.ndarray)
    assert (image.dtype, image.ndim, image.shape[2:], image.flags.c_contiguous) == (np.uint8, 3, (3,), True)
    assert 0 < image.shape[0] * image.shape[1] <= MAX_PIXELS


def check_faces(faces: Any, landmarker: FaceLandmarker) -> None:
    assert faces.points.shape == (len(faces), landmarker.layout.num_points, 2)
    assert np.isfinite(faces.points).all()
    assert np.isfinite(faces.boxes).all()
    assert ((faces.face_scores >= 0) & (faces.face_scores <= 1)).all()


def check_one_photo_file(path: Path, landmarker: FaceLandmarker) -> None:
    image, size = attempt(lambda: read_image(path)), attempt(lambda: image_size(path))
    if image is None:
        return
    check_photo(image)
    assert size is not None
    assert sorted(size) == sorted(image.shape[:2])  # two readers may understand a damaged orientation tag differently
    del image  # it may be large, and is read again
    faces = attempt(lambda: landmarker(path))
    assert faces is not None, "the landmarker refuses a photo that can be read"
    check_faces(faces, landmarker)


def check_one_video_file(path: Path) -> None:
    from pipnet.demo.video import VideoFile

    video = attempt(lambda: VideoFile(str(path)))
    if video is None:
        return
    try:
        taken, last = 0, -1.0
        while not video.ended and taken < 40:
            frame = video.take(timeout_s=1.0)
            if frame is not None:
                check_photo(frame.image)
                assert frame.time_s > last
                taken, last = taken + 1, frame.time_s
        assert video.broken >= 0
    finally:
        video.close()


def photo_files(folder: Path) -> Callable[[], None]:
    files, landmarker = valid_photos(), spot_landmarker()

    @given(st.sampled_from(sorted(files)), changes, st.booleans())
    def check(name: str, how: list[Any], checksums: bool) -> None:
        content = changed(files[name], how)
        if checksums and name.endswith(".png"):
            content = with_right_checksums(content)
        path = folder / f"case{Path(name).suffix}"
        path.write_bytes(content)
        check_one_photo_file(path, landmarker)

    return check


def video_files(folder: Path) -> Callable[[], None]:
    files = valid_videos()
    names = st.sampled_from([b"case", b"case-\xe9", "case-顔 [a,b];c'd".encode()])

    @given(st.sampled_from(sorted(files)), changes, names)
    def check(name: str, how: list[Any], called: bytes) -> None:
        path = folder / f"{fsdecode(called)}{Path(name).suffix}"
        path.write_bytes(changed(files[name], how))
        check_one_video_file(path)

    return check


def photo_arrays(folder: Path) -> Callable[[], None]:
    landmarker = spot_landmarker()

    @given(arrays(), boxes, st.booleans())
    def check(array: np.ndarray, own: Any, many: bool) -> None:
        image, size = attempt(lambda: read_image(array)), attempt(lambda: image_size(array))
        assert (image is None) == (size is None)
        if image is not None:
            check_photo(image)
            assert size == (image.shape[1], image.shape[0])
        if many:
            found = attempt(lambda: landmarker([array], boxes=None if own is None else [own]))
            assert found is None or len(found) == 1
            found = found and found[0]
        else:
            found = attempt(lambda: landmarker(array, boxes=own))
        if found is not None and not isinstance(found, list):  # four dimensions are many photos
            check_faces(found, landmarker)

    return check


def label_files(folder: Path) -> Callable[[], None]:
    files, two = valid_labels(), PointLayout("two", 2, mirror=(1, 0), names=("left", "right"))
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(valid_photos()["rgb.bmp"])
    readers: dict[str, Callable[[Path], Any]] = {
        "face.pts": lambda path: read_pts(path, 2),
        "layout.yaml": load_layout,
        "boxes.csv": FileBoxes,
        "boxes.json": FileBoxes,
    }

    def check_dataset(path: Path) -> None:
        reader = "coco" if path.suffix == ".json" else "csv"
        more = {"root": folder, "layout": two, "file": path.name, "images": "."}
        for part in ("include", "only", "exclude"):
            read = attempt(lambda part=part: read_dataset(reader, on_bad="skip", validation=part, **more))
            if read is None:
                continue
            samples, bad = read
            assert len({sample.name for sample in samples}) == len(samples)
            for sample in samples:
                assert sample.points.shape == (2, 2)
                assert not np.isinf(sample.points).any()
                assert np.abs(sample.box).max() < 1000
            assert not any("\n" in reason for reason in bad.reasons)
        attempt(lambda: read_dataset(reader, **more))

    @given(st.sampled_from(sorted(files)), changes, coco_documents())
    def check(name: str, how: list[Any], document: Any) -> None:
        path = folder / f"case{Path(name).suffix}"
        path.write_bytes(changed(files[name], how))
        if name in readers:
            attempt(lambda: readers[name](path))
        else:
            check_dataset(path)
        path = folder / "case.json"
        path.write_text(json.dumps(document))
        check_dataset(path)

    return check


CHECKS = {
    "photos": photo_files,
    "videos": video_files,
    "arrays": photo_arrays,
    "labels": label_files,
}


def watched(check: Any) -> Callable[[], None]:
    """Each example under the clock, and an overflow is a wrong answer, not a warning."""
    example = check.hypothesis.inner_test

    @wraps(example)
    def timed(*arguments: Any, **named: Any) -> None:
        faulthandler.dump_traceback_later(LONGEST_S, exit=True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)
                example(*arguments, **named)
        finally:
            faulthandler.cancel_dump_traceback_later()

    check.hypothesis.inner_test = timed
    return check


def main(what: str, examples: str, folder: str) -> None:
    faulthandler.enable()
    cv2.setNumThreads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_GB * 2**30, MEMORY_GB * 2**30))
    throw = settings(
        max_examples=int(examples),
        deadline=None,  # LONGEST_S instead: Hypothesis would only notice a hang when it is over
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    throw(watched(CHECKS[what](Path(folder))))()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what}: {answers['answered']} answered, {answers['refused']} refused, {used:.2f} GB at the most")


if __name__ == "__main__":
    main(*sys.argv[1:])
