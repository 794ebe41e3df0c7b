// Colours of uncertainty, and of structures.

const STOPS = [[0, [13, 8, 60]], [0.25, [106, 23, 120]], [0.5, [190, 55, 90]], [0.75, [245, 125, 50]], [1, [252, 240, 160]]];

/** Colour and opacity of an uncertainty from 0 to 1: what is certain is not covered. */
export function heat(share) {
  const upper = Math.max(1, STOPS.findIndex(([at]) => at >= share));
  const [from, a] = STOPS[upper - 1], [to, b] = STOPS[upper], mix = (share - from) / (to - from);
  return [...a.map((value, i) => Math.round(value + mix * (b[i] - value))), Math.min(1, share * 1.6)];
}

export const HEAT = Array.from({ length: 256 }, (_, i) => heat(i / 255));

export function rgb(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

/** Draw the legend. */
export function ramp(canvas) {
  const pen = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    const [r, g, b] = heat(x / (canvas.width - 1));
    pen.fillStyle = `rgb(${r} ${g} ${b})`;
    pen.fillRect(x, 0, 1, canvas.height);
  }
}
