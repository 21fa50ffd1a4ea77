// Elements and numbers. What comes from outside becomes text here, never markup.

/** An element with attributes, listeners (`onclick`) and children: elements and text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** The element of this id. */
export const get = (id) => document.getElementById(id);

/** Says a text, if it is another one: what does not change is not read out again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A number in few digits. */
export function short(value, unit = "") {
  if (value == null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const digits = size === 0 || size >= 100 ? 0 : size >= 10 ? 1 : 2;
  return value.toLocaleString("en", { maximumFractionDigits: digits }) + unit;
}

/** So many of something. */
export const count = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;

export const percent = (share) => short(share == null ? null : share * 100, " %");

/** Bytes, in powers of 1024. */
export function bytes(count) {
  if (count == null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  while (count >= 1024 && power < units.length - 1) {
    count /= 1024;
    power += 1;
  }
  return short(count, ` ${units[power]}`);
}

/** How long, in the two largest units. */
export function span(milliseconds) {
  const seconds = Math.floor(milliseconds / 1000);
  const [days, hours, minutes] = [seconds / 86400, (seconds / 3600) % 24, (seconds / 60) % 60].map(Math.floor);
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

/** The time of day. */
export function time(unix) {
  const when = new Date(unix);
  const rest = String(when.getMilliseconds()).padStart(3, "0");
  return `${when.toLocaleTimeString("en-GB")}.${rest}`;
}

/** Asks this server; an error has its words. */
export async function ask(path, options) {
  const answer = await fetch(path, options);
  const text = await answer.text();
  let told;
  try {
    told = JSON.parse(text);
  } catch {
    throw new Error(`${answer.status}: ${text.slice(0, 200)}`);
  }
  if (!answer.ok) throw new Error(`${answer.status}: ${told.error ?? text.slice(0, 200)}`);
  return told;
}

/** A share of a whole as a bar with its name and its value. */
export function meter(name, share, value) {
  const kind = share > 1 ? "fill over" : share > 0.7 ? "fill high" : "fill";
  const fill = make("div", { class: kind });
  fill.style.width = `${Math.min(Math.max(share ?? 0, 0), 1) * 100}%`;
  return make("div", { class: "meter" }, make("span", { class: "quiet" }, name),
    make("div", { class: "track", "aria-hidden": "true" }, fill), make("span", { class: "number" }, value));
}
