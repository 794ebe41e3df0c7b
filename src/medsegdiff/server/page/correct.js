// The brush: masks are corrected on a copy, and kept as a reference when they are saved.

import { ask } from "./api.js";
import { $, guarded } from "./dom.js";
import { set, state } from "./store.js";

const MOST_UNDONE = 20;

export function correcting({ view, reopen }) {
  let before = [], last = null;

  function toggle() {
    const on = !state.brush.on, { current } = state;
    if (!current) return;
    const from = state.mode === "anchor" ? current.anchor : state.mode === "reference" ? current.reference : current.fused;
    before = [];
    set({ brush: { ...state.brush, on }, edited: on ? from.copy() : null, mode: on && state.mode === "members" ? "fused" : state.mode });
    $("saved").textContent = on ? "Draw over the mask; what you draw stays here until you save it." : "";
  }

  function stroked(phase, x, y) {
    const { edited } = state;
    if (!edited) return;
    if (phase === "begin") remember(edited);
    if (phase !== "end") dab(edited, x, y, phase === "go" ? last : null);
    last = phase === "end" ? null : [x, y];
    changed();
  }

  function remember(edited) {
    before = [...before.slice(1 - MOST_UNDONE), edited.copy()];
  }

  function dab(edited, x, y, from) {
    const [width, height] = state.current.size, { size, structure, erase } = state.brush, [fx, fy] = from ?? [x, y];
    const steps = Math.max(1, Math.ceil(Math.hypot(x - fx, y - fy) / Math.max(1, size / 4))), radius = size / 2;
    for (let step = 1; step <= steps; step++) {
      const cx = fx + ((x - fx) * step) / steps, cy = fy + ((y - fy) * step) / steps;
      for (let py = Math.max(0, Math.floor(cy - radius)); py <= Math.min(height - 1, cy + radius); py++)
        for (let px = Math.max(0, Math.floor(cx - radius)); px <= Math.min(width - 1, cx + radius); px++)
          if ((px - cx) ** 2 + (py - cy) ** 2 <= radius ** 2) edited.put(structure, py * width + px, erase);
    }
  }

  function changed() {
    view().changed(state.edited);
    set({});
  }

  function undo() {
    if (!before.length) return;
    set({ edited: before.pop() });
    changed();
  }

  async function keep() {
    const { current, edited } = state, name = current.told.name;
    await ask(`${current.base}references/${encodeURIComponent(name)}`, { method: "PUT", body: edited.body, headers: { "Content-Type": "application/octet-stream" } });
    set({ mode: "reference", edited: null });
    await reopen();
    $("saved").textContent = "Saved among the results, in references/.";
  }

  $("brush-on").onchange = toggle;
  $("undo").onclick = undo;
  $("save").onclick = guarded(keep);
  return { toggle, undo, stroked, remember, drawn: () => set({}) };
}
