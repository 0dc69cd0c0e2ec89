"""Ingest photos as one of several processes, or die by SIGKILL before a statement of SQL."""

import os
import signal
import sqlite3

import cv2

from pipnet.self_training.ingest import ingest
from pipnet.training import distributed


def die_after(statements):
    """Let the process be killed when it is about to execute the last of so many statements."""
    left, connect = [statements], sqlite3.connect

    def watch(_):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(*arguments, **more):
        connection = connect(*arguments, **more)
        connection.set_trace_callback(watch)
        return connection

    sqlite3.connect = watched


def find_faces(source, folder, *statements):
    cv2.setNumThreads(1)
    if statements:
        die_after(int(statements[0]))
    with distributed.join_processes("cpu") as processes:
        print(ingest(source, folder, processes=processes, progress=False))
