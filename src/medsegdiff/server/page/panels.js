// The cards beside the image: quality, structures with their sizes, what can be taken away.

import { save } from "./api.js";
import { number, sized } from "./case.js";
import { fill, guarded, make } from "./dom.js";
import { set, state } from "./store.js";

const body = (id) => document.querySelector(`#${id} .body`);

export function showQuality(kase) {
  const { quality, agreement, confidence, incomplete } = kase.told.facts, names = Object.keys(quality);
  if (names.length) {
    fill(body("quality"), ...names.map((name) => judged(name, quality[name], names.length > 1)));
    return;
  }
  const said = [["Members agree (mean Dice of pairs)", agreement], ["Soft Dice of the probability with its mask", confidence]];
  fill(
    body("quality"),
    ...said.filter(([, value]) => value !== null && value !== undefined).map(([what, value]) => make("p", { className: "row" }, make("span", {}, what), make("b", {}, value.toFixed(2)))),
    incomplete.length ? make("p", { className: "soft" }, `Reaches the border of the image: ${incomplete.join(", ")}.`) : null,
    make("p", { className: "soft" }, "The run was not calibrated, so that nothing is predicted of this mask. “medsegdiff calibrate RUN DATA” teaches it."),
  );
}

function judged(name, of, several) {
  const look = of.review ? ["review", "A human must look"] : ["fine", "May pass"];
  const numbers = of.predicted_dice === null
    ? make("p", { className: "dice" }, of.score.toFixed(2), make("small", {}, " score; too few patients to predict Dice"))
    : make("p", { className: "dice" }, of.predicted_dice.toFixed(2), make("small", {}, ` Dice, at least ${(of.dice_at_least ?? 0).toFixed(2)} in 9 of 10 cases`));
  return make(
    "div", { className: "judged" },
    make("div", { className: "head" }, make("span", {}, several ? name : "Predicted"), make("span", { className: `verdict ${look[0]}` }, look[1])),
    numbers,
    of.reasons.length ? make("ul", {}, ...of.reasons.map((reason) => make("li", {}, reason))) : null,
  );
}

let rows = [];

/** One row by structure: shown or not, how large, and how large members draw it. */
export function showStructures(kase) {
  rows = kase.structures.map((structure, place) => {
    const box = make("input", { type: "checkbox", checked: state.visible[place], onchange: () => set({ visible: state.visible.with(place, box.checked) }) });
    const size = make("span", { className: "size" }), more = make("p", { className: "more" }), plot = make("svg", { viewBox: "0 0 100 16", preserveAspectRatio: "none", role: "img" });
    const row = make("div", { className: "structure", style: { "--swatch": structure.colour } }, make("label", {}, box, make("span", {}, structure.name), size), more, plot);
    return { row, box, size, more, plot, stated: kase.told.facts.sizes[structure.name] };
  });
  fill(body("structures"), ...rows.map(({ row }) => row));
}

/** Tell sizes of the mask that is shown, beside those of the members. */
export function tellSizes(kase, masks, members) {
  rows.forEach((of, place) => {
    of.box.checked = state.visible[place];
    const size = masks ? masks.size(place) : 0, drawn = members?.map((member) => member.size(place)) ?? [];
    of.size.textContent = masks ? sized(size, kase.told) : "";
    const said = [];
    if (of.stated) said.push(`90 % interval ${number(of.stated.low)} – ${number(of.stated.high)}`);
    if (drawn.length) said.push(`${drawn.filter((one) => one <= size).length} of ${drawn.length} members draw it no larger`);
    of.more.textContent = said.join(" · ");
    plotSizes(of, size, drawn, kase.told.pixel);
  });
}

function plotSizes({ plot, stated }, size, drawn, pixel) {
  const ends = [...drawn, size, ...(stated ? [stated.low / pixel, stated.high / pixel] : [])], low = Math.min(...ends), high = Math.max(...ends);
  plot.toggleAttribute("hidden", drawn.length < 2);
  if (drawn.length < 2) return;
  const x = (value) => 3 + (94 * (value - low)) / Math.max(high - low, 1e-9);
  fill(
    plot,
    make("title", {}, `Sizes of the members, their interval, and that of the mask shown`),
    make("line", { class: "base", x1: 0, x2: 100, y1: 8, y2: 8 }),
    stated ? make("rect", { class: "span", x: x(stated.low / pixel), width: Math.max(0.5, x(stated.high / pixel) - x(stated.low / pixel)), y: 3, height: 10 }) : null,
    ...drawn.map((value) => make("rect", { class: "dot", x: x(value) - 0.35, y: 5, width: 0.7, height: 6 })),
    make("line", { class: "now", x1: x(size), x2: x(size), y1: 1, y2: 15, "vector-effect": "non-scaling-stroke" }),
  );
}

export function showDownloads(kase) {
  const link = ({ what, href, file }) =>
    make("li", {}, make("a", { href: `${href}#`, onclick: (event) => { event.preventDefault(); guarded(save)(kase.base + href, file); } }, what));
  const command = make("pre", { tabIndex: 0, "aria-label": "The command that makes these results again" }, kase.told.command);
  const copy = make("button", { type: "button", className: "quiet", onclick: async () => { await navigator.clipboard.writeText(kase.told.command); copy.textContent = "Copied"; } }, "Copy the command");
  fill(body("downloads"), make("ul", {}, ...kase.told.downloads.map(link)), kase.told.command ? command : null, kase.told.command ? copy : null);
}
