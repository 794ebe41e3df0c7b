// Shows a picture on a canvas: image, uncertainty, outlines. Zooms, moves, and takes strokes of the brush.

import { HEAT, rgb } from "./colours.js";
import { outline } from "./contour.js";
import { readPng } from "./png.js";

const MOST_ZOOM = 40;

export class PictureView {
  constructor(canvas, { pointed, stroked, windowed }) {
    Object.assign(this, { canvas, pointed, stroked, windowed, pen: canvas.getContext("2d") });
    this.outlines = new WeakMap();
    this.fingers = new Map();
    this.zoom = 1;
    this.at = [0, 0]; // where the corner of the image is, in pixels of the screen
    this.cursor = null;
    new ResizeObserver(() => this.resized()).observe(canvas);
    for (const kind of ["pointerdown", "pointermove", "pointerup", "pointercancel", "pointerleave"])
      canvas.addEventListener(kind, (event) => this[kind](event));
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  async open(kase, channel) {
    this.case = kase;
    [this.width, this.height] = kase.size;
    this.image = kase.told.image ? await readPng(await kase.image(channel)) : null;
    if (this.image && (this.image.width !== this.width || this.image.height !== this.height))
      throw new Error(`The image is ${this.image.width}×${this.image.height}, its masks are ${this.width}×${this.height}: they do not belong together.`);
    this.ground = this.heat = this.cursor = null;
    this.fit();
  }

  /** What window and level may be: of pictures, shares of white. */
  get range() {
    return { low: 0, high: 1, unit: "%", scale: 100, presets: {} };
  }

  draw(state, masks) {
    Object.assign(this, { state, masks });
    if (!this.case) return;
    const { pen, canvas } = this, ratio = this.ratio;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.setTransform(ratio * this.zoom, 0, 0, ratio * this.zoom, ratio * this.at[0], ratio * this.at[1]);
    pen.imageSmoothingEnabled = this.zoom < 6;
    pen.drawImage(this.windowedImage(state.window), 0, 0);
    if (state.uncertainty && this.case.uncertainty) {
      pen.globalAlpha = state.opacity;
      pen.drawImage(this.heatImage(), 0, 0);
      pen.globalAlpha = 1;
    }
    pen.lineCap = "round";
    if (state.mode === "members" && state.others && this.all) this.drawOthers(state);
    if (masks) this.drawMasks(state, masks);
    if (this.cursor) this.drawCursor();
  }

  drawOthers(state) {
    this.pen.globalAlpha = 0.45;
    this.pen.lineWidth = 1 / this.zoom;
    for (const member of this.all)
      if (member !== this.masks)
        this.case.structures.forEach((structure, s) => state.visible[s] && this.stroke(member, s, structure.colour));
    this.pen.globalAlpha = 1;
  }

  drawMasks(state, masks) {
    const { pen } = this;
    this.case.structures.forEach((structure, s) => {
      if (!state.visible[s]) return;
      const path = this.outlineOf(masks, s);
      if (state.fill) this.fill(masks, s, structure.colour);
      pen.lineWidth = 4 / this.zoom;
      pen.strokeStyle = "#0009";
      pen.stroke(path);
      pen.lineWidth = 2 / this.zoom;
      pen.strokeStyle = structure.colour;
      pen.stroke(path);
    });
  }

  fill(masks, structure, colour) {
    const layer = new OffscreenCanvas(this.width, this.height), pixels = new ImageData(this.width, this.height);
    const [r, g, b] = rgb(colour);
    for (let i = 0; i < this.width * this.height; i++)
      if (masks.has(structure, i)) pixels.data.set([r, g, b, 90], 4 * i);
    layer.getContext("2d").putImageData(pixels, 0, 0);
    this.pen.drawImage(layer, 0, 0);
  }

  stroke(masks, structure, colour) {
    this.pen.strokeStyle = colour;
    this.pen.stroke(this.outlineOf(masks, structure));
  }

  outlineOf(masks, structure) {
    let paths = this.outlines.get(masks);
    if (!paths) this.outlines.set(masks, (paths = []));
    return (paths[structure] ??= outline(masks.plane(structure), this.width, this.height));
  }

  drawCursor() {
    const { pen } = this, [x, y] = this.cursor;
    pen.lineWidth = 1 / this.zoom;
    pen.strokeStyle = "#fff";
    pen.strokeRect(x - 0.5, y - 0.5, 2, 2);
    if (this.state.brush.on) {
      pen.beginPath();
      pen.arc(x + 0.5, y + 0.5, this.state.brush.size / 2, 0, 7);
      pen.stroke();
    }
  }

  windowedImage({ width, level }) {
    const key = `${width} ${level}`;
    if (this.ground?.key === key) return this.ground.layer;
    const layer = new OffscreenCanvas(this.width, this.height), out = new ImageData(this.width, this.height);
    if (this.image) {
      const { values, channels, depth } = this.image, most = 2 ** depth - 1, low = level - width / 2;
      for (let i = 0; i < this.width * this.height; i++)
        for (let c = 0; c < 3; c++)
          out.data[4 * i + c] = (255 * (values[i * channels + (channels >= 3 ? c : 0)] / most - low)) / Math.max(width, 1e-6);
    } else out.data.fill(28);
    for (let i = 3; i < out.data.length; i += 4) out.data[i] = 255;
    layer.getContext("2d").putImageData(out, 0, 0);
    this.ground = { key, layer };
    return layer;
  }

  heatImage() {
    if (this.heat) return this.heat;
    this.heat = new OffscreenCanvas(this.width, this.height);
    const out = new ImageData(this.width, this.height);
    this.case.uncertainty.forEach((value, i) => {
      const [r, g, b, a] = HEAT[Math.round(255 * Math.min(1, value))];
      out.data.set([r, g, b, Math.round(255 * a)], 4 * i);
    });
    this.heat.getContext("2d").putImageData(out, 0, 0);
    return this.heat;
  }

  get ratio() {
    return window.devicePixelRatio || 1;
  }

  resized() {
    const box = this.canvas.getBoundingClientRect();
    if (!box.width) return;
    this.canvas.width = Math.round(box.width * this.ratio);
    this.canvas.height = Math.round(box.height * this.ratio);
    this.fit();
    if (this.state) this.draw(this.state, this.masks);
  }

  fit() {
    const box = this.canvas.getBoundingClientRect();
    if (!box.width || !this.width) return;
    this.zoom = 0.94 * Math.min(box.width / this.width, box.height / this.height);
    this.at = [(box.width - this.width * this.zoom) / 2, (box.height - this.height * this.zoom) / 2];
  }

  zoomed(factor, x, y) {
    const box = this.canvas.getBoundingClientRect(), [px, py] = [x ?? box.width / 2, y ?? box.height / 2];
    const zoom = Math.min(MOST_ZOOM, Math.max(0.02, this.zoom * factor)), change = zoom / this.zoom;
    this.at = [px - (px - this.at[0]) * change, py - (py - this.at[1]) * change];
    this.zoom = zoom;
    this.draw(this.state, this.masks);
  }

  /** Move the cursor by keys. */
  step(dx, dy) {
    const [x, y] = this.cursor ?? [this.width >> 1, this.height >> 1];
    this.point(Math.min(this.width - 1, Math.max(0, x + dx)), Math.min(this.height - 1, Math.max(0, y + dy)));
  }

  point(x, y) {
    const inside = x >= 0 && y >= 0 && x < this.width && y < this.height;
    this.cursor = inside ? [x, y] : null;
    this.pointed(inside ? y * this.width + x : null, inside ? `${x}, ${y}` : "");
    this.draw(this.state, this.masks);
  }

  pixelOf(event) {
    return [(event.offsetX - this.at[0]) / this.zoom, (event.offsetY - this.at[1]) / this.zoom].map(Math.floor);
  }

  pointerdown(event) {
    if (!this.case) return;
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
    this.drags = event.button === 2 ? "window" : this.state.brush.on && this.fingers.size === 1 ? "brush" : "move";
    if (this.drags === "brush") this.stroked("begin", ...this.pixelOf(event));
    this.point(...this.pixelOf(event));
  }

  pointermove(event) {
    if (!this.case) return;
    const before = this.fingers.get(event.pointerId);
    if (before) {
      const [dx, dy] = [event.offsetX - before[0], event.offsetY - before[1]];
      if (this.fingers.size === 2) this.pinched(event);
      else if (this.drags === "window") this.windowed(dx / 400, -dy / 400);
      else if (this.drags === "brush") this.stroked("go", ...this.pixelOf(event));
      else this.at = [this.at[0] + dx, this.at[1] + dy];
      this.fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
    }
    this.point(...this.pixelOf(event));
  }

  pinched(event) {
    const [other] = [...this.fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    const before = this.fingers.get(event.pointerId), apart = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]);
    this.zoomed(apart([event.offsetX, event.offsetY]) / Math.max(1, apart(before)), other[0], other[1]);
  }

  pointerup(event) {
    if (this.drags === "brush" && this.fingers.has(event.pointerId)) this.stroked("end");
    this.fingers.delete(event.pointerId);
  }

  pointercancel(event) {
    this.pointerup(event);
  }

  pointerleave() {
    if (this.case && !this.fingers.size) this.point(-1, -1);
  }

  wheel(event) {
    event.preventDefault();
    if (this.case) this.zoomed(Math.exp(-event.deltaY / 500), event.offsetX, event.offsetY);
  }

  /** Forget outlines of masks that have changed. */
  changed(masks) {
    this.outlines.delete(masks);
  }
}
