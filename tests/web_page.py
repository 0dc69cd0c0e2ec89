"""The page's server on a thread, and the page in a browser as a person uses it."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
import time

import numpy as np
from aiohttp import web
from PIL import Image
from selenium.webdriver.common.by import By

from pipnet.demo.web import make_app

PATIENCE_S = 120.0  # for a step in the browser on a busy machine


class Server:
    """The page's server on a thread, to be stopped and started again under the same address."""

    def __init__(self, landmarker):
        self._landmarker = landmarker
        self._port = 0
        self.start()

    def start(self):
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(started)))
        self._thread.start()
        assert started.wait(30)

    async def _run(self, started):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        runner = web.AppRunner(make_app(self._landmarker), access_log=None, shutdown_timeout=3)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = site._server.sockets[0].getsockname()[1]
        started.set()
        await self._stop.wait()
        await runner.cleanup()

    def stop(self):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._port}/"


class Page:
    """The page, freshly opened, as a person uses it."""

    def __init__(self, driver, downloads):
        self.driver = driver
        self._downloads = downloads

    def __getitem__(self, name):
        return self.driver.find_element(By.ID, name)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def until(self, condition, what):
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if result := condition():
                return result
            time.sleep(0.05)
        raise AssertionError(f"not within {PATIENCE_S:.0f} s: {what}; the page says {self['message'].text!r}")

    def start_camera(self):
        self["camera-start"].click()
        self.until(lambda: self.faces() == 1, "a face is found")

    def upload(self, image, file, **options):
        """Save a picture as a file, choose it on the page, and wait until it is shown."""
        Image.fromarray(image).save(file, **options)
        self["tab-photo"].click()
        self["file"].send_keys(str(file))
        self.until(lambda: self["photo-bar"].is_displayed(), "the photo is shown")

    def faces(self):
        return int(self.run("return document.getElementById('live-canvas').dataset.faces ?? -1"))

    def download(self, button):
        """Click a button and take the file that comes."""
        self[button].click()
        return self.next_file()

    def next_file(self):
        def complete():
            return [file for file in self._downloads.iterdir() if file.suffix in (".json", ".png")]

        (file,) = self.until(complete, "a file is saved")
        content, name = file.read_bytes(), file.name
        file.unlink()
        return name, content

    def pixels(self, canvas):
        """What a canvas shows, RGBA ``(H, W, 4)``."""
        data = self.run(f"return document.getElementById('{canvas}').toDataURL('image/png')")
        return np.array(Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))).convert("RGBA"))

    def severe(self):
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
