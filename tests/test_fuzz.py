"""Damaged files, labels that contradict themselves, strange arrays and boxes: a right answer or one clear sentence.

No crash, no hang, no gigabytes.

What is thrown is in ``fuzzing_material.py``, what may come back in ``fuzzing.py``, which runs in a process of its own:
a crash in a decoder is a failed test, and the file that did it is kept. ``PIPNET_FUZZ_SECONDS=300`` goes on with new
examples for so long in each of the five tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import fuzzing
import numpy as np
import pytest
from fuzzing_material import valid_photos, with_right_checksums

FUZZING = Path(__file__).resolve().parent / "fuzzing.py"
SECONDS = float(os.environ.get("PIPNET_FUZZ_SECONDS", "0"))
MEMORY_GB = 6.0  # a turned photo of MAX_PIXELS takes 3: decoded, turned, and as RGB


def fuzz(what: str, examples: int, folder: Path, *more: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, str(FUZZING), what, "--examples", str(examples), "--folder", str(folder), *more]
    quiet = {"OPENCV_LOG_LEVEL": "SILENT", "OPENCV_FFMPEG_LOGLEVEL": "-8", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, env={**os.environ, **quiet}, timeout=1200 + 1.5 * SECONDS, check=False
    )


@pytest.mark.timeout(1500 + 2 * SECONDS)
@pytest.mark.parametrize(
    ("what", "examples"), [("photos", 300), ("arrays", 300), ("labels", 200), ("videos", 50), ("network", 25)]
)
def test_a_right_answer_or_one_sentence(what, examples, tmp_path):
    done = fuzz(what, examples, tmp_path, "--seconds", str(SECONDS))
    if done.returncode:
        kept = Path(tempfile.mkdtemp(prefix="pipnet-fuzz-"))
        for case in tmp_path.glob("case*"):
            shutil.copy(case, kept)
        end = done.stderr.decode(errors="replace")[-6000:]
        pytest.fail(f"exit status {done.returncode} (negative: a crash); the last file is in {kept}\n{end}")
    said = done.stdout.decode().split()
    answered, refused, gigabytes = int(said[1]), int(said[3]), float(said[5])
    assert answered >= examples / 10  # what is thrown is not all rubbish
    assert refused >= examples / 10  # nor all good
    assert gigabytes < MEMORY_GB


@pytest.mark.parametrize(("fault", "sign"), [("crash", "Segmentation fault"), ("hang", "Timeout")])
def test_the_fuzzer_sees_what_it_looks_for(fault, sign, tmp_path):
    """Each kind of failure, put in on purpose, ends the process with a status and its name."""
    done = fuzz("photos", 20, tmp_path, "--fault", fault)
    assert done.returncode != 0
    assert sign in done.stderr.decode(errors="replace")
    assert list(tmp_path.glob("case*"))


def test_what_counts_as_right():
    def two_lines():
        raise ValueError("one line\nand another")

    with pytest.raises(AssertionError, match="one line"):
        fuzzing.attempt(two_lines)
    assert fuzzing.attempt(lambda: 7) == 7
    assert fuzzing.attempt(lambda: int("no number")) is None
    with pytest.raises(ZeroDivisionError):
        fuzzing.attempt(lambda: 1 / 0)
    fuzzing.check_photo(np.zeros((2, 3, 3), np.uint8))
    for wrong in (None, np.zeros((2, 3)), np.zeros((2, 3, 4), np.uint8), np.zeros((2, 6, 3), np.uint8)[:, ::2]):
        with pytest.raises(AssertionError):
            fuzzing.check_photo(wrong)


def test_checksums_are_made_right_again():
    png = valid_photos()["rgb.png"]
    assert with_right_checksums(png) == png
    spoilt = png.replace(b"IHDR", b"IHDX")
    assert with_right_checksums(spoilt) != spoilt
    assert with_right_checksums(spoilt).replace(b"IHDX", b"IHDR") != png
