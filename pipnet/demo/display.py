"""Whether a window can be opened here, found out without risk: Qt ends the whole process when it can't."""

from __future__ import annotations

import os
import subprocess
import sys

_PROBE = "import cv2; cv2.namedWindow('pipnet'); cv2.destroyAllWindows()"
_PATIENCE_S = 20.0


class DisplayProbe:
    """Asks in the background, while the network loads.

    Args:
        wanted: False asks nothing; there is no window then, and no reason why.
    """

    def __init__(self, wanted: bool = True) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._problem = None if wanted else ""
        if not wanted or not sys.platform.startswith("linux"):
            return  # elsewhere a window that can't open is an exception, see Window
        if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
            self._problem = "there is no display"
            return
        self._child = subprocess.Popen(
            [sys.executable, "-c", _PROBE], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def problem(self) -> str | None:
        """Why no window can be opened, None where one can; empty where none is wanted. Waits for the answer."""
        if self._problem is None and not _has_windows():
            self._problem = "this OpenCV has no windows (opencv-python has, opencv-python-headless has not)"
        if self._child is not None:
            try:
                _, complaint = self._child.communicate(timeout=_PATIENCE_S)
                if self._child.returncode and self._problem is None:
                    self._problem = _reason(complaint.decode(errors="replace"))
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.communicate()
                self._problem = "the display does not answer"
            self._child = None
        return self._problem


def _has_windows() -> bool:
    """Whether OpenCV was built with a user interface."""
    import cv2

    return cv2.currentUIFramework() != ""


def _reason(complaint: str) -> str:
    """What Qt wrote before it gave up, as half a sentence."""
    if "could not connect to display" in complaint:
        return f"the display {os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')} can't be opened"
    return "OpenCV can't open a window here"
