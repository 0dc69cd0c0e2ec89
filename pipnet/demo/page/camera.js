// The browser's camera, and why there is no picture where there is none.

const WHY = {
  NotAllowedError: "The camera is blocked. Allow it for this page (the camera symbol in the address bar), then press Start camera.",
  NotFoundError: "No camera found. Plug one in and press Start camera, or take the Photo tab.",
  OverconstrainedError: "That camera is gone. Choose another one, or press Start camera.",
  NotReadableError: "The camera is in use by another program. Close it there, then press Start camera.",
};

/**
 * Open a camera. Throws an Error whose message a person can act on.
 *
 * @param {string} [deviceId] of a camera from `cameras()`; without it the browser's choice, on a phone the front one.
 */
export async function openCamera(deviceId) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error(`The browser gives a camera to local pages only. Open http://localhost:${location.port}/ instead.`);
  }
  const wanted = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
  const which = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "user" };
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: false, video: { ...wanted, ...which } });
  } catch (error) {
    throw new Error(WHY[error.name] ?? `The camera does not open: ${error.message || error.name}.`, { cause: error });
  }
}

/** Let go of a camera. */
export function closeCamera(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}

/** Cameras as `{deviceId, label}`; labels are empty until one has been allowed. */
export async function cameras() {
  const devices = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  return devices.filter((device) => device.kind === "videoinput");
}

/** Call back with every new frame of a video, until the function returned is called. */
export function everyFrame(video, callback) {
  let running = true;
  let last = -1;
  const again = () => {
    if (!running) return;
    if (video.requestVideoFrameCallback) {
      video.requestVideoFrameCallback(step);
    } else {
      requestAnimationFrame(() => {
        const fresh = video.currentTime !== last;
        last = video.currentTime;
        fresh ? step() : again();
      });
    }
  };
  const step = () => {
    if (running) callback();
    again();
  };
  again();
  return () => (running = false);
}
