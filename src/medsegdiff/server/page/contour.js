// The outline of a mask, as a path that is sharp at any size.

// Marching squares: by the four corners of a cell (1 2 / 8 4), the sides its outline joins (0 top, 1 right, 2 bottom, 3 left).
const SIDES = [[], [3, 0], [0, 1], [3, 1], [1, 2], [3, 0, 1, 2], [0, 2], [3, 2], [2, 3], [2, 0], [0, 1, 2, 3], [2, 1], [1, 3], [1, 0], [0, 3], []];
const AT = [[0.5, 0], [1, 0.5], [0.5, 1], [0, 0.5]];

/** Trace the outline of a plane of 0 and 1, in pixels of the image. */
export function outline(plane, width, height) {
  const path = new Path2D();
  const value = (x, y) => (x >= 0 && y >= 0 && x < width && y < height && plane[y * width + x] ? 1 : 0);
  for (let y = -1; y < height; y++) {
    let left = value(-1, y) | (value(-1, y + 1) << 3);
    for (let x = -1; x < width; x++) {
      const right = (value(x + 1, y) << 1) | (value(x + 1, y + 1) << 2), sides = SIDES[left | right];
      for (let i = 0; i < sides.length; i += 2) {
        const [a, b] = [AT[sides[i]], AT[sides[i + 1]]]; // a cell joins the middles of pixels
        path.moveTo(x + 0.5 + a[0], y + 0.5 + a[1]);
        path.lineTo(x + 0.5 + b[0], y + 0.5 + b[1]);
      }
      left = (right & 2 ? 1 : 0) | (right & 4 ? 8 : 0);
    }
  }
  return path;
}
