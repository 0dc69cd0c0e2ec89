"""Points on the faces of a photo, printed and drawn.

python examples/photo.py photo.jpg drawn.png
"""

import sys
from pathlib import Path

from pipnet import FaceLandmarker
from pipnet.data.images import read_image, write_image
from pipnet.inference.drawing import draw_faces

if len(sys.argv) != 3:
    sys.exit("usage: python photo.py PHOTO PICTURE")
photo, drawn = map(Path, sys.argv[1:])
landmarker = FaceLandmarker.load()
faces = landmarker(photo)
print(faces)
for face in faces:
    x, y = face.points[0, 30]  # tip of the nose; faces.layout.names has all names
    print(f"nose at {x:.1f}, {y:.1f} px, score {face.scores[0, 30]:.2f}, face tilted by {face.angles[0]:.0f} degrees")
write_image(drawn, draw_faces(read_image(photo), faces))
