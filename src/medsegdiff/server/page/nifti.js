// Reads the numbers of NIfTI files that medsegdiff has written, in the order of the file.

const TYPES = { 2: Uint8Array, 4: Int16Array, 8: Int32Array, 16: Float32Array, 64: Float64Array, 256: Int8Array, 512: Uint16Array, 768: Uint32Array };

/** Read a NIfTI-1 or NIfTI-2 file, gzipped or not: {shape, values}, slope and intercept applied. */
export async function readNifti(given) {
  const buffer = await gunzipped(given), view = new DataView(buffer);
  const first = view.getInt32(0, true), second = first === 540;
  if (first !== 348 && !second) throw new Error("This is no NIfTI file in little-endian order.");
  const at = second ? { dim: 16, type: 12, offset: 168, slope: 176 } : { dim: 40, type: 70, offset: 108, slope: 112 };
  const dim = (i) => (second ? Number(view.getBigInt64(at.dim + 8 * i, true)) : view.getInt16(at.dim + 2 * i, true));
  const shape = [1, 2, 3].map((i) => Math.max(1, i <= dim(0) ? dim(i) : 1));
  const real = (place) => (second ? view.getFloat64(at[place], true) : view.getFloat32(at[place], true));
  const offset = second ? Number(view.getBigInt64(at.offset, true)) : view.getFloat32(at.offset, true);
  const Type = TYPES[view.getInt16(at.type, true)];
  if (!Type) throw new Error("The file holds numbers of a type that is not read.");
  const count = shape[0] * shape[1] * shape[2];
  const values = new Type(buffer.slice(offset, offset + count * Type.BYTES_PER_ELEMENT));
  const slope = real("slope"), intercept = second ? view.getFloat64(184, true) : view.getFloat32(116, true);
  if (!slope || (slope === 1 && intercept === 0)) return { shape, values };
  return { shape, values: Float32Array.from(values, (value) => value * slope + intercept) };
}

async function gunzipped(buffer) {
  const start = new Uint8Array(buffer, 0, 2);
  if (start[0] !== 0x1f || start[1] !== 0x8b) return buffer;
  return new Response(new Blob([buffer]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}
