"""Gather alone, or as one of several processes under torchrun; or die by SIGKILL after so many files.

python gathering_worker.py SOURCE FOLDER [FILES]
"""

import os
import signal
import sys

import cv2

from pipnet.self_training.ingest import gather
from pipnet.training.distributed import processes


def die_after(files):
    """Let the process be killed when it has given the last of so many files its name."""
    replace, left = os.replace, [files]

    def counting(*paths):
        replace(*paths)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = counting


if __name__ == "__main__":
    cv2.setNumThreads(1)
    source, folder, *files = sys.argv[1:]
    if files:
        die_after(int(files[0]))
    with processes("cpu") as team:
        print(gather(source, folder, team=team, progress=False))
