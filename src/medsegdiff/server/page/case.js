// A case: what is told of it, and its arrays, which are fetched when they are needed.

import { bytes, json } from "./api.js";
import { Masks } from "./masks.js";
import { readNifti } from "./nifti.js";
import { readPng } from "./png.js";

export class Case {
  constructor(base, told, structures) {
    Object.assign(this, { base, told, structures });
    this.kept = new Map();
  }

  /** Read what is told of a case, and the masks and maps that are seen first. */
  static async open(base, name, structures) {
    const found = new Case(base, await json(`${base}cases/${encodeURIComponent(name)}`), structures);
    [found.fused, found.anchor, found.reference, found.uncertainty] = await Promise.all([
      found.masks(found.told.fused),
      found.masks(found.told.anchor),
      found.masks(found.told.reference),
      found.map(found.told.uncertainty),
    ]);
    return found;
  }

  get volume() {
    return this.told.kind === "volume";
  }

  /** Width and height of a picture. */
  get size() {
    return [this.told.shape[1], this.told.shape[0]];
  }

  async masks(where) {
    if (!where) return null;
    if (where.labels) return Masks.ofLabels((await this.values(where.labels)).values, this.structures);
    const planes = await Promise.all(this.structures.map((structure) => this.values(where.structures[structure.name])));
    return Masks.ofPlanes(planes.map((plane) => plane.values));
  }

  /** Values from 0 to 1. */
  async map(address) {
    if (!address) return null;
    const { values, depth } = await this.values(address);
    return depth ? Float32Array.from(values, (value) => value / (2 ** depth - 1)) : values;
  }

  /** Members, fetched once. */
  members() {
    return this.once("members", () => Promise.all(this.told.members.map((where) => this.masks(where))));
  }

  probability(structure) {
    const address = this.told.probability[this.structures[structure].name];
    return this.once(`probability ${structure}`, () => this.map(address));
  }

  image(channel = 0) {
    return this.once(`image ${channel}`, () => bytes(`${this.base}${this.told.image}?channel=${channel}`));
  }

  once(what, make) {
    if (!this.kept.has(what)) this.kept.set(what, make());
    return this.kept.get(what);
  }

  async values(address) {
    const buffer = await bytes(this.base + address);
    return this.volume ? readNifti(buffer) : readPng(buffer);
  }
}

/** Write an area or a volume. */
export function sized(pixels, told) {
  const unit = { px: "px", mm2: "mm²", mL: "mL" }[told.unit], value = pixels * told.pixel;
  return `${number(value)} ${unit}`;
}

export function number(value) {
  if (value !== 0 && Math.abs(value) < 100) return String(Number(value.toPrecision(3)));
  return Math.round(value).toLocaleString("en").replaceAll(",", " ");
}
