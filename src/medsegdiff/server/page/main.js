// The page: opens a case, and draws it whenever something changes.

import { json } from "./api.js";
import { Case } from "./case.js";
import { ramp } from "./colours.js";
import { fit, wire } from "./controls.js";
import { correcting } from "./correct.js";
import { $, complain, guarded } from "./dom.js";
import { listenToKeys } from "./keys.js";
import { mark, neighbour, showCases } from "./list.js";
import { showDownloads, showQuality, showStructures, tellSizes } from "./panels.js";
import { PictureView } from "./picture.js";
import { set, state, whenever } from "./store.js";
import { dice } from "./masks.js";
import { listenToTheme } from "./theme.js";
import { VolumeView } from "./volume.js";

let base = "results/", prefix = "", told = null, opening = 0, playing = null;
const windowed = (dx, dy) => {
  const span = view().range.high - view().range.low;
  set({ window: { width: Math.max(span / 200, state.window.width + dx * span), level: state.window.level + dy * span } });
};
const drawing = correcting({ view: () => view(), reopen: () => open(state.current.told.name) });
const picture = new PictureView($("picture"), { pointed, stroked: drawing.stroked, windowed });
const volume = new VolumeView($("volume"), { pointed, remember: drawing.remember, drawn: drawing.drawn, windowed });
const view = () => (state.current?.volume ? volume : picture);

/** Open a folder of results. */
export async function openResults(address, before = "") {
  [base, prefix] = [address, before];
  told = await json(base);
  document.title = `${told.title} · medsegdiff`;
  $("what").textContent = [told.title, told.model && `by ${told.model}`, told.made].filter(Boolean).join(" · ");
  showCases(told, prefix);
  $("cases").hidden = false;
  if (matchMedia("(max-width: 48rem)").matches) $("cases").open = false;
  await asAddressed();
}

async function asAddressed() {
  if (!told) return;
  const wanted = decodeURIComponent(location.hash.slice(1)).replace(prefix, ""), names = told.cases.map(({ name }) => name);
  const name = names.includes(wanted) ? wanted : neighbour(1);
  if (name === undefined) $("empty").textContent = "There are no cases among the results.";
  else await open(name);
}

async function open(name) {
  const turn = ++opening;
  stop();
  mark(name);
  $("case").textContent = name;
  $("empty").textContent = "Loading …";
  $("empty").hidden = false;
  $("stage").ariaBusy = "true";
  const kase = await Case.open(base, name, told.structures);
  if (turn !== opening) return;
  const next = kase.volume ? volume : picture;
  $("picture").hidden = kase.volume;
  $("volume").hidden = !kase.volume;
  try {
    await next.open(kase, 0);
  } catch (error) {
    if (turn === opening) $("empty").textContent = "This case can't be shown.";
    if (turn === opening) settled();
    throw error;
  }
  if (turn !== opening) return;
  next.all = null;
  set({
    current: kase, mode: state.mode === "reference" && !kase.reference ? "fused" : state.mode, member: 0, edited: null, channel: 0,
    visible: told.structures.map(() => true), thresholds: told.structures.map(() => null), thresholdOf: 0,
    window: next.auto ?? { width: 1, level: 0.5 }, brush: { ...state.brush, on: false, structure: 0 },
  });
  if (!kase.told.members.length && state.mode === "members") set({ mode: "fused" });
  fit(kase, next);
  showStructures(kase);
  showQuality(kase);
  showDownloads(kase);
  $("empty").hidden = true;
  $("badge").hidden = Boolean(kase.told.image);
  $("badge").textContent = kase.told.absent.image ?? "";
  members = probability = null;
  kase.members().then((found) => { if (turn === opening) { members = next.all = found; set({}); settled(); } }, complain);
}

function settled() {
  queueMicrotask(() => { $("stage").ariaBusy = "false"; });
}

let members = null, probability = null, thresholded = {};

function shownMasks() {
  const { mode, current, edited, thresholds } = state;
  if (edited) return edited;
  if (mode === "anchor") return current.anchor;
  if (mode === "reference") return current.reference;
  if (mode === "members") return members?.[state.member] ?? null;
  const key = `${current.told.name} ${thresholds}`;
  if (thresholds.every((at) => at === null)) return current.fused;
  if (thresholded.key === key) return thresholded.masks;
  let masks = current.fused;
  thresholds.forEach((at, s) => { if (at !== null && probability?.[s]) masks = masks.withThreshold(s, probability[s], at); });
  if (masks !== current.fused) thresholded = { key, masks };
  return masks;
}

async function fetchProbability() {
  const { current, thresholds } = state;
  const missing = thresholds.findIndex((at, s) => at !== null && !probability?.[s]);
  if (missing < 0 || !current) return;
  const found = await current.probability(missing);
  if (current !== state.current) return;
  (probability ??= [])[missing] = found;
  set({});
}

function draw() {
  const { current, thresholds, thresholdOf } = state;
  if (!current) return;
  fetchProbability().catch(complain);
  const masks = shownMasks();
  view().draw(state, masks);
  tellSizes(current, masks, members);
  $("threshold-says").textContent = "";
  if (thresholds[thresholdOf] !== null && members && masks && state.mode === "fused" && !state.edited) {
    const with_ = members.map((member) => dice(masks, member, thresholdOf)), ends = [Math.min(...with_), Math.max(...with_)];
    $("threshold-says").textContent = `Dice with the members ${ends[0].toFixed(2)} – ${ends[1].toFixed(2)}`;
  }
}

function pointed(pixel, where) {
  const { current } = state, parts = [];
  if (pixel === null || !current) return;
  current.structures.forEach((structure, s) => {
    if (!state.visible[s]) return;
    const agree = members?.length ? `${members.filter((member) => member.has(s, pixel)).length} of ${members.length} members` : "";
    const sure = probability?.[s] ? `probability ${probability[s][pixel].toFixed(2)}` : "";
    if (agree || sure) parts.push([structure.name, [agree, sure].filter(Boolean).join(", ")]);
  });
  if (current.uncertainty) parts.push(["uncertainty", current.uncertainty[pixel].toFixed(2)]);
  $("readout").replaceChildren(`${where} `, ...parts.flatMap(([name, text]) => [` · ${name} `, Object.assign(document.createElement("b"), { textContent: text })]));
}

function play() {
  if (playing) return stop();
  const count = members?.length ?? 0;
  if (count < 2) return;
  set({ mode: "members" });
  playing = setInterval(() => set({ mode: "members", member: (state.member + 1) % count }), 350);
  shownAsPlaying(true);
}

function stop() {
  clearInterval(playing);
  playing = null;
  shownAsPlaying(false);
}

function shownAsPlaying(on) {
  $("play").setAttribute("aria-pressed", on);
  $("play").setAttribute("aria-label", on ? "Stop" : "Play the members");
  $("play").firstElementChild.textContent = on ? "❚❚" : "▶";
}

async function start() {
  ramp($("ramp"));
  listenToTheme();
  wire();
  whenever(guarded(draw));
  $("play").onclick = play;
  $("fit").onclick = () => { view().fit(); draw(); };
  $("channel").onchange = guarded(async () => { await view().open(state.current, Number($("channel").value)); set({ window: view().auto ?? state.window }); });
  listenToKeys({ view, play, neighbour: (step) => { location.hash = encodeURIComponent(prefix + neighbour(step)); }, undo: drawing.undo, toggleBrush: drawing.toggle });
  addEventListener("hashchange", guarded(asAddressed));
  const about = await json("about");
  $("notice").title = about.notice;
  if (about.mode === "view") await openResults("results/");
  else (await import("./jobs.js")).startJobs(about, openResults);
}

guarded(start)();
