// Light or dark: as the system is, until somebody chooses.

import { $ } from "./dom.js";

export function listenToTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const show = (dark) => { root.dataset.theme = dark ? "dark" : "light"; };
  let chosen = false;
  show(system.matches);
  system.onchange = () => { if (!chosen) show(system.matches); };
  $("theme").onclick = () => { chosen = true; show(root.dataset.theme !== "dark"); };
}
