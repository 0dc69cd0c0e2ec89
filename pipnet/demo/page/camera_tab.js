// The Camera tab: live video, points over it, recording, and what to do when camera or server go away.

import { cameras, closeCamera, everyFrame, openCamera } from "./camera.js";
import { drawFaces } from "./drawing.js";
import { saveJson, savePng, timestamp } from "./download.js";
import { FaceFollower } from "./follower.js";
import { clearReadout, Speedometer, Waiting } from "./readout.js";

const element = (id) => document.getElementById(id);
const NEED_PICTURE = ["live-picture", "live-json", "record"];

export class CameraTab {
  /** `page`: {about(), askAbout(), say(text, kind), switches()}. */
  constructor(page) {
    this.page = page;
    this.video = element("video");
    this.canvas = element("live-canvas");
    this.last = null; // the last answer, with the frame that it belongs to
    this.rows = null; // of the recording, JSON text, a frame each
    element("camera-start").addEventListener("click", () => this.start());
    element("camera-stop").addEventListener("click", () => this.stop());
    element("camera").addEventListener("change", () => this.start(element("camera").value));
    element("record").addEventListener("click", () => (this.rows ? this.finishRecording() : this.startRecording()));
    element("live-json").addEventListener("click", () => this.saveJson());
    element("live-picture").addEventListener("click", () => this.savePicture());
    for (const id of ["mirror", "in-step"]) element(id).addEventListener("change", () => this.look());
    element("in-step").addEventListener("change", () => (this.chosen = true)); // by hand, which counts from now on
    // A camera that was unplugged while it ran is opened again when one appears.
    navigator.mediaDevices?.addEventListener?.("devicechange", () => {
      if (this.unplugged) this.start();
      else this.listCameras();
    });
    addEventListener("resize", () => this.redraw());
    addEventListener("pagehide", () => this.stop());
    this.look();
  }

  async start(deviceId) {
    this.stop();
    const attempt = (this.attempt = {}); // a second press, or a stop, while the browser asks for leave
    element("camera-start").disabled = true;
    this.page.say("Waiting for the camera; the browser may ask for leave.");
    try {
      const stream = await openCamera(deviceId);
      if (attempt !== this.attempt) {
        closeCamera(stream); // and not into the video, where the camera that is wanted may be already
        return;
      }
      this.video.srcObject = stream;
      await this.video.play();
      if (attempt !== this.attempt) return;
      this.page.say(null);
      stream.getVideoTracks()[0].addEventListener("ended", () => {
        this.stop();
        this.unplugged = true;
        this.page.say("The camera was disconnected. Plug it in again and it resumes.");
      });
    } catch (error) {
      if (attempt === this.attempt) this.page.say(error.message, "error");
      return;
    } finally {
      element("camera-start").disabled = false;
    }
    element("live-empty").hidden = true;
    element("live-bar").hidden = false;
    element("live-view").style.setProperty("--aspect", `${this.video.videoWidth} / ${this.video.videoHeight}`);
    await this.listCameras();
    if (attempt === this.attempt) this.follow();
  }

  follow() {
    this.speed = new Speedometer();
    this.waiting = new Waiting(element("in-step").checked);
    this.follower = new FaceFollower(this.video, {
      open: () => this.page.askAbout(),
      answer: (result) => this.show(result),
      trouble: (text) => this.trouble(text),
      lost: () => this.finishRecording(), // a new connection counts its faces anew
    });
    this.stopFrames = everyFrame(this.video, () => this.follower?.offer());
  }

  stop() {
    this.attempt = null;
    this.unplugged = false;
    this.stopFrames?.();
    this.follower?.close();
    this.follower = null;
    this.finishRecording();
    closeCamera(this.video.srcObject);
    this.video.srcObject = null;
    this.forget();
    clearReadout();
    this.trouble(null);
    element("live-empty").hidden = false;
    element("live-bar").hidden = true;
  }

  forget() {
    this.last?.bitmap.close();
    this.last = null;
    for (const id of NEED_PICTURE) element(id).disabled = true;
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  /** A message about the connection: shown until the next answer, and never over one of another kind. */
  trouble(text) {
    if (text || this.troubled) this.page.say(text, "error");
    this.troubled = Boolean(text);
  }

  show(result) {
    this.last?.bitmap.close();
    this.last = result;
    for (const id of NEED_PICTURE) element(id).disabled = false;
    const started = performance.now();
    this.redraw();
    const draw = performance.now() - started;
    const faces = result.answer.faces;
    this.speed.add(faces, result.delay + draw, { ...result.parts, draw });
    const waits = this.waiting.add(this.speed.delay);
    if (!this.chosen && element("in-step").checked !== waits) {
      element("in-step").checked = waits;
      this.look();
    }
    if (this.rows) this.record(result.answer);
    this.canvas.dataset.faces = faces.length;
  }

  /** Draw the last answer over the video, or over its own frame where the picture waits for the points. */
  redraw() {
    const { canvas, last } = this;
    if (!last) return;
    const density = Math.min(devicePixelRatio || 1, 2);
    const view = element("live-view");
    // The bitmap has the answer's aspect; object-fit lays it over the video exactly.
    const width = Math.round(Math.min(view.clientWidth, (view.clientHeight * last.answer.width) / last.answer.height) * density);
    const height = Math.round((width * last.answer.height) / last.answer.width);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    if (element("in-step").checked) this.paintFrame(context);
    this.paintFaces(context, density);
  }

  paintFrame(context) {
    const { width, height } = context.canvas;
    context.save();
    if (element("mirror").checked) context.setTransform(-1, 0, 0, 1, width, 0);
    context.drawImage(this.last.bitmap, 0, 0, width, height);
    context.restore();
  }

  paintFaces(context, unit) {
    const { answer } = this.last;
    const mirrored = element("mirror").checked;
    drawFaces(context, answer.faces, this.page.about(), { picture: answer, mirrored, unit, ...this.page.switches() });
  }

  /** The switches that say how the video itself is shown. */
  look() {
    element("live-view").classList.toggle("mirrored", element("mirror").checked);
    element("live-view").classList.toggle("in-step", element("in-step").checked);
    this.redraw();
  }

  async listCameras() {
    const found = await cameras();
    const active = this.video.srcObject?.getVideoTracks()[0]?.getSettings().deviceId;
    const options = found.map((camera, i) => new Option(camera.label || `Camera ${i + 1}`, camera.deviceId, false, camera.deviceId === active));
    element("camera").replaceChildren(...options);
    element("camera-choice").hidden = found.length < 2 || !active;
  }

  startRecording() {
    this.rows = [];
    element("record").setAttribute("aria-pressed", "true");
    element("record").textContent = "Stop and save points";
    element("recording").hidden = false;
    element("recording-text").textContent = "Recording";
  }

  /** Add a frame, in the form that `pipnet.demo --video FILE --json` writes. */
  record({ time, width, height, faces }) {
    if (!this.rows.length) this.recorded = { width, height, began: time };
    const { began } = this.recorded;
    if (width !== this.recorded.width || height !== this.recorded.height) {
      this.finishRecording(); // a phone was turned
      return;
    }
    // As text, a fraction of the objects' size: recordings may be long.
    this.rows.push(JSON.stringify({ frame: this.rows.length, time: Number((time - began).toFixed(4)), faces }));
    element("recording-text").textContent = `${(time - began).toFixed(1)} s · ${this.rows.length} frames`;
  }

  /** End the recording and save it, if there is one. */
  finishRecording() {
    const { rows } = this;
    this.rows = null;
    element("record").setAttribute("aria-pressed", "false");
    element("record").textContent = "Record points";
    element("recording").hidden = true;
    if (!rows?.length) return;
    const { width, height } = this.recorded;
    const head = JSON.stringify({ video: "camera", width, height, layout: this.page.about().layout });
    const lines = rows.map((row, i) => (i ? ",\n" : "") + row);
    saveJson([`${head.slice(0, -1)}, "frames": [\n`, ...lines, "\n]}"], `camera_${timestamp()}_landmarks.json`);
  }

  saveJson() {
    const { width, height, layout, faces } = this.last.answer;
    saveJson({ image: "camera", width, height, layout, faces }, `camera_${timestamp()}_landmarks.json`);
  }

  async savePicture() {
    const canvas = document.createElement("canvas");
    canvas.width = this.last.bitmap.width;
    canvas.height = this.last.bitmap.height;
    const context = canvas.getContext("2d");
    this.paintFrame(context);
    this.paintFaces(context, Math.max(canvas.width / 640, 1));
    await savePng(canvas, `camera_${timestamp()}_landmarks.png`);
  }

  /** The column at the side when this tab comes to the front; the next frame fills it. */
  readout() {
    clearReadout();
  }
}
