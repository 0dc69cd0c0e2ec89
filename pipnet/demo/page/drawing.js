// Landmarks on a canvas, in the look of pipnet.inference.drawing: a dark edge under every line and dot.

const SHADE = "rgba(20, 20, 30, 0.72)";

/** Red at 0, yellow at 0.5, green at 1; the colours of the pictures that the command line writes. */
export function scoreColour(score) {
  const s = Math.min(Math.max(score, 0), 1);
  return `rgb(${Math.round(255 * Math.min(1, 2 - 2 * s))}, ${Math.round(230 * Math.min(1, 2 * s))}, 60)`;
}

/**
 * Draw faces over what a canvas shows.
 *
 * Points are pixel centres of a picture `picture.width` wide; the picture is taken to fill the canvas. `mirrored` flips
 * the points, not the text. `unit` is the least width of a line, in pixels of the canvas.
 */
export function drawFaces(context, faces, layout, { picture, mirrored = false, points, contours, scores, unit = 1 }) {
  const scale = context.canvas.width / picture.width;
  const place = ([x, y]) => {
    const across = (x + 0.5) * scale;
    return [mirrored ? context.canvas.width - across : across, (y + 0.5) * scale];
  };
  context.save();
  context.lineJoin = context.lineCap = "round";
  faces.forEach((face, number) => {
    const placed = face.points.map(place);
    const size = extent(placed);
    if (contours) drawContours(context, placed, layout, leastOf(size, 1 / 150, unit));
    if (points) drawDots(context, placed, scores ? face.scores.map(scoreColour) : layout.point_colours, leastOf(size, 1 / 90, 1.3 * unit));
    if (scores) drawLabel(context, placed, `${faceName(face, number)}  ${face.score.toFixed(2)}`, Math.max(size / 14, 13 * unit));
  });
  context.restore();
}

/** What a face is called: by its id in the video, or its place in the photo's list; from 0, as in the JSON. */
export function faceName(face, number) {
  return `#${face.id ?? number}`;
}

/** A share of the face's size, at least `least`; but on a face that is tiny itself never more than twice the share. */
function leastOf(size, share, least) {
  return Math.max(size * share, Math.min(least, 2 * size * share));
}

function extent(placed) {
  const xs = placed.map((p) => p[0]);
  const ys = placed.map((p) => p[1]);
  return Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys), 1);
}

function drawContours(context, placed, layout, width) {
  // All shades before all lines, so that none darkens the line of a neighbour.
  for (const shade of [true, false]) {
    for (const group of layout.groups) {
      if (group.indices.length < 2) continue;
      context.beginPath();
      group.indices.forEach((index, i) => (i ? context.lineTo(...placed[index]) : context.moveTo(...placed[index])));
      if (group.closed) context.closePath();
      context.lineWidth = shade ? 2.2 * width : width;
      context.strokeStyle = shade ? SHADE : group.colour;
      context.stroke();
    }
  }
}

function drawDots(context, placed, colours, radius) {
  for (const shade of [true, false]) {
    placed.forEach(([x, y], index) => {
      context.beginPath();
      context.arc(x, y, shade ? 1.45 * radius : radius, 0, 2 * Math.PI);
      context.fillStyle = shade ? SHADE : colours[index];
      context.fill();
    });
  }
}

function drawLabel(context, placed, text, height) {
  context.font = `600 ${height}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const pad = height * 0.5;
  const width = context.measureText(text).width + 2 * pad;
  const middle = placed.reduce((sum, p) => sum + p[0], 0) / placed.length;
  const top = Math.min(...placed.map((p) => p[1]));
  const x = Math.min(Math.max(middle - width / 2, 2), Math.max(context.canvas.width - width - 2, 2));
  const y = Math.max(top - 2.6 * height, 2);
  context.beginPath();
  context.roundRect(x, y, width, 1.7 * height, 0.5 * height);
  context.fillStyle = "rgba(14, 17, 22, 0.78)";
  context.fill();
  context.fillStyle = "#fff";
  context.fillText(text, x + pad, y + 0.88 * height);
}
