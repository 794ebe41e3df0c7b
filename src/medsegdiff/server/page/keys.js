// The keyboard.

import { $, fill, make } from "./dom.js";
import { set, state } from "./store.js";

const KEYS = [
  ["← → ↑ ↓", "move the cursor in the image"], ["PgUp PgDn", "slices of a volume"], ["+ −", "zoom"], ["0", "show all of the image"],
  ["[ ]", "member before, member after"], ["Space", "play the members"], ["F A M R", "fused, anchor, members, reference"],
  ["U", "uncertainty on or off"], ["I", "fill the masks"], ["1 … 9", "structure on or off"], ["B", "brush"], ["E", "erase"], ["Z", "undo"],
  ["N P", "next case, case before"], ["?", "this list"],
];

export function listenToKeys({ view, play, neighbour, undo, toggleBrush }) {
  fill($("keys").querySelector("dl"), ...KEYS.flatMap(([key, what]) => [make("dt", {}, make("kbd", {}, key)), make("dd", {}, what)]));
  $("help").onclick = () => $("keys").showModal();
  addEventListener("keydown", (event) => {
    const typing = event.target.closest("input:not([type=checkbox]), select, textarea, dialog[open]");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && event.target.closest("button, input, summary, a")) return;
    const known = inImage(event, view) || global(event, { play, neighbour, undo, toggleBrush, view });
    if (known) event.preventDefault();
  });
}

function inImage(event, view) {
  if (!event.target.closest("#view")) return false;
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], PageUp: [0, 0, 1], PageDown: [0, 0, -1] };
  const step = steps[event.key];
  if (!step) return false;
  view().step(...step.map((by) => by * (event.shiftKey ? 10 : 1)));
  return true;
}

function global({ key }, { play, neighbour, undo, toggleBrush, view }) {
  const count = state.current?.told.members.length ?? 0;
  const modes = { f: "fused", a: "anchor", m: "members", r: "reference" };
  const small = key.toLowerCase(), mode = modes[small];
  if (mode) {
    if (!document.querySelector(`#mode [value=${mode}]`).disabled) set({ mode });
  } else if (key === "[" || key === "]") {
    if (count) set({ mode: "members", member: (state.member + (key === "]" ? 1 : count - 1)) % count });
  } else if (/^[1-9]$/.test(key) && Number(key) <= state.visible.length) {
    set({ visible: state.visible.with(key - 1, !state.visible[key - 1]) });
  } else {
    const does = {
      " ": play, u: () => set({ uncertainty: !state.uncertainty }), i: () => set({ fill: !state.fill }), b: toggleBrush, z: undo,
      e: () => set({ brush: { ...state.brush, erase: !state.brush.erase } }), n: () => neighbour(1), p: () => neighbour(-1),
      "+": () => view().zoomed(1.25), "=": () => view().zoomed(1.25), "-": () => view().zoomed(0.8), 0: () => $("fit").click(), "?": () => $("keys").showModal(),
    }[small];
    if (!does) return false;
    does();
  }
  return true;
}
