// What became of requests: those that were slow or failed, and the decisions of the scheduler.

import { count, get, make, short, time } from "./element.js";

const STAGES = ["decode", "queue", "stack", "execute", "slice", "deliver", "encode"];
/** Stories that are shown; the document has more. */
const SHOWN = 16;

/** The colours, once. */
export function legend() {
  for (const stage of STAGES) {
    const swatch = make("span", { class: `swatch ${stage}`, "aria-hidden": "true" });
    get("legend").append(make("li", {}, swatch, stage));
  }
  get("legend").append(make("li", {}, make("span", { class: "swatch other", "aria-hidden": "true" }), "not known"));
}

/** Shows stories, newest first; those that are open stay so. */
export function showSlow(stories) {
  const list = get("slow");
  const shown = stories.slice(0, SHOWN);
  const longest = Math.max(...shown.map((story) => story.total_ms), 1e-9);
  const old = new Map([...list.querySelectorAll("details")].map((node) => [node.dataset.key, node]));
  const nodes = shown.map((story) => {
    const key = JSON.stringify([story.arrived_unix_ms, story.model, story.version, story.id]);
    const node = old.get(key) ?? tell(story, key);
    scale(node.querySelector(".timeline"), story, longest);
    return node;
  });
  if (!nodes.length) nodes.push(make("p", { class: "quiet" }, "None yet: nothing took longer than its objective, and nothing failed by the server's fault."));
  const isSame = nodes.length === list.children.length && nodes.every((node, place) => node === list.children[place]);
  // Moving a node would take the focus from it.
  if (!isSame && !list.contains(document.activeElement)) list.replaceChildren(...nodes);
}

function tell(story, key) {
  const name = story.model ? `${story.model} ${story.version}` : "no model";
  const took = make("span", { class: "number" }, `${short(story.total_ms)} ms`);
  const code = make("span", { class: story.code === "OK" ? "quiet" : "bad-text" }, story.code === "OK" ? "slow" : story.code);
  const line = make("summary", {}, make("span", { class: "mono" }, time(story.arrived_unix_ms).slice(0, 8)),
    make("span", { title: name }, name), make("span", {}, code), make("span", {}, took));
  line.append(bar(story));
  return make("details", { class: "story", "data-key": key }, line, make("div", { class: "told" }, ...details(story)));
}

/** The stages side by side. */
function bar(story) {
  const said = story.stages.map((one) => `${one.stage} ${short(one.duration_ms)} ms`).join(", ");
  const whole = make("span", { class: "timeline", role: "img", "aria-label": said || "no stage was reached", title: said });
  whole.append(...parts(story).map((one) => make("span", { class: one.stage })));
  return whole;
}

function scale(whole, story, longest) {
  [...whole.children].forEach((part, place) => {
    part.style.width = `${(parts(story)[place].duration_ms / longest) * 100}%`;
  });
}

/** The stages, and what of the whole is in none: of a request that failed, where nobody noted more. */
function parts(story) {
  const known = story.stages.reduce((sum, one) => sum + one.duration_ms, 0);
  return story.stages.concat({ stage: "other", duration_ms: Math.max(story.total_ms - known, 0) });
}

function details(story) {
  const told = [make("p", {}, `${story.id ? `Id ${story.id}; ` : ""}${count(story.rows, "row")}; objective ${short(story.objective_ms)} ms; `
    + `took ${short(story.total_ms)} ms${story.cached ? "; from the response cache" : ""}`
    + `${story.trace_id ? `; trace ${story.trace_id}` : ""}.`)];
  if (story.stages.length) {
    told.push(make("p", {}, story.stages.map((one) => `${one.stage} ${short(one.duration_ms)} ms`).join(" · ")));
  }
  if (story.batch) told.push(make("p", {}, travelled(story.batch)));
  for (const step of story.steps) {
    const said = step.stages.map((one) => `${one.stage} ${short(one.duration_ms)} ms`).join(", ");
    told.push(make("p", {}, `Step ${step.step} (${step.model} ${step.version}): ${short(step.total_ms)} ms: ${said}`), bar(step));
    scale(told.at(-1), step, Math.max(story.total_ms, 1e-9));
  }
  return told;
}

/** A batch in a sentence. */
function travelled(batch) {
  const waits = batch.members.map((member) => short(member.waited_ms)).join(", ");
  return `Batch ${batch.number} left because ${why(batch.reason)}, on ${batch.device || "no device"}, with `
    + `${count(batch.members.length, "request")} (${count(batch.rows, "row")}, ${batch.run_rows} ran; waited ${waits} ms); ${batch.stayed} stayed`
    + `${batch.failed ? `; it failed: ${batch.failed}` : ""}.`;
}

const WHY = {
  free: "an executor was free", full: "it was full", enough: "it was large enough", due: "its head could wait no longer",
  preferred: "it had a preferred size", delayed: "its head had waited as long as it was to",
};
const why = (reason) => WHY[reason] ?? reason;

/** Shows decisions, newest first. */
export function showDecisions(decisions) {
  const body = get("decisions");
  const key = JSON.stringify(decisions.map((one) => [one.model, one.version, one.number]));
  if (body.dataset.key === key) return;
  body.dataset.key = key;
  body.replaceChildren(...decisions.map(decided));
  if (!decisions.length) {
    const none = make("td", { colspan: 11, class: "quiet" }, "No batch has left yet.");
    body.append(make("tr", {}, none));
  }
}

function decided(batch) {
  const waited = Math.max(...batch.members.map((member) => member.waited_ms));
  const slack = batch.members.map((member) => member.slack_ms).filter((one) => one != null);
  const number = (value) => make("td", { class: "number" }, short(value));
  return make("tr", {}, make("td", { class: "mono" }, time(batch.left_unix_ms)),
    make("th", { scope: "row" }, `${batch.model} ${batch.version}`), make("td", { title: why(batch.reason) }, batch.reason),
    number(batch.members.length), number(batch.rows), number(waited), number(slack.length ? Math.min(...slack) : null),
    number(batch.stayed), make("td", {}, batch.device), number(batch.execute_ms),
    make("td", { class: "bad-text" }, batch.failed ?? ""));
}
