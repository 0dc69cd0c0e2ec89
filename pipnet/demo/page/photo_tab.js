// The Photo tab: one picture to the server, its faces drawn at the picture's own size.

import { drawFaces } from "./drawing.js";
import { saveJson, savePng } from "./download.js";
import { clearReadout, showFaces, showTimes } from "./readout.js";

const SHOWN_SIDE = 2600; // of the picture on the page, pixels; the one that is saved has all of them
const element = (id) => document.getElementById(id);

export class PhotoTab {
  /** `page`: {about(), say(text, kind), switches()}. */
  constructor(page) {
    this.page = page;
    this.canvas = element("photo-canvas");
    this.number = 0; // of the photo that was asked for last; older answers come too late
    element("file").addEventListener("change", (event) => {
      const [file] = event.target.files;
      event.target.value = ""; // so that the same file can be chosen again
      if (file) this.open(file);
    });
    addEventListener("resize", () => this.redraw());
    element("photo-json").addEventListener("click", () => this.saveJson());
    element("photo-picture").addEventListener("click", () => this.savePicture());
  }

  async open(file) {
    const number = ++this.number;
    const about = this.page.about();
    if (about && file.size > about.largest_photo_bytes) {
      const megabytes = (bytes) => (bytes / 2 ** 20).toFixed(0);
      this.page.say(`${file.name} has ${megabytes(file.size)} MB; a photo may have ${megabytes(about.largest_photo_bytes)} MB.`, "error");
      return;
    }
    element("photo-busy").hidden = false;
    this.page.say(null);
    const started = performance.now();
    try {
      const [answer, bitmap] = await Promise.all([ask(file), shownBitmap(file)]);
      if (number !== this.number) return;
      if (answer.error) {
        this.page.say(answer.error, "error");
        return;
      }
      this.show(file, answer, bitmap, performance.now() - started);
    } catch {
      if (number === this.number) {
        this.page.say("The server does not answer. Start it again with python -m pipnet.demo --web, then choose the photo again.", "error");
      }
    } finally {
      if (number === this.number) element("photo-busy").hidden = true;
    }
  }

  show(file, answer, bitmap, total) {
    this.picture?.bitmap?.close();
    const { ms, skipped, ...result } = answer;
    this.picture = { result, bitmap, name: file.name.replace(/\.[^.]*$/, "") || "photo" };
    this.total = total;
    this.ms = ms;
    this.skipped = skipped;
    if (!bitmap) {
      this.page.say(`This browser can't show ${file.name}. Its points are in the list and in the JSON.`);
    } else if (!result.faces.length) {
      this.page.say(`No face found in ${file.name}. Faces under about 32 pixels are often missed.`);
    }
    this.readout();
  }

  /** Draw again, after a switch. */
  redraw() {
    const { picture, canvas } = this;
    const shown = Boolean(picture?.bitmap);
    canvas.hidden = !shown;
    element("photo-empty").hidden = shown;
    element("photo-bar").hidden = !picture;
    element("photo-picture").disabled = !shown;
    if (!picture) return;
    const { width, height, faces, image } = picture.result;
    element("photo-name").textContent = `${image} · ${width} × ${height}`;
    if (!shown) return;
    const enlarged = Math.min(Math.max(element("photo-view").clientWidth / width, 1), 2); // small photos
    this.paint(canvas, Math.min(enlarged, SHOWN_SIDE / Math.max(width, height)));
    canvas.setAttribute("aria-label", `${image} with ${faces.length === 1 ? "1 face" : `${faces.length} faces`}`);
  }

  /** The picture and its faces on a canvas, at a share of its size. */
  paint(canvas, share) {
    const { result, bitmap } = this.picture;
    canvas.width = Math.max(Math.round(result.width * share), 1);
    canvas.height = Math.max(Math.round(result.height * share), 1);
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    // On the page, lines and labels keep a least width on the screen; in a saved picture, in proportion to it.
    const unit = canvas.clientWidth ? canvas.width / canvas.clientWidth : Math.max(canvas.width / 1000, 0.7);
    drawFaces(context, result.faces, this.page.about(), { picture: result, unit, ...this.page.switches() });
  }

  /** This tab comes to the front. */
  readout() {
    this.redraw(); // the canvas may have had no size until now
    clearReadout();
    if (!this.picture) return;
    showFaces(this.picture.result.faces, this.skipped);
    const server = Object.values(this.ms).reduce((sum, ms) => sum + ms, 0);
    showTimes(this.total, { ...this.ms, transfer: Math.max(this.total - server, 0) });
  }

  saveJson() {
    saveJson(this.picture.result, `${this.picture.name}_landmarks.json`);
  }

  async savePicture() {
    const canvas = document.createElement("canvas");
    const name = `${this.picture.name}_landmarks.png`;
    this.paint(canvas, 1);
    if (await savePng(canvas, name)) return;
    this.paint(canvas, Math.min(1, 4000 / Math.max(canvas.width, canvas.height)));
    await savePng(canvas, name);
    this.page.say(`The photo is too large for this browser to save; the picture saved is ${canvas.width} × ${canvas.height}.`);
  }
}

async function ask(file) {
  const response = await fetch(`photo?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
  return response.json();
}

/** The photo as the browser shows it, upright; null where it can't. */
async function shownBitmap(file) {
  try {
    return await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return null;
  }
}
