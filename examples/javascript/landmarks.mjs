// Points on a face from a graph that pipnet exported: node landmarks.mjs MODEL.onnx PHOTO X0 Y0 X1 Y1 [ANGLE]
//
// X0 Y0 X1 Y1 is the tight box of the points in pixels, ANGLE by how many degrees the face (and its box about its own
// centre) is turned clockwise. Prints points and scores as JSON. docs/export.md explains every step.

import { readFileSync } from "node:fs";
import jpeg from "jpeg-js";
import * as ort from "onnxruntime-node";
import { PNG } from "pngjs";

// `pipnet export --show MODEL.onnx` prints both numbers of a graph.
const SIZE = 256; // input_size: side of the crop in pixels
const BOX_SCALE = 1.25; // box_scale: side of the square over the longer side of the box

/** A PNG or JPEG as { width, height, data }, four bytes a pixel: RGBA. */
function readPhoto(path) {
  const file = readFileSync(path);
  return file[0] === 0x89 ? PNG.sync.read(file) : jpeg.decode(file, { useTArray: true });
}

/** One channel at x, y by bilinear interpolation; pixels are named by their centres, and beyond the photo is black. */
function sample({ width, height, data }, x, y, channel) {
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const pixel = (i, j) => (i < 0 || j < 0 || i >= width || j >= height ? 0 : data[4 * (j * width + i) + channel]);
  const [a, b] = [x - left, y - top];
  const upper = (1 - a) * pixel(left, top) + a * pixel(left + 1, top);
  const lower = (1 - a) * pixel(left, top + 1) + a * pixel(left + 1, top + 1);
  return (1 - b) * upper + b * lower;
}

/** From fractions of the crop to pixels of the photo: the square about the box's centre, turned with the face. */
function toPhoto([x0, y0, x1, y1], angle) {
  const side = BOX_SCALE * Math.max(x1 - x0, y1 - y0);
  const [cos, sin] = [Math.cos((angle * Math.PI) / 180), Math.sin((angle * Math.PI) / 180)];
  const map = (u, v) => {
    const [x, y] = [(u - 0.5) * side, (v - 0.5) * side];
    return [(x0 + x1) / 2 + cos * x - sin * y, (y0 + y1) / 2 + sin * x + cos * y];
  };
  return { map, side };
}

/** The crop as RGB bytes, row by row. A large face is averaged: each pixel is the mean of k x k samples. */
function crop(photo, { map, side }) {
  const k = Math.max(Math.floor(side / SIZE), 1);
  const bytes = new Uint8Array(SIZE * SIZE * 3);
  for (let row = 0; row < SIZE; row++) {
    for (let column = 0; column < SIZE; column++) {
      const sums = [0, 0, 0];
      for (let i = 0; i < k * k; i++) {
        const u = (column + ((i % k) + 0.5) / k) / SIZE; // k = 1: the centre of the crop's pixel
        const v = (row + (Math.floor(i / k) + 0.5) / k) / SIZE;
        const [x, y] = map(u, v);
        for (let channel = 0; channel < 3; channel++) sums[channel] += sample(photo, x, y, channel);
      }
      const at = 3 * (row * SIZE + column);
      for (let channel = 0; channel < 3; channel++) bytes[at + channel] = Math.round(sums[channel] / (k * k));
    }
  }
  return bytes;
}

const [model, file, ...numbers] = process.argv.slice(2);
const box = numbers.slice(0, 4).map(Number);
const square = toPhoto(box, Number(numbers[4] ?? 0));
const session = await ort.InferenceSession.create(model);
const crops = new ort.Tensor("uint8", crop(readPhoto(file), square), [1, SIZE, SIZE, 3]);
const found = await session.run({ crops });
const unit = found.points_unit.data; // x, y of each point, fractions of the crop
const points = Array.from({ length: unit.length / 2 }, (_, i) => square.map(unit[2 * i], unit[2 * i + 1]));
console.log(JSON.stringify({ points, scores: [...found.scores.data], face_score: found.face_scores.data[0] }));
