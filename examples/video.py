"""Follow the faces of a video or a camera.

python examples/video.py talk.mp4     # a file
python examples/video.py 0            # the first camera; Ctrl-C ends it
"""

import sys
import time

import cv2

from pipnet import FaceLandmarker
from pipnet.inference.tracking import FaceTracker

source = sys.argv[1]
camera = source.isdecimal()
video = cv2.VideoCapture(int(source) if camera else source)
if not video.isOpened():
    sys.exit(f"{source} can't be opened")
tracker = FaceTracker(FaceLandmarker.load(), max_faces=4)
number, rate = 0, video.get(cv2.CAP_PROP_FPS) or 30.0
while True:
    there, frame = video.read()
    if not there:
        break
    time_s = time.monotonic() if camera else number / rate
    faces = tracker(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), time_s=time_s)  # pipnet takes RGB, OpenCV reads BGR
    for face in faces:
        left, right = face.eye_opening()[0]
        print(
            f"frame {number}: face {face.ids[0]}, eyes open {left:.2f} {right:.2f}, mouth {face.mouth_opening()[0]:.2f}"
        )
    number += 1
print(tracker.statistics)
