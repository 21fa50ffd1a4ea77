// Asks the server every two seconds, and shows what it says.

import { ask, bytes, get, make, meter, percent, say, short, span } from "./element.js";
import { showModel } from "./model.js";
import { legend, showDecisions, showSlow } from "./request.js";

const PAUSE = 2000;
/** Asks between two looks at the repository. */
const INDEX_EVERY = 5;

let selected = new URLSearchParams(location.hash.slice(1)).get("model");
let paused = false;
let asks = 0;
/** Models of the repository that are not loaded. */
let unloaded = [];

async function look() {
  const state = await ask("console/state?points=false");
  if (state.server.controls && asks++ % INDEX_EVERY === 0) await lookAtRepository();
  showServer(state);
  showDevices(state.devices);
  const models = state.models.concat(unloaded.filter((one) => !state.models.some((known) => known.model === one.model)));
  const serving = models.filter((model) => model.inputs);
  const chosen = serving.find((model) => keyOf(model) === selected) ?? serving[0];
  selected = chosen ? keyOf(chosen) : selected;
  showModels(models, state.server.controls);
  const [detail, slow, decided] = await Promise.all([
    chosen && ask(`console/state?model=${encodeURIComponent(chosen.model)}`), ask("console/slow"),
    ask("console/decisions?last=25")]);
  showModel(detail?.models.find((model) => keyOf(model) === selected && model.inputs));
  showSlow(slow.requests);
  showDecisions(decided.decisions);
}

const keyOf = (model) => `${model.model}/${model.version ?? ""}`;

async function lookAtRepository() {
  const index = await ask("v2/repository/index", { method: "POST" });
  unloaded = index.filter((entry) => entry.state !== "READY" && !entry.version)
    .map((entry) => ({ model: entry.name, version: null, state: entry.state, reason: entry.reason }));
}

function showServer(state) {
  const { server, in_flight: held } = state;
  say(get("version"), `${server.version}${server.name === "triton" ? "" : `, ${server.name}`}`);
  ready(server.ready ? "ready" : "not ready", server.ready ? "good" : "");
  const facts = [["Up", span(server.uptime_ms)], ["Calls", `${short(held.calls)} of ${short(held.most_calls)}`],
    ["In flight", bytes(held.bytes)], ["Capacity used", percent(state.capacity_used_ratio)]];
  get("facts").replaceChildren(...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  say(get("access"), server.controls ? "" : "Only to look at: --console control with --model-control explicit loads and unloads here.");
}

function ready(text, kind) {
  say(get("ready"), text);
  get("ready").className = `pill ${kind}`;
}

function showDevices(devices) {
  get("devices").replaceChildren(...devices.map((device) => {
    const taken = device.total_bytes == null ? null : device.total_bytes - device.free_bytes;
    const memory = taken == null ? null : meter("Memory", taken / device.total_bytes, `${bytes(taken)} of ${bytes(device.total_bytes)}`);
    return make("li", {}, make("strong", {}, device.device), make("span", { class: "quiet" }, ` ${device.name}`), memory,
      meter("Busy", device.busy_ratio, percent(device.busy_ratio)),
      meter("Capacity", device.capacity_used_ratio, percent(device.capacity_used_ratio)));
  }));
}

/** One row a version. Rows stay where they are, so that the focus does, too. */
function showModels(models, controls) {
  const body = get("model-rows");
  get("no-models").hidden = models.length > 0;
  get("action-title").hidden = !controls;
  const old = new Map([...body.children].map((row) => [row.dataset.key, row]));
  const rows = models.map((model) => {
    const key = `${keyOf(model)} ${controls} ${Boolean(model.inputs)} ${model.state}`;
    const row = old.get(key) ?? modelRow(model, key, controls);
    fillRow(row, model);
    return row;
  });
  const isSame = rows.length === body.children.length && rows.every((row, place) => row === body.children[place]);
  if (!isSame) body.replaceChildren(...rows);
}

function modelRow(model, key, controls) {
  const name = `${model.model}${model.version == null ? "" : ` ${model.version}`}`;
  const title = model.inputs ? make("button", { type: "button", class: "plain", onclick: () => choose(keyOf(model)) }, name) : name;
  const kind = model.state === "READY" ? "good" : model.state === "LOADING" ? "" : "bad";
  const row = make("tr", { "data-key": key }, make("th", { scope: "row" }, title),
    make("td", {}, make("span", { class: `pill ${kind}` }, model.state)));
  if (model.inputs) row.append(...Array.from({ length: 8 }, () => make("td", { class: "number" })));
  else row.append(make("td", { colspan: 8, class: "reason" }, model.reason));
  if (controls) row.append(make("td", {}, action(model)));
  return row;
}

function fillRow(row, model) {
  if (keyOf(model) === selected) row.setAttribute("aria-current", "true");
  else row.removeAttribute("aria-current");
  if (!model.inputs) {
    const share = model.loading?.done_ratio;
    if (share == null) say(row.children[2], model.reason);
    else row.children[2].replaceChildren(meter("Loaded", share, model.reason));
    return;
  }
  const { recent, capacity } = model;
  const values = [short(recent.requests_per_second), short(recent.errors_per_second), short(recent.p50_ms), short(recent.p90_ms),
    short(recent.p99_ms), short(model.queue_depth), percent(capacity?.used_ratio), short(capacity?.headroom_rows_per_second)];
  values.forEach((value, place) => say(row.children[place + 2], value));
  row.children[1].title = model.reason;
}

function choose(key) {
  selected = key;
  history.replaceState(null, "", `#model=${encodeURIComponent(key)}`);
  again();
}

/** A button that loads a model or unloads it. */
function action(model) {
  const verb = model.state === "READY" ? "unload" : "load";
  const name = verb === "load" ? "Load" : "Unload";
  const button = make("button", { type: "button", "aria-label": `${name} ${model.model}`, disabled: model.state === "LOADING" }, name);
  button.onclick = async () => {
    if (verb === "unload" && !confirm(`Unload ${model.model}? Its clients are refused from then on.`)) return;
    button.disabled = true;
    notice(`${name}ing ${model.model} …`);
    try {
      await ask(`v2/repository/models/${encodeURIComponent(model.model)}/${verb}`, { method: "POST" });
      notice(`${name}ed ${model.model}.`);
    } catch (error) {
      notice(`${model.model}: ${error.message}`, "bad");
    }
    button.disabled = false;
    asks = 0;
    again();
  };
  return button;
}

function notice(text, kind = "") {
  get("notice").className = kind;
  say(get("notice"), text);
}

let timer;
let isLooking = false;

/** Looks now and then again and again; one look at a time. */
async function again() {
  clearTimeout(timer);
  if (isLooking) {
    timer = setTimeout(again, 100);
    return;
  }
  isLooking = true;
  try {
    await look();
    document.documentElement.dataset.looks = Number(document.documentElement.dataset.looks ?? 0) + 1;
  } catch (error) {
    ready("no answer", "bad");
    console.warn(error);
  }
  isLooking = false;
  if (!paused && !document.hidden) timer = setTimeout(again, PAUSE);
}

get("pause").onclick = () => {
  paused = !paused;
  get("pause").setAttribute("aria-pressed", paused);
  if (paused) clearTimeout(timer);
  else again();
};
document.onvisibilitychange = () => {
  if (!document.hidden && !paused) again();
};
legend();
again();
