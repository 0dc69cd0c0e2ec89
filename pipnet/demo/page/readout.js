// What the page says in figures: faces with their scores, frame rate, delay, and where the time goes.

import { faceName, scoreColour } from "./drawing.js";

// Name and colour of every part of a frame's time, in the order in which it passes.
const PARTS = {
  encode: ["Take and encode", "#7d8da0"],
  transfer: ["Send and wait", "#a5b1bf"],
  read: ["Decode the picture", "#b79cf2"],
  detect: ["Find faces", "#f0a848"],
  crop: ["Cut out faces", "#e8879f"],
  network: ["Network", "#3fb4dc"],
  decode: ["Read out points", "#2f8fd6"],
  track: ["Track and smooth", "#59c07a"],
  draw: ["Draw", "#5fd0c5"],
};
const EVERY_MS = 250; // figures that change faster can't be read
const MEMORY = 0.9; // share of the old value in a running mean

const element = (id) => document.getElementById(id);

function make(tag, text, properties = {}) {
  return Object.assign(document.createElement(tag), text === undefined ? properties : { textContent: text, ...properties });
}

/** The list of faces; `skipped` doubtful ones are not in it. */
export function showFaces(faces, skipped = 0) {
  element("skipped").hidden = !skipped;
  element("skipped").textContent = `${skipped === 1 ? "1 doubtful one" : `${skipped} doubtful ones`} skipped.`;
  element("no-faces").hidden = faces.length > 0;
  element("no-faces").textContent = "No face in the picture.";
  const rows = faces.map((face, number) => {
    const row = make("li");
    const meter = make("span", undefined, { className: "meter" });
    const level = make("i");
    level.style.width = `${Math.round(100 * face.score)}%`;
    level.style.background = scoreColour(face.score);
    meter.append(level);
    row.append(make("span", faceName(face, number), { className: "who" }), meter, make("span", face.score.toFixed(2)));
    row.setAttribute("aria-label", `Face ${faceName(face, number)}, score ${face.score.toFixed(2)}`);
    return row;
  });
  element("faces").replaceChildren(...rows);
}

/** Back to the state before a picture. */
export function clearReadout() {
  element("skipped").hidden = true;
  element("faces").replaceChildren();
  element("no-faces").hidden = false;
  element("no-faces").textContent = "None yet.";
  for (const id of ["fps", "delay"]) element(id).textContent = "–";
  element("parts").replaceChildren();
  element("parts-bar").replaceChildren();
}

/** Time in total and its parts, milliseconds. */
export function showTimes(total, parts) {
  element("delay").replaceChildren(total.toFixed(0), make("small", " ms"));
  const known = Object.entries(PARTS).filter(([part]) => part in parts);
  element("parts").replaceChildren(
    ...known.map(([part, [name, colour]]) => {
      const row = make("div");
      const chip = make("i");
      chip.style.background = colour;
      row.append(chip, make("dt", name), make("dd", `${parts[part].toFixed(1)} ms`));
      return row;
    })
  );
  element("parts-bar").replaceChildren(
    ...known.map(([part, [, colour]]) => {
      const piece = make("i");
      piece.style.flex = `${Math.max(parts[part], 0.01)} 1 0`;
      piece.style.background = colour;
      return piece;
    })
  );
}

/**
 * Whether the picture had better wait for its points, by the delay of frame after frame, milliseconds.
 *
 * Above 60 ms points visibly trail a face that moves; the picture goes free again only well below that, and only after
 * some frames that agree, so that it does not flicker between the two.
 */
export class Waiting {
  constructor(waits = false) {
    this.waits = waits;
    this.against = 0; // frames in a row that speak for the other state
  }

  add(delay) {
    const other = this.waits ? delay < 45 : delay > 60;
    this.against = other ? this.against + 1 : 0;
    if (this.against === 15) Object.assign(this, { waits: !this.waits, against: 0 });
    return this.waits;
  }
}

/** Running means over the frames of a camera, shown a few times a second. */
export class Speedometer {
  constructor() {
    this.arrivals = [];
    this.parts = {};
    this.shown = 0;
  }

  add(faces, delay, parts) {
    const now = performance.now();
    this.arrivals.push(now);
    while (this.arrivals[0] < now - 1500) this.arrivals.shift();
    this.delay = this.delay === undefined ? delay : MEMORY * this.delay + (1 - MEMORY) * delay;
    // A part that a frame did not need took no time in it: most frames need no search for faces.
    for (const part of Object.keys({ ...this.parts, ...parts })) {
      const ms = parts[part] ?? 0;
      this.parts[part] = part in this.parts ? MEMORY * this.parts[part] + (1 - MEMORY) * ms : ms;
    }
    if (now - this.shown < EVERY_MS) return;
    this.shown = now;
    const spans = this.arrivals.length - 1;
    if (spans > 0) element("fps").textContent = ((1000 * spans) / (now - this.arrivals[0])).toFixed(0);
    showFaces(faces);
    showTimes(this.delay, this.parts);
  }
}
