"""Points on all photos of a folder, as one CSV table with a row a face.

python examples/folder_to_csv.py holiday points.csv

The demo does the same with more care: pipnet demo --folder holiday --csv
"""

import csv
import sys
from pathlib import Path

from pipnet import FaceLandmarker
from pipnet.formats import row_columns

if len(sys.argv) != 3:
    sys.exit("usage: python folder_to_csv.py FOLDER TABLE.csv")
folder, table = map(Path, sys.argv[1:])
photos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
landmarker = FaceLandmarker.load()
with table.open("w", newline="", encoding="utf-8") as file:
    writer = csv.DictWriter(file, ["source", *row_columns(landmarker.layout)])
    writer.writeheader()
    for first in range(0, len(photos), 16):  # the faces of 16 photos share network batches
        some = photos[first : first + 16]
        for photo, faces in zip(some, landmarker(some), strict=True):
            writer.writerows(faces.to_rows(source=str(photo.relative_to(folder))))
print(f"{len(photos)} photos, {table}")
