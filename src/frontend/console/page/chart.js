// Small pictures of numbers, each with its words for those who do not see it.

import { make, short } from "./element.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 240;
const HEIGHT = 78;
/** Points of two minutes. */
const POINTS = 120;

function draw(tag, attributes, parent) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent?.append(element);
  return element;
}

/** The least round number that is not below: 1, 2 or 5 times a power of ten. */
export function round(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

/** A path through points that are there; where one is missing there is a gap. */
function path(values, top) {
  let drawn = "";
  let isDown = false;
  const step = WIDTH / (POINTS - 1);
  // The last is now; a version that was loaded less than two minutes ago begins later.
  const first = POINTS - values.length;
  values.forEach((value, place) => {
    const command = isDown ? "L" : "M";
    isDown = value != null;
    if (isDown) drawn += `${command}${((first + place) * step).toFixed(1)} ${(HEIGHT * (1 - value / top)).toFixed(1)}`;
    // One by itself would not be seen.
    if (isDown && command === "M") drawn += "h0.5";
  });
  return drawn;
}

/** Lines over the last two minutes: each has a name, a class and its values, oldest first. */
export function lines(title, unit, series, objective) {
  const known = series.flatMap((one) => one.values).filter((value) => value != null);
  const top = round(Math.max(...known, objective ?? 0, 0));
  const last = series.map((one) => `${one.name} ${short(one.values.at(-1))}`).join(", ");
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  const goal = objective ? `; objective ${short(objective)}` : "";
  svg.setAttribute("aria-label", `${title}: now ${last} ${unit}; at most ${short(Math.max(...known, 0))}${goal}`);
  draw("line", { class: "axis", x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT }, svg);
  draw("line", { class: "axis", x1: 0, x2: WIDTH, y1: 0, y2: 0 }, svg);
  if (objective) {
    const y = HEIGHT * (1 - objective / top);
    draw("line", { class: "objective", x1: 0, x2: WIDTH, y1: y, y2: y }, svg);
  }
  for (const one of series) draw("path", { class: one.kind ?? "", d: path(one.values, top) }, svg);
  return make("figure", {}, make("figcaption", {}, title, make("strong", {}, `${last} ${unit}`.trim())),
    make("div", { class: "scale", "aria-hidden": "true" }, make("span", {}, short(top))), svg,
    make("div", { class: "scale", "aria-hidden": "true" }, make("span", {}, "2 min ago"), make("span", {}, "now")));
}

/** What is in each bucket: of the last ten seconds, or of all the time if there is nothing of late. */
export function histogram(title, buckets, name) {
  const isLate = buckets.some((bucket) => bucket.recent > 0);
  const counts = buckets.map((bucket) => (isLate ? bucket.recent : bucket.total));
  const most = Math.max(...counts, 1);
  const sum = counts.reduce((before, count) => before + count, 0);
  const labels = buckets.map((bucket) => (bucket.up_to == null ? "more" : name(bucket.up_to)));
  const said = labels.map((label, place) => `${label}: ${counts[place]}`).join(", ");
  const of = isLate ? "last 10 s" : "since loaded";
  const bars = make("div", { class: "bars", role: "img", "aria-label": `${title}, ${of}: ${said || "none"}` });
  for (const count of counts) {
    const bar = make("div", { class: count ? "" : "none" });
    bar.style.height = `${(count / most) * 100}%`;
    bars.append(bar);
  }
  const below = make("div", { class: "labels", "aria-hidden": "true" });
  below.append(...labels.map((label) => make("span", {}, label)));
  return make("figure", {}, make("figcaption", {}, title, make("strong", {}, sum ? `${short(sum)} ${isLate ? "in 10 s" : of}` : "none yet")),
    make("div", { class: "scale", "aria-hidden": "true" }, make("span", {}, sum ? short(most) : "\u00a0")), bars, below);
}
