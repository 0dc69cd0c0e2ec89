"""A web service: POST a photo, get points as JSON. Threads share one landmarker. Standard library only.

python examples/web_service.py 8000
curl --data-binary @photo.jpg http://127.0.0.1:8000/

It listens on this machine only and has no authentication: put it behind a real server before others can reach it.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

from pipnet import FaceLandmarker

LANDMARKER = FaceLandmarker.load(threads=1)  # threads of the network for each call; requests run side by side
MOST_BYTES = 20_000_000


class Handler(BaseHTTPRequestHandler):
    """One request; the server runs each in a thread of its own."""

    def do_POST(self) -> None:
        """Answer with what FaceLandmarks.to_dict gives, or with an error in one sentence."""
        length = int(self.headers.get("Content-Length", 0))
        if not 0 < length <= MOST_BYTES:
            self.answer(413, {"error": f"send a photo of 1 to {MOST_BYTES} bytes"})
            return
        data = np.frombuffer(self.rfile.read(length), dtype=np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if image is None:
            self.answer(400, {"error": "this is no photo that OpenCV reads"})
            return
        self.answer(200, LANDMARKER(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).to_dict())

    def answer(self, status: int, content: dict) -> None:
        """Send JSON."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print(f"listening on http://127.0.0.1:{server.server_port}/", flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    server.server_close()
