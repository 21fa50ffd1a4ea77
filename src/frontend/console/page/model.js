// One version: what it takes and gives, and what it does.

import { histogram, lines } from "./chart.js";
import { bytes, count, get, make, percent, say, short } from "./element.js";
import { form } from "./try.js";

let shown = "";

/** Shows a version that serves; its form is made once. */
export function showModel(model) {
  const name = model && `${model.model} ${model.version}`;
  get("model").hidden = !model;
  if (!model) {
    shown = "";
    return;
  }
  // A version that is loaded anew may take other inputs.
  const key = JSON.stringify([name, model.inputs, model.outputs]);
  if (key !== shown) {
    shown = key;
    say(get("model-title"), `${model.model}, version ${model.version}`);
    get("signature").replaceChildren(specs("Inputs", model.inputs), specs("Outputs", model.outputs));
    form(model).catch((error) => say(get("try"), error.message));
  }
  get("charts").replaceChildren(...charts(model));
  get("model-facts").replaceChildren(facts(model));
}

function specs(title, tensors) {
  const list = make("ul", { class: "spec", "aria-label": title });
  for (const tensor of tensors) {
    const sizes = tensor.shape.map((size, place) => (size < 0 ? tensor.dimensions[place] || "any" : size));
    list.append(make("li", {}, make("strong", {}, tensor.name), ` ${tensor.datatype} [${sizes.join(", ")}]`));
  }
  return make("div", {}, make("span", { class: "quiet" }, title), list);
}

function charts(model) {
  const points = model.points ?? [];
  const of = (key) => points.map((point) => point[key]);
  const rate = [{ name: "all", values: of("requests_per_second") }, { name: "errors", kind: "bad", values: of("errors_per_second") }];
  const latency = [{ name: "p50", values: of("p50_ms") }, { name: "p99", kind: "second", values: of("p99_ms") }];
  const used = of("capacity_used_ratio").map((share) => (share == null ? null : share * 100));
  return [lines("Requests/s", "", rate), lines("Latency", "ms", latency, model.objective_ms),
    lines("Queue", "", [{ name: "waiting", values: of("queue_depth") }]),
    lines("Capacity used", "%", [{ name: "", values: used }]), stages(model.recent.stages_ms),
    histogram("Rows, up to", model.batch_rows, String),
    histogram("Padding %, up to", model.padding_ratio, (share) => String(Math.round(share * 100)))];
}

const ORDER = ["decode", "queue", "stack", "execute", "slice", "encode"];

/** How long each stage takes on average. */
function stages(means) {
  const whole = ORDER.reduce((sum, stage) => sum + (means[stage] ?? 0), 0);
  const said = ORDER.map((stage) => `${stage} ${short(means[stage])}`);
  const bar = make("div", { class: "timeline", role: "img", "aria-label": `Mean times in milliseconds: ${said.join(", ")}` });
  for (const stage of ORDER) {
    const part = make("span", { class: stage });
    part.style.width = whole ? `${((means[stage] ?? 0) / whole) * 100}%` : "0";
    bar.append(part);
  }
  const list = make("ul", { class: "spec quiet", "aria-hidden": "true" }, ...ORDER.map((stage, place) =>
    make("li", {}, make("span", { class: `swatch ${stage}` }), said[place])));
  return make("figure", {}, make("figcaption", {}, "Mean of each stage, last 10 s", make("strong", {}, whole ? `${short(whole)} ms` : "none yet")),
    bar, list);
}

function facts(model) {
  const list = make("dl");
  const fact = (name, value) => value && list.append(make("dt", {}, name), make("dd", {}, value));
  const batching = model.batching.alone ? `one request at a time: ${model.batching.alone}` : `up to ${count(model.batching.max_batch_size, "row")}`;
  fact("Batching", batching);
  fact("Made of", (model.made_of ?? []).join(", "));
  fact("Runs on", model.devices.length ? `${model.devices.join(", ")} (${count(model.executors_alive, "executor")} alive)` : "");
  fact("Memory", Object.entries(model.memory_bytes).map(([device, taken]) => `${bytes(taken)} on ${device}`).join(", "));
  fact("Objective", `${short(model.objective_ms)} ms`);
  fact("Batches take", model.service_times.map((time) =>
    `${short(time.fixed_ms)} ms + ${short(time.per_row_ms)} ms a row on ${time.device}`).join("; "));
  const capacity = model.capacity;
  if (capacity) {
    fact("Capacity", `${short(capacity.offered_rows_per_second)} of ${short(capacity.sustainable_rows_per_second)} rows/s `
      + `(${percent(capacity.used_ratio)}); room for ${short(capacity.headroom_rows_per_second)} more`);
  }
  const errors = Object.entries(model.total.errors).map(([code, times]) => `${short(times)} ${code}`).join(", ");
  fact("Since loaded", `${count(model.total.requests, "request")}, ${count(model.total.rows, "row")}, ${model.total.batches.toLocaleString("en")} batches`
    + `${errors ? `; errors: ${errors}` : ""}`);
  if (model.sequences != null) fact("Sequences", short(model.sequences));
  if (model.total.cache_hits + model.total.cache_misses) {
    fact("Response cache", `${short(model.total.cache_hits)} hits, ${short(model.total.cache_misses)} misses`);
  }
  return list;
}
