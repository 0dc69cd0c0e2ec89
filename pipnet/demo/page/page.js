// The page: two tabs, the switches, and what is said when something goes wrong.

import { CameraTab } from "./camera_tab.js";
import { PhotoTab } from "./photo_tab.js";

const element = (id) => document.getElementById(id);
const SWITCHES = ["points", "contours", "scores"];

let about = null; // the layout, its colours and the server's limits; asked anew when the server comes back

const page = {
  about: () => about,
  switches: () => Object.fromEntries(SWITCHES.map((name) => [name, element(`show-${name}`).checked])),
  say(text, kind = "hint") {
    const message = element("message");
    message.hidden = !text;
    if (message.textContent !== (text ?? "")) message.textContent = text ?? "";
    message.classList.toggle("error", kind === "error");
  },
  async askAbout() {
    try {
      about = await (await fetch("about")).json();
      element("model").textContent = `${about.layout} · ${about.num_points} points`;
      document.querySelector("#live-empty p").textContent = `See ${about.num_points} points on every face, live.`;
    } catch {
      page.say("The server does not answer. Start it again with python -m pipnet.demo --web.", "error");
    }
  },
};

await page.askAbout();
const camera = new CameraTab(page);
const photo = new PhotoTab(page);
const tabs = { camera, photo };

function choose(name) {
  for (const other of Object.keys(tabs)) {
    const chosen = other === name;
    const tab = element(`tab-${other}`);
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    element(`panel-${other}`).hidden = !chosen;
  }
  for (const part of document.querySelectorAll(".only-camera")) part.hidden = name !== "camera";
  element("delay-name").textContent = name === "camera" ? "Delay" : "Time in all";
  page.say(null);
  if (name !== "camera") camera.stop(); // a camera that nobody sees must not run on
  tabs[name].readout();
}

for (const name of Object.keys(tabs)) {
  const tab = element(`tab-${name}`);
  tab.addEventListener("click", () => choose(name));
  tab.addEventListener("keydown", (event) => {
    if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    const other = name === "camera" ? "photo" : "camera";
    choose(other);
    element(`tab-${other}`).focus();
  });
}

for (const name of SWITCHES) {
  element(`show-${name}`).addEventListener("change", () => {
    element("scale").hidden = !element("show-scores").checked;
    camera.redraw();
    photo.redraw();
  });
}

// Drag and drop, anywhere on the page.
let inside = 0;
const carriesFile = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => {
  if (carriesFile(event)) element("drop").hidden = ++inside < 1;
});
addEventListener("dragleave", (event) => {
  if (carriesFile(event)) element("drop").hidden = --inside < 1;
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  element("drop").hidden = true;
  const files = event.dataTransfer?.files ?? [];
  if (!files.length) return;
  choose("photo");
  photo.open(files[0]);
  if (files.length > 1) page.say(`One photo at a time: this is ${files[0].name}.`);
});

document.documentElement.dataset.ready = "yes";
