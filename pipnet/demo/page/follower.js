// Frames of a video to the server, one at a time, and its answers back.

const LONGEST_SIDE = 640; // of the pictures sent, pixels; more costs time and finds smaller faces only
const JPEG_QUALITY = 0.85;
const SILENCE_MS = 4000;

/**
 * The connection that follows faces in a video.
 *
 * Only one frame is under way: the next one is taken when the answer is there, from the newest picture, so the delay is
 * one round trip however slow the machine is. A lost connection is opened again until `close` is called.
 *
 * on.answer({answer, bitmap, delay, parts}): `bitmap` is the frame that the answer belongs to, at the camera's
 *   size; whoever gets it closes it.
 * on.trouble(text or null), on.open(), on.lost(): what the page says.
 */
export class FaceFollower {
  constructor(video, on) {
    this.video = video;
    this.on = on;
    this.canvas = document.createElement("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.closed = false;
    this.waiting = null; // the frame under way: {bitmap, sent, encoded}
    this.busy = false; // from the moment a frame is taken until its answer is there
    this.attempt = 0;
    this.connect();
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/live`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => this.on.open();
    socket.onmessage = (event) => this.receive(event.data);
    socket.onclose = (event) => {
      this.forget();
      if (this.closed) return;
      this.on.lost();
      // The server says why it turns somebody away; all else looks like a server that is not there.
      this.on.trouble(
        event.reason && event.code !== 1001
          ? event.reason
          : "The server does not answer. Start it again with python -m pipnet.demo --web; this page resumes by itself."
      );
      this.retry = setTimeout(() => this.connect(), Math.min(500 * 2 ** this.attempt++, 4000));
    };
  }

  /** Take the video's present frame and send it, unless one is under way. */
  async offer() {
    const { video, socket } = this;
    if (socket.readyState !== WebSocket.OPEN || !video.videoWidth) return;
    this.fresh = this.busy; // a picture that came meanwhile is taken as soon as the answer is there
    if (this.busy) return;
    this.busy = true;
    const taken = performance.now();
    try {
      const bitmap = await createImageBitmap(video);
      const reduce = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
      const width = Math.max(Math.round(bitmap.width * reduce), 1);
      const height = Math.max(Math.round(bitmap.height * reduce), 1);
      if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
      this.context.drawImage(bitmap, 0, 0, width, height);
      const jpeg = await new Promise((resolve) => this.canvas.toBlob(resolve, "image/jpeg", JPEG_QUALITY));
      if (this.closed || socket !== this.socket || socket.readyState !== WebSocket.OPEN) {
        bitmap.close();
        this.busy = false;
        return;
      }
      const head = new DataView(new ArrayBuffer(8));
      head.setFloat64(0, taken / 1000, true);
      const sent = performance.now();
      this.waiting = { bitmap, taken, sent, encode: sent - taken };
      socket.send(new Blob([head, jpeg]));
      this.silence = setTimeout(() => this.on.trouble("The server has not answered for some seconds; still waiting …"), SILENCE_MS);
    } catch (error) {
      this.busy = false; // a camera that stops between two frames
      if (this.video.srcObject?.active) throw error;
    }
  }

  receive(text) {
    const frame = this.waiting;
    this.waiting = null;
    this.busy = false;
    clearTimeout(this.silence);
    const answer = JSON.parse(text);
    if (answer.error || !frame) {
      frame?.bitmap.close();
      if (answer.error) this.on.trouble(answer.error);
      return;
    }
    this.attempt = 0; // here and not when it opened: a server that turns us away opens too
    const now = performance.now();
    const server = Object.values(answer.ms).reduce((sum, ms) => sum + ms, 0);
    const parts = { encode: frame.encode, ...answer.ms, transfer: Math.max(now - frame.sent - server, 0) };
    this.on.trouble(null);
    this.on.answer({ answer, bitmap: frame.bitmap, delay: now - frame.taken, parts });
    if (this.fresh) this.offer();
  }

  forget() {
    clearTimeout(this.silence);
    this.waiting?.bitmap.close();
    this.waiting = null;
    this.busy = false;
  }

  close() {
    this.closed = true;
    clearTimeout(this.retry);
    this.forget();
    this.socket.close();
  }
}
