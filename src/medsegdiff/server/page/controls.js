// Sliders and switches: each changes the state, and shows it.

import { $, fill, make } from "./dom.js";
import { set, state, whenever } from "./store.js";

/** Wire all of them, once. */
export function wire() {
  for (const input of document.querySelectorAll("#mode input")) input.onchange = () => set({ mode: input.value });
  for (const input of document.querySelectorAll("#planes input")) input.onchange = () => set({ planes: input.value });
  $("member").oninput = () => set({ mode: "members", member: $("member").valueAsNumber - 1 });
  $("threshold-of").onchange = () => set({ thresholdOf: Number($("threshold-of").value) });
  $("threshold-at").oninput = () => set({ mode: "fused", thresholds: state.thresholds.with(state.thresholdOf, $("threshold-at").valueAsNumber) });
  $("threshold-reset").onclick = () => set({ thresholds: state.thresholds.map(() => null) });
  $("uncertainty-on").onchange = () => set({ uncertainty: $("uncertainty-on").checked });
  $("uncertainty-opacity").oninput = () => set({ uncertainty: true, opacity: $("uncertainty-opacity").valueAsNumber });
  for (const id of ["width", "level"]) $(id).oninput = () => set({ window: { ...state.window, [id]: $(id).valueAsNumber } });
  $("fill").onchange = () => set({ fill: $("fill").checked });
  $("others").onchange = () => set({ others: $("others").checked });
  $("brush-of").onchange = () => set({ brush: { ...state.brush, structure: Number($("brush-of").value) } });
  $("brush-size").oninput = () => set({ brush: { ...state.brush, size: $("brush-size").valueAsNumber } });
  for (const input of document.querySelectorAll("[name=tool]")) input.onchange = () => set({ brush: { ...state.brush, erase: input.value === "erase" } });
  whenever(show);
}

/** Set the ends of sliders by what a case has. */
export function fit(kase, view) {
  const { told, structures } = kase, several = structures.length > 1;
  const absent = { threshold: "probability", uncertainty: "uncertainty", window: "image" };
  for (const [card, part] of Object.entries(absent)) missing($(card), told.absent[part]);
  $("members-missing").hidden = !told.absent.members;
  $("members-missing").textContent = told.absent.members ?? "";
  $("player").hidden = Boolean(told.absent.members);
  $("member").max = Math.max(1, told.members.length);
  for (const id of ["threshold-of", "brush-of"]) fill($(id), ...structures.map((structure, i) => make("option", { value: i }, structure.name)));
  for (const id of ["threshold-of-row", "brush-of-row"]) $(id).hidden = !several;
  const { low, high, presets } = view.range, span = Math.max(high - low, 1e-6);
  Object.assign($("level"), { min: low, max: high });
  Object.assign($("width"), { min: span / 200, max: 2 * span });
  $("presets").hidden = !Object.keys(presets).length;
  fill($("presets"), ...Object.entries(presets).map(([name, [width, level]]) => make("button", { type: "button", onclick: () => set({ window: { width, level } }) }, name)));
  $("channel-row").hidden = told.channels < 2 || (told.channels === 3 && !kase.volume);
  fill($("channel"), ...Array.from({ length: told.channels }, (_, i) => make("option", { value: i }, String(i + 1))));
  $("planes").hidden = !kase.volume;
  $("legend").hidden = true;
  for (const input of document.querySelectorAll("#mode input")) {
    input.disabled = { anchor: !told.anchor, members: !told.members.length, reference: !told.reference }[input.value] ?? false;
    input.parentElement.hidden = input.value === "reference" && !told.reference;
    input.parentElement.title = told.absent[input.value] ?? "";
  }
}

function missing(card, why) {
  const told = card.querySelector(".missing"), inside = card.querySelectorAll(".slide, #uncertainty .switch, .row");
  told.hidden = !why;
  told.textContent = why ?? "";
  for (const row of inside) row.hidden = Boolean(why);
  if (card.id === "threshold") for (const id of ["threshold-says", "threshold-reset"]) $(id).hidden = Boolean(why);
}

function show() {
  const { mode, member, thresholds, thresholdOf, window: shown, brush, current } = state;
  for (const input of document.querySelectorAll("#mode input")) input.checked = input.value === mode;
  for (const input of document.querySelectorAll("#planes input")) input.checked = input.value === state.planes;
  $("member").value = member + 1;
  $("member-of").textContent = `${mode === "members" ? "Member" : "Members"} ${mode === "members" ? `${member + 1} of ` : ""}${current?.told.members.length ?? "–"}`;
  const at = thresholds[thresholdOf] ?? null;
  $("threshold-of").value = thresholdOf;
  $("threshold-at").value = at ?? 0.5;
  $("threshold-out").textContent = at === null ? "as fused" : at.toFixed(2);
  $("threshold-reset").disabled = thresholds.every((one) => one === null);
  $("uncertainty-on").checked = state.uncertainty;
  $("uncertainty-opacity").value = state.opacity;
  $("uncertainty-out").textContent = `${Math.round(100 * state.opacity)} %`;
  $("legend").hidden = !state.uncertainty || !current?.uncertainty;
  for (const id of ["width", "level"]) {
    $(id).value = shown[id];
    $(`${id}-out`).textContent = current && !current.volume ? `${Math.round(100 * shown[id])} %` : Number(shown[id].toPrecision(4));
  }
  $("fill").checked = state.fill;
  $("others").checked = state.others;
  $("others-row").hidden = Boolean(current?.volume);
  $("brush-on").checked = brush.on;
  $("brush").hidden = !brush.on;
  $("brush-of").value = brush.structure;
  $("brush-size").value = brush.size;
  $("brush-out").textContent = `${brush.size} px`;
  for (const input of document.querySelectorAll("[name=tool]")) input.checked = (input.value === "erase") === brush.erase;
}
