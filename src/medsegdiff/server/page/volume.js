// Shows a volume in three planes by NiiVue: the image, uncertainty over it, and masks as its drawing.

import { HEAT, rgb } from "./colours.js";

const PLANES = { axial: "AXIAL", coronal: "CORONAL", sagittal: "SAGITTAL", all: "MULTIPLANAR" };
const CT = { "Soft tissue": [400, 40], Lung: [1500, -600], Bone: [1800, 400], Brain: [80, 40] };
const RIM = 0.95; // opacity of outlines

export class VolumeView {
  constructor(canvas, { pointed, remember, drawn, windowed }) {
    Object.assign(this, { canvas, pointed, remember, drawn, windowed });
  }

  /** NiiVue is large: it is loaded with the first volume. */
  async started() {
    if (this.nv) return;
    this.library = await import("./vendor/niivue.js");
    this.nv = new this.library.Niivue({
      backColor: [0.047, 0.059, 0.075, 1], crosshairColor: [1, 1, 1, 0.55], crosshairGap: 6, show3Dcrosshair: false,
      isOrientationTextVisible: true, fontSizeScaling: 0.35, multiplanarShowRender: 0, dragMode: 0, loadingText: "", logLevel: "error", drawingEnabled: false,
    });
    this.nv.onLocationChange = (place) => this.located(place);
    this.nv.onMouseUp = () => this.state?.brush.on && this.taken();
    await this.nv.attachToCanvas(this.canvas);
    this.nv.drawRimOpacity = RIM;
  }

  async open(kase, channel) {
    await this.started();
    const { nv } = this, { NVImage } = this.library;
    this.case = kase;
    this.shape = kase.told.shape;
    this.last = {};
    nv.closeDrawing();
    while (nv.volumes.length) nv.removeVolume(nv.volumes[0]);
    const ground = kase.told.image ? await kase.image(channel) : await kase.once("ground", () => this.masksAsGround(kase));
    nv.addVolume(await NVImage.new(ground.slice(0), "image.nii.gz", "gray", 1));
    const dims = nv.volumes[0].hdr.dims.slice(1, 4);
    if (this.shape.some((n, i) => n !== dims[i]))
      throw new Error(`The image is ${dims.join("×")}, its masks are ${this.shape.join("×")}: they do not belong together.`);
    this.turn = turned(nv.volumes[0].permRAS, this.shape);
    const { cal_min, cal_max, global_min, global_max } = nv.volumes[0];
    this.auto = { width: cal_max - cal_min || 1, level: (cal_max + cal_min) / 2 };
    this.range = { low: global_min, high: global_max, unit: "", scale: 1, presets: global_min < -400 ? CT : {} };
    if (!kase.told.image) this.auto = { width: 1e6, level: 6e5 };
    if (kase.told.uncertainty) await this.addUncertainty();
    nv.opts.crosshairWidth = (1.6 * Math.max(...this.shape)) / Math.max(200, this.canvas.clientHeight / 2);
    this.fit();
  }

  async masksAsGround(kase) {
    const { bytes } = await import("./api.js");
    const { labels, structures } = kase.told.fused;
    return bytes(kase.base + (labels ?? Object.values(structures)[0]));
  }

  async addUncertainty() {
    const { nv, library } = this, { bytes } = await import("./api.js");
    const channel = (i) => HEAT.map((colour) => colour[i]);
    nv.addColormap("uncertain", { R: channel(0), G: channel(1), B: channel(2), A: channel(3).map((a) => Math.round(255 * a)), I: HEAT.map((_, i) => i) });
    const buffer = await this.case.once("heat", () => bytes(this.case.base + this.case.told.uncertainty));
    const volume = await library.NVImage.new(buffer.slice(0), "uncertainty.nii.gz", "uncertain", 0);
    Object.assign(volume, { cal_min: 0, cal_max: 1 });
    nv.addVolume(volume);
  }

  draw(state, masks) {
    Object.assign(this, { state, masks });
    const { nv, last } = this;
    if (!this.case || !nv?.volumes.length) return;
    const told = (what, value, change) => {
      if (last[what] === value) return;
      last[what] = value;
      change();
    };
    told("window", `${state.window.width} ${state.window.level}`, () => {
      const [volume] = nv.volumes;
      volume.cal_min = state.window.level - state.window.width / 2;
      volume.cal_max = state.window.level + state.window.width / 2;
      nv.updateGLVolume();
    });
    if (nv.volumes[1]) told("opacity", state.uncertainty ? state.opacity : 0, () => nv.setOpacity(1, last.opacity));
    told("planes", state.planes, () => nv.setSliceType(this.library.SLICE_TYPE[PLANES[state.planes]]));
    told("colours", this.case.structures.map((s) => s.colour).join(), () => this.colour());
    told("fill", state.fill, () => nv.setDrawOpacity(state.fill ? 0.5 : 0.14));
    told("masks", masks && `${this.numberOf(masks)} ${state.visible}`, () => this.paint(masks, state));
    told("brush", JSON.stringify(state.brush), () => this.brush(state.brush));
  }

  numberOf(masks) {
    this.numbers ??= new WeakMap();
    if (!this.numbers.has(masks)) this.numbers.set(masks, (this.count = (this.count ?? 0) + 1));
    return this.numbers.get(masks);
  }

  colour() {
    const colours = [[0, 0, 0], ...this.case.structures.map((structure) => rgb(structure.colour))];
    const channel = (i) => colours.map((colour) => colour[i]);
    this.nv.setDrawColormap({ R: channel(0), G: channel(1), B: channel(2), A: colours.map((_, i) => (i ? 255 : 0)), labels: ["", ...this.case.structures.map((s) => s.name)] });
  }

  paint(masks, state) {
    const { nv } = this;
    if (!nv.drawBitmap) nv.createEmptyDrawing();
    this.painted = masks ? masks.painted(state.visible) : new Uint8Array(nv.drawBitmap.length);
    nv.drawBitmap.set(this.toScreen(this.painted));
    nv.refreshDrawing(true);
  }

  brush({ on, structure, erase, size }) {
    this.nv.setDrawingEnabled(on);
    if (!on) return;
    this.nv.opts.penSize = Math.max(1, Math.round(size / 4));
    this.nv.setPenValue(erase ? 0 : structure + 1, false);
  }

  /** Take what was drawn into the masks that are being corrected, which are remembered as they were. */
  taken() {
    const { edited, brush } = this.state;
    if (!edited) return;
    const after = this.fromScreen(this.nv.drawBitmap);
    if (after.some((value, i) => value !== this.painted[i])) {
      this.remember(edited);
      edited.drawn(brush.structure, this.painted, after, brush.erase);
    }
    this.changed();
    this.drawn();
  }

  located({ vox, values }) {
    if (!this.case) return;
    const [x, y, z] = vox.map(Math.round), [a, b, c] = this.turn.dims;
    if (x < 0 || y < 0 || z < 0 || x >= a || y >= b || z >= c) return;
    const value = this.case.told.image ? ` = ${Number(values[0].value.toPrecision(4))}` : "";
    this.pointed(this.turn.native(x, y, z), `${x}, ${y}, ${z}${value}`);
  }

  toScreen(map) {
    return this.moved(map, (out, here, there) => { out[there] = map[here]; });
  }

  fromScreen(map) {
    return this.moved(map, (out, here, there) => { out[here] = map[there]; });
  }

  moved(map, copy) {
    const out = new Uint8Array(map.length), [a, b, c] = this.shape, { lut } = this.turn;
    for (let k = 0, here = 0; k < c; k++)
      for (let j = 0; j < b; j++)
        for (let i = 0; i < a; i++, here++) copy(out, here, lut[0][i] + lut[1][j] + lut[2][k]);
    return out;
  }

  step(dx, dy, dz = 0) {
    this.nv?.moveCrosshairInVox(dx, -dy, dz);
  }

  zoomed(factor) {
    const [x, y, z, zoom] = this.nv.scene.pan2Dxyzmm;
    this.nv.setPan2Dxyzmm([x, y, z, Math.min(20, Math.max(0.5, zoom * factor))]);
  }

  fit() {
    this.nv?.setPan2Dxyzmm([0, 0, 0, 1]);
  }

  changed() {
    this.last.masks = null;
  }
}

/** How NiiVue turns a volume for the screen: steps of each axis of the file on the screen's grid. */
function turned(perm, shape) {
  const dims = perm.map((axis) => shape[Math.abs(axis) - 1]);
  const strides = [1, dims[0], dims[0] * dims[1]], lut = [], back = [];
  perm.forEach((axis, screen) => {
    const file = Math.abs(axis) - 1, n = shape[file];
    lut[file] = Array.from({ length: n }, (_, i) => (axis < 0 ? n - 1 - i : i) * strides[screen]);
    back[screen] = { file, flip: axis < 0, n };
  });
  const native = (...at) => {
    const index = [0, 0, 0];
    at.forEach((value, screen) => { index[back[screen].file] = back[screen].flip ? back[screen].n - 1 - value : value; });
    return index[0] + shape[0] * (index[1] + shape[1] * index[2]);
  };
  return { dims, lut, native };
}
