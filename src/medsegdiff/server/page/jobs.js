// Sending images to a model, and watching what becomes of them.

import { ask, json, Refused, useToken } from "./api.js";
import { $, complain, fill, guarded, make } from "./dom.js";

const FORMATS = "PNG, JPEG, TIFF, NIfTI, a DICOM series as ZIP or files";
let open, models = [], jobs = [], shown = "", watched = new Set();

/** Show the drop zone and the jobs; results open below them. */
export async function startJobs(_, openResults) {
  open = openResults;
  $("cases").hidden = true;
  $("empty").textContent = "Drop an image on the left to have it segmented.";
  $("case").textContent = "No image yet";
  build();
  await signedIn(load);
}

async function load() {
  models = await json("models");
  fill($("model"), ...models.map(({ name }) => make("option", {}, name)));
  tellModel();
  jobs = await json("jobs");
  list();
  jobs.forEach(watch);
  const wanted = decodeURIComponent(location.hash.slice(1)).split("/")[0];
  const first = jobs.find(({ id, results }) => results && id === wanted) ?? jobs.find(({ results }) => results);
  if (first) await show(first);
}

/** Do something that may need a token; ask for it as often as it is wrong. */
async function signedIn(work) {
  try {
    await work();
    $("token-form").hidden = true;
  } catch (error) {
    if (!(error instanceof Refused && error.status === 401)) throw error;
    $("token-form").hidden = false;
    $("token-form").onsubmit = guarded(async (event) => {
      event.preventDefault();
      useToken($("token").value.trim());
      await signedIn(work);
    });
  }
}

function build() {
  const input = make("input", { type: "file", multiple: true, id: "files", className: "sr", onchange: () => send([...input.files]) });
  const zone = make("label", { className: "drop", for: "files" }, input, make("b", {}, "Drop images here"), make("span", { className: "soft" }, `or choose files: ${FORMATS}`));
  for (const kind of ["dragover", "dragenter"]) zone.addEventListener(kind, (event) => { event.preventDefault(); zone.classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) zone.addEventListener(kind, () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => { event.preventDefault(); send([...event.dataTransfer.files]); });
  const number = (id, most) => make("input", { type: "number", id, min: 1, max: most, placeholder: "default" });
  fill(
    $("drop-place"),
    make("form", { id: "token-form", hidden: true }, make("label", { className: "row" }, make("span", {}, "Token"), make("input", { id: "token", type: "text", autocomplete: "off" })), make("button", { className: "main" }, "Enter")),
    zone,
    make("label", { className: "row", id: "model-row" }, make("span", {}, "Model"), make("select", { id: "model", onchange: tellModel })),
    make("p", { className: "soft", id: "model-card" }),
    make("details", { className: "options" }, make("summary", {}, "Options"),
      make("label", { className: "row" }, make("span", {}, "Members"), number("members", 200)),
      make("label", { className: "row" }, make("span", {}, "Steps"), number("steps", 1000)),
      make("label", { className: "row" }, make("span", {}, "Seed"), make("input", { type: "number", id: "seed", min: 0, value: "0" }))),
    make("h2", { id: "jobs-title", hidden: true }, "Sent"),
    make("ul", { id: "jobs", "aria-live": "polite" }),
  );
  $("drop-place").hidden = false;
}

function tellModel() {
  const of = models.find(({ name }) => name === $("model").value);
  $("model-row").hidden = models.length < 2;
  $("model-card").textContent = of
    ? `${models.length < 2 ? `${of.name}: ` : ""}${of.network} draws ${of.structures.join(", ")} in ${of.volumes ? "volumes" : "pictures"}; ${of.members} members of ${of.steps} steps. About ${time(of.seconds)} each.`
    : "";
}

const send = guarded(async (files) => {
  if (!files.length) return;
  const form = new FormData(), options = {};
  for (const file of files) form.append("files", file, file.name);
  for (const name of ["members", "steps", "seed"]) if ($(name).value !== "") options[name] = $(name).valueAsNumber;
  form.append("model", $("model").value);
  form.append("options", JSON.stringify(options));
  const job = await json("jobs", { method: "POST", body: form });
  jobs.unshift(job);
  $("files").value = "";
  list();
  watch(job, true);
});

/** Follow a job until it ends; the newest one is shown then. */
async function watch(job, wanted = false) {
  if (job.state === "done" || job.state === "failed" || watched.has(job.id)) return;
  watched.add(job.id);
  try {
    const answer = await ask(`jobs/${job.id}/events`), reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; ; ) {
      const { value, done } = await reader.read();
      if (done) break;
      const events = (text += value.replaceAll("\r", "")).split("\n\n");
      text = events.pop();
      for (const event of events) {
        const data = event.split("\n").find((line) => line.startsWith("data:"));
        if (data) update(JSON.parse(data.slice(5)));
      }
    }
  } catch (error) {
    complain(error);
  }
  watched.delete(job.id);
  const now = jobs.find(({ id }) => id === job.id);
  if (now?.state === "done" && wanted) await guarded(show)(now);
  if (now?.state === "failed") complain(new Error(now.error));
}

function update(job) {
  jobs = jobs.map((other) => (other.id === job.id ? job : other));
  list();
}

async function show(job) {
  shown = job.id;
  list();
  await open(job.results, `${job.id}/`);
  if (matchMedia("(max-width: 48rem)").matches) $("stage").scrollIntoView({ behavior: "smooth" });
}

function list() {
  $("jobs-title").hidden = !jobs.length;
  fill($("jobs"), ...jobs.map((job) => make("li", { className: job.id === shown ? "shown" : "" }, button(job), bar(job), remover(job))));
}

function button(job) {
  const said = {
    queued: `waits, ${job.position ? `${job.position} before it` : "next"}`, running: `${job.total ? `${Math.round((100 * job.done) / job.total)} %` : "runs"}${job.eta_s ? `, about ${time(job.eta_s)}` : ""}`,
    done: `${job.cases > 1 ? `${job.cases} images, ` : ""}${time(job.seconds)}`, failed: job.error || "failed",
  }[job.state];
  const names = job.images.length > 1 ? `${job.images[0]} and ${job.images.length - 1} more` : job.images[0];
  return make("button", { type: "button", disabled: !job.results, onclick: guarded(() => show(job)) }, make("span", { className: "name" }, names), make("span", { className: `soft ${job.state}` }, said));
}

function bar(job) {
  return job.state === "running" ? make("progress", { max: job.total || 1, value: job.total ? job.done : 0, "aria-label": "How far it is" }) : null;
}

function remover(job) {
  const remove = guarded(async () => {
    await ask(`jobs/${job.id}`, { method: "DELETE" });
    jobs = jobs.filter(({ id }) => id !== job.id);
    list();
  });
  return make("button", { type: "button", className: "remove", "aria-label": `Remove ${job.images[0]}`, title: "Remove", onclick: remove }, "×");
}

function time(seconds) {
  if (seconds === null) return "";
  return seconds < 90 ? `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}
