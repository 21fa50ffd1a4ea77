// A request from a form that is made from a model's signature.

import { ask, get, make, say, short } from "./element.js";

/** Elements that a form makes at once. */
const MOST_MADE = 200000;
/** Characters of an answer's tensor that are shown. */
const MOST_SHOWN = 4000;
/** Bytes of a request that the server writes as commands. */
const MOST_PASTED = 60000;
/** Milliseconds after the last change until the commands follow it. */
const SETTLED = 300;
const RANGES = { BOOL: 2, UINT8: 256, INT8: 128 };

/** Makes the form for a version. */
export async function form(model) {
  const form = get("try");
  const here = `model=${encodeURIComponent(model.model)}&version=${model.version}`;
  const title = make("h3", { id: "try-title" }, "Try it");
  form.replaceChildren(title);
  const first = await ask(`console/example?${here}`);
  const inputs = model.inputs.map((spec, place) => input(spec, first.request.inputs[place], place));
  const id = field("Request id", "try-id", make("input", { id: "try-id", class: "short", autocomplete: "off" }));
  const parameters = make("input", { id: "try-parameters", class: "mono", autocomplete: "off", spellcheck: "false" });
  if (first.request.parameters) parameters.value = JSON.stringify(first.request.parameters);
  const send = make("button", { type: "submit", class: "main" }, "Send");
  const told = make("div", { id: "try-told", role: "status", "aria-live": "polite" });
  const answer = make("div", { id: "try-answer" });
  const shown = examples();
  const beside = make("fieldset", {}, make("legend", {}, "Beside the inputs"), id,
    field("Parameters, a JSON object", "try-parameters", parameters));
  form.replaceChildren(title, make("div", {}, ...inputs.map((one) => one.node), beside, make("div", { class: "row" }, send)),
    make("div", {}, told, answer, shown.node));
  const body = () => {
    const request = { inputs: inputs.map((one) => one.read()) };
    if (get("try-id").value) request.id = get("try-id").value;
    if (parameters.value.trim()) request.parameters = read(parameters, "parameters");
    return request;
  };
  // Not between the press and the release of a button, which would no longer be under the pointer.
  let soon;
  form.onchange = () => {
    clearTimeout(soon);
    soon = setTimeout(() => shown.show(`console/example?${here}`, body), SETTLED);
  };
  form.onsubmit = (event) => {
    event.preventDefault();
    run(model, body, { send, told, answer });
  };
  shown.put(first);
}

function field(name, id, control) {
  return make("div", {}, make("label", { for: id }, name), control);
}

/** JSON that somebody has typed. */
function read(control, what) {
  control.removeAttribute("aria-invalid");
  try {
    return JSON.parse(control.value);
  } catch (error) {
    control.setAttribute("aria-invalid", "true");
    throw new Error(`${what}: this is not JSON: ${error.message}`);
  }
}

/** One input: its shape and its elements. */
function input(spec, first, place) {
  const shape = make("input", { id: `shape-${place}`, class: "short mono", autocomplete: "off", value: JSON.stringify(first.shape) });
  const data = make("textarea", { id: `data-${place}`, class: "mono", spellcheck: "false", rows: 3 });
  if (first.data) data.value = JSON.stringify(first.data);
  const fill = (name, element) => make("button", { type: "button", onclick: () => {
    try {
      data.value = JSON.stringify(filled(read(shape, `${spec.name}, shape`), element));
      data.dispatchEvent(new Event("change", { bubbles: true }));
    } catch (error) {
      say(get("try-told"), error.message);
    }
  } }, name);
  const most = RANGES[spec.datatype];
  const random = () => (spec.datatype === "BOOL" ? Math.random() < 0.5
    : spec.datatype.includes("FP") || spec.datatype === "BF16" ? Number((Math.random() * 2 - 1).toFixed(4))
      : Math.floor(Math.random() * (most ?? 100)));
  const buttons = spec.datatype === "BYTES" ? [fill("Hello", () => "hello")]
    : [fill("Ones", () => (spec.datatype === "BOOL" ? true : 1)), fill("Zeros", () => (spec.datatype === "BOOL" ? false : 0)), fill("Random", random)];
  const node = make("fieldset", {}, make("legend", {}, `${spec.name} ${spec.datatype} [${spec.shape.join(", ")}]`),
    make("div", { class: "row" }, field("Shape", `shape-${place}`, shape), ...buttons),
    field("Elements, as JSON", `data-${place}`, data));
  return { node, read: () => ({ name: spec.name, datatype: spec.datatype,
    shape: read(shape, `${spec.name}, shape`), data: read(data, `${spec.name}, elements`) }) };
}

function filled(shape, element) {
  const count = shape.reduce((product, size) => product * size, 1);
  if (!(count >= 0 && count <= MOST_MADE)) throw new Error(`A form makes up to ${MOST_MADE} elements; this shape has ${count}`);
  return Array.from({ length: count }, element);
}

/** Sends it, and shows what came. */
async function run(model, body, { send, told, answer }) {
  send.disabled = true;
  say(told, "");
  told.className = "";
  try {
    const request = body();
    const path = `v2/models/${encodeURIComponent(model.model)}/versions/${model.version}/infer`;
    const before = performance.now();
    const said = await ask(path, { method: "POST", body: JSON.stringify(request) });
    const took = performance.now() - before;
    say(told, `Answered in ${short(took)} ms, as the browser sees it.`);
    answer.replaceChildren(...said.outputs.flatMap(output));
  } catch (error) {
    told.className = "bad-text";
    say(told, error.message);
    answer.replaceChildren();
  }
  send.disabled = false;
}

function output(tensor) {
  const data = JSON.stringify(tensor.data);
  const rest = data.length > MOST_SHOWN ? ` … ${data.length - MOST_SHOWN} characters more` : "";
  return [make("h3", {}, `${tensor.name} ${tensor.datatype} [${tensor.shape.join(", ")}]`),
    make("pre", { tabindex: 0 }, data.slice(0, MOST_SHOWN) + rest)];
}

/** The request as commands. */
function examples() {
  const rows = [["curl", "curl"], ["grpcurl", "grpcurl"], ["python", "Python"]].map(([key, name]) => {
    const code = make("pre", { id: `example-${key}`, tabindex: 0, "aria-label": `The request by ${name}` });
    const copy = make("button", { type: "button", "aria-label": `Copy the request for ${name}`, onclick: async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        say(get("try-told"), `Copied for ${name}.`);
      } catch {
        // Browsers allow it on secure origins only.
        getSelection().selectAllChildren(code);
        say(get("try-told"), `Selected for ${name}: press Ctrl+C.`);
      }
    } }, "Copy");
    return { key, code, node: make("div", { class: "example" }, make("h4", {}, name), code, copy) };
  });
  const put = (told) => rows.forEach((row) => say(row.code, told[row.key]));
  const show = async (path, body) => {
    let text;
    try {
      text = JSON.stringify(body());
      if (text.length > MOST_PASTED) throw new Error("too large to paste");
      put(await ask(path, { method: "POST", body: text }));
    } catch (error) {
      rows.forEach((row) => say(row.code, `# ${error.message}`));
    }
  };
  return { node: make("section", { "aria-label": "The request as commands" }, make("h3", {}, "The same by"), ...rows.map((row) => row.node)), put, show };
}
