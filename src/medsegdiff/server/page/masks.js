// Masks as arrays: a label map (0, or the number of a structure from 1), or a plane of 0 and 1 for each region.

export class Masks {
  constructor({ count, index = null, planes = null }) {
    Object.assign(this, { count, index, planes });
  }

  /** Turn the values of a label map into numbers of structures. */
  static ofLabels(values, structures) {
    const place = new Uint8Array(256);
    structures.forEach((structure, i) => { place[structure.value ?? i + 1] = i + 1; });
    return new Masks({ count: structures.length, index: Uint8Array.from(values, (value) => place[value]) });
  }

  static ofPlanes(planes) {
    return new Masks({ count: planes.length, planes: planes.map((plane) => plane.map((value) => (value ? 1 : 0))) });
  }

  get pixels() {
    return (this.index ?? this.planes[0]).length;
  }

  copy() {
    return new Masks({ count: this.count, index: this.index?.slice(), planes: this.planes?.map((plane) => plane.slice()) });
  }

  has(structure, pixel) {
    return this.index ? this.index[pixel] === structure + 1 : this.planes[structure][pixel] > 0;
  }

  plane(structure) {
    return this.planes ? this.planes[structure] : this.index.map((value) => (value === structure + 1 ? 1 : 0));
  }

  size(structure) {
    let sum = 0;
    const { index } = this, wanted = structure + 1;
    if (index) for (let i = 0; i < index.length; i++) sum += index[i] === wanted ? 1 : 0;
    else for (const value of this.planes[structure]) sum += value;
    return sum;
  }

  put(structure, pixel, erase) {
    if (this.planes) this.planes[structure][pixel] = erase ? 0 : 1;
    else if (!erase) this.index[pixel] = structure + 1;
    else if (this.index[pixel] === structure + 1) this.index[pixel] = 0;
  }

  /** Draw a structure, or erase it, where its painted map was changed: below a region others may lie, which stay. */
  drawn(structure, before, after, erase) {
    for (let i = 0; i < after.length; i++) if (after[i] !== before[i]) this.put(structure, i, erase);
  }

  /** Replace a structure by where its probability is at least so much. */
  withThreshold(structure, probability, least) {
    const changed = this.copy();
    for (let i = 0; i < probability.length; i++) changed.put(structure, i, probability[i] < least);
    return changed;
  }

  /** A label map to be painted: of regions, each over those before it. */
  painted(visible) {
    const out = new Uint8Array(this.pixels);
    for (let s = 0; s < this.count; s++)
      if (visible[s])
        for (let i = 0; i < out.length; i++) if (this.has(s, i)) out[i] = s + 1;
    return out;
  }

  /** The bytes that the server takes. */
  get body() {
    if (this.index) return this.index;
    const all = new Uint8Array(this.pixels * this.count);
    this.planes.forEach((plane, i) => all.set(plane, i * plane.length));
    return all;
  }
}

/** Dice of a structure in two masks; two empty ones agree. */
export function dice(a, b, structure) {
  let both = 0, sum = 0;
  for (let i = 0; i < a.pixels; i++) {
    const one = a.has(structure, i), other = b.has(structure, i);
    both += one && other;
    sum += one + other;
  }
  return sum ? (2 * both) / sum : 1;
}
