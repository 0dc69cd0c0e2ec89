"""Landmarks on photos, videos and in front of a camera: ``python -m pipnet.demo``.

Sources, one at a time; without one, the portrait that ships is
looked at, of the astronaut Eileen Collins (NASA, public domain):

* ``--image PATH ...`` and ``--folder DIR`` (with its subfolders): photos, each to ``NAME_landmarks.png``. What the
  detector took for a face and the network gives a score below ``--min-score`` (0.05) is in none of the results.
* ``--video FILE|URL``: a video, to ``NAME_landmarks.mp4`` where ``--output`` is given or no window opens.
* ``--webcam [INDEX]``: a camera, live; recorded where ``--output`` is given.
* ``--web [PORT]``: a page in the browser, for photos and the browser's camera; on this machine only.

Results, in the folder ``--output`` (here, unless given) or under the file name ``--output`` where there is one source:

* ``--json``: ``NAME_landmarks.json``. A photo is ``{"image", "width", "height", "layout", "faces"}``, a video or
  camera ``{"video", "width", "height", "layout", "frames"}`` with frames ``{"frame", "time", "faces"}``. Faces are as
  :meth:`pipnet.landmarks.FaceLandmarks.to_dict` has them.
* ``--csv``: one row a face and frame, ``NAME_landmarks.csv``; several photos share one ``landmarks.csv``. Columns:
  ``source`` (the photo, file, address or camera), ``frame`` (from 0; 0 in photos), ``time_s`` (seconds from the first
  frame; 0 in photos), ``face`` (its place among the faces of the frame), ``id`` (who is who from frame to frame; empty
  in photos), ``score`` (of the face), ``box_x0, box_y0, box_x1, box_y1``, ``angle`` (degrees by which the face is
  tilted clockwise in the picture, and its box turned about its own centre), then ``x_0, y_0, s_0, x_1, ...``: place
  and score of every point of the layout. Pixels of the photo or frame, 0-based pixel centres. A frame without a face
  has no row.

``--detector boxes FILE`` reads boxes, the tight ones of the points, from a file: any CSV or JSON that ``--csv`` or
``--json`` wrote, or your own (:mod:`pipnet.inference.file_boxes` has examples).

* CSV: a header ``image,x0,y0,x1,y1`` and, where wanted, ``frame`` (of a video, from 0), ``score`` and ``angle``, in any
  order; a row a face. A photo without a face is a row with its name and the other columns empty: ``empty.jpg,,,,``.
* JSON: ``{"a.jpg": [[x0, y0, x1, y1], [x0, y0, x1, y1, score]], "empty.jpg": []}``, and with the frames of a video
  ``{"clip.mp4": {"0": [[x0, y0, x1, y1]], "1": []}}``.

In JSON and CSV the name of a file that is no text (no UTF-8) has its odd bytes as ``\\xe9``.

Names fit by their ends: ``a.jpg`` is ``/home/me/a.jpg``. Every face of the file is kept (``--min-score`` is 0 then).

A window needs a display; without one the demo says so and goes on. Ctrl-C, like ``q`` in the window, ends a video or a
camera in good order: what was done is kept. Of photos, the one under way is finished. While the demo starts, and a
second time, Ctrl-C ends it at once.

Exit status: 0, also when there is no face and when the user ended it; 1 when a photo, a video or a camera could not be
used, or a result not be written, or it was interrupted at once; 2 for wrong arguments.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo.

    Args:
        arguments: Of the command line, without the program's name; None takes the process's own.

    Returns:
        The exit status.
    """
    from pipnet import console

    def work() -> int:
        from pipnet.demo.command import run  # inside: a Ctrl-C while this is imported ends it in one line

        return run(arguments)

    return console.run("demo", work, alone=arguments is None)
