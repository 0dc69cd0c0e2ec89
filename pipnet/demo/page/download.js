// Files that the page makes and the browser saves.

/** Save a Blob under a name, as a click on a download link would. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Save a value, or JSON text in parts, as a .json file. */
export function saveJson(content, name) {
  const parts = Array.isArray(content) ? content : [JSON.stringify(content)];
  save(new Blob([...parts, "\n"], { type: "application/json" }), name);
}

/** Save a canvas as PNG. Resolves to false where the browser can't hold so large a picture. */
export async function savePng(canvas, name) {
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  if (blob) save(blob, name);
  return Boolean(blob);
}

/** A name part for files of the camera: 2026-01-31_14-05-09, local time. */
export function timestamp(now = new Date()) {
  const two = (n) => String(n).padStart(2, "0");
  const day = [now.getFullYear(), two(now.getMonth() + 1), two(now.getDate())].join("-");
  return `${day}_${[now.getHours(), now.getMinutes(), now.getSeconds()].map(two).join("-")}`;
}
