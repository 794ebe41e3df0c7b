// What is shown, in one place: a plain object, and who wants to know when it changes.

export const state = {
  mode: "fused", // fused | anchor | members | reference
  member: 0,
  visible: [], // by structure
  thresholds: [], // by structure; null: as fused
  thresholdOf: 0,
  uncertainty: false,
  opacity: 0.7,
  window: { width: 1, level: 0.5 },
  channel: 0,
  planes: "all",
  fill: false,
  others: true,
  brush: { on: false, structure: 0, erase: false, size: 8 },
  edited: null, // masks that are being corrected
  current: null, // the case, see case.js
};

const listeners = new Set();
let due = false;

/** Change what is shown; those who listen are told once, before the next frame. */
export function set(changes) {
  Object.assign(state, changes);
  if (due) return;
  due = true;
  queueMicrotask(() => {
    due = false;
    for (const listen of listeners) listen(state);
  });
}

/** Call a function now and after each change. */
export function whenever(listen) {
  listeners.add(listen);
  listen(state);
}
