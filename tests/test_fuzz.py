"""Damaged files, labels that contradict themselves, strange arrays and boxes: a right answer or one clear sentence.

No crash, no hang, no gigabytes. What is thrown is in ``fuzzing_material.py``, what may come back in ``fuzzing.py``,
which runs in a process of its own: a crash in a decoder is a failed test, and the file that did it is kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

FUZZING = Path(__file__).resolve().parent / "fuzzing.py"
MEMORY_GB = 6.0  # a turned photo of MAX_PIXELS takes 3: decoded, turned, and as RGB


@pytest.mark.parametrize(("what", "examples"), [("photos", 150), ("arrays", 150), ("labels", 100), ("videos", 30)])
def test_a_right_answer_or_one_sentence(what, examples, tmp_path):
    command = [sys.executable, str(FUZZING), what, str(examples), str(tmp_path)]
    quiet = {"OPENCV_LOG_LEVEL": "SILENT", "OPENCV_FFMPEG_LOGLEVEL": "-8", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, env={**os.environ, **quiet}, timeout=1200, check=False)
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
