// The list of cases: those that a human must look at first.

import { $, fill, make } from "./dom.js";

const MOST = 300; // rows at once
let all = [], chosen = "", prefix = "";

/** Show cases; a click leads to the address of one. */
export function showCases({ cases, failed }, before = "") {
  prefix = before;
  all = cases;
  $("count").textContent = cases.length;
  for (const id of ["search", "order"]) $(id).oninput = list;
  const reasons = Object.entries(failed);
  $("failed").hidden = !reasons.length;
  fill($("failed").querySelector("summary"), `${reasons.length} could not be segmented`);
  fill($("failed").querySelector("ul"), ...reasons.map(([file, why]) => make("li", {}, `${file}: ${why}`)));
  list();
}

/** Mark the case that is shown. */
export function mark(name) {
  chosen = name;
  for (const link of $("list").querySelectorAll("a")) link.toggleAttribute("aria-current", link.dataset.name === name);
  $("list").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
}

/** The case before or after the one shown, as the list has them. */
export function neighbour(step) {
  const names = sorted().map(({ name }) => name);
  return names[(names.indexOf(chosen) + step + names.length) % names.length];
}

function sorted() {
  const wanted = $("search").value.trim().toLowerCase();
  const found = all.filter(({ name }) => name.toLowerCase().includes(wanted));
  const worst = (of) => (of.review ? 0 : 10) + (of.trust ?? of.predicted_dice ?? of.agreement ?? 1);
  const byName = (a, b) => a.name.localeCompare(b.name, "en", { numeric: true });
  return found.sort($("order").value === "worst" ? (a, b) => worst(a) - worst(b) || byName(a, b) : byName);
}

function list() {
  const found = sorted();
  fill($("list"), ...found.slice(0, MOST).map((of) => make("li", {}, row(of))));
  $("more").hidden = found.length <= MOST;
  $("more").textContent = `${MOST} of ${found.length} are listed; find others by name.`;
  mark(chosen);
}

function row({ name, review, predicted_dice: predicted, agreement }) {
  const flag = { true: ["review", "must be looked at"], false: ["fine", "may pass"], null: ["", "not judged"] }[review];
  const value = predicted ?? agreement;
  const told = value === null ? "" : value.toFixed(2);
  const title = predicted === null ? "Mean Dice of pairs of members" : "Predicted Dice of its worst structure";
  const link = make("a", { href: `#${encodeURIComponent(prefix + name)}` },
    make("span", { className: `flag ${flag[0]}`, title: flag[1], role: "img", "aria-label": flag[1] }),
    make("span", { className: "name" }, name), make("span", { className: "number", title }, told));
  link.dataset.name = name;
  return link;
}
