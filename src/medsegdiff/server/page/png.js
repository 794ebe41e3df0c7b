// Reads PNG files exactly. A browser's own decoder cuts 16 bits to 8 and may change colours.

const CHANNELS = { 0: 1, 2: 3, 4: 2, 6: 4 };

/** Read a PNG without interlacing and palette: {width, height, channels, depth, values}. */
export async function readPng(buffer) {
  const view = new DataView(buffer);
  if (view.getUint32(0) !== 0x89504e47) throw new Error("This is no PNG file.");
  let head = null;
  const parts = [];
  for (let at = 8; at < buffer.byteLength; ) {
    const length = view.getUint32(at), kind = String.fromCharCode(...new Uint8Array(buffer, at + 4, 4));
    if (kind === "IHDR") head = header(view, at + 8);
    if (kind === "IDAT") parts.push(new Uint8Array(buffer, at + 8, length));
    at += length + 12;
  }
  const inflated = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  const raw = new Uint8Array(await new Response(inflated).arrayBuffer());
  return { ...head, values: unpacked(unfiltered(raw, head), head) };
}

function header(view, at) {
  const [width, height, depth, colour, interlaced] = [view.getUint32(at), view.getUint32(at + 4), view.getUint8(at + 8), view.getUint8(at + 9), view.getUint8(at + 12)];
  if (!(colour in CHANNELS) || interlaced) throw new Error("PNG files with a palette or interlacing are not read.");
  return { width, height, depth, channels: CHANNELS[colour] };
}

function unfiltered(raw, { width, height, depth, channels }) {
  const step = Math.max(1, (depth * channels) >> 3), stride = Math.ceil((width * depth * channels) / 8);
  const out = new Uint8Array(stride * height);
  for (let row = 0; row < height; row++) {
    const filter = raw[row * (stride + 1)], from = row * (stride + 1) + 1, to = row * stride;
    for (let i = 0; i < stride; i++) {
      const left = i >= step ? out[to + i - step] : 0;
      const up = row ? out[to + i - stride] : 0;
      const corner = row && i >= step ? out[to + i - stride - step] : 0;
      out[to + i] = raw[from + i] + predicted(filter, left, up, corner);
    }
  }
  return out;
}

function predicted(filter, left, up, corner) {
  if (filter === 0) return 0;
  if (filter === 1) return left;
  if (filter === 2) return up;
  if (filter === 3) return (left + up) >> 1;
  const p = left + up - corner, a = Math.abs(p - left), b = Math.abs(p - up), c = Math.abs(p - corner);
  return a <= b && a <= c ? left : b <= c ? up : corner;
}

function unpacked(data, { width, height, depth, channels }) {
  if (depth === 8) return data;
  const values = new (depth === 16 ? Uint16Array : Uint8Array)(width * height * channels);
  if (depth === 16) {
    for (let i = 0; i < values.length; i++) values[i] = (data[2 * i] << 8) | data[2 * i + 1];
    return values;
  }
  const stride = Math.ceil((width * depth) / 8), mask = (1 << depth) - 1;
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const bit = x * depth;
      values[y * width + x] = (data[y * stride + (bit >> 3)] >> (8 - depth - (bit & 7))) & mask;
    }
  return values;
}
