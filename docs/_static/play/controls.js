/* What the pages share: elements, sliders, buttons, a state that is kept in the link, and the theme's colours. It must
   know nothing about the runtime. */

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element; attributes that begin with "on" are listeners, children are nodes or texts. */
export function html(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

let sliders = 0;

/** A labelled slider. The returned object's `value` gets and sets the value without calling `change`, which only users
    trigger. */
export function slider({ label, symbol = "", min, max, step, value, digits = 2, change }) {
  const id = `play-slider-${++sliders}`;
  const shown = html("output", { for: id, "aria-live": "off" }); // screen readers read the range itself
  const range = html("input", { type: "range", id, min, max, step, value });
  const show = () => {
    shown.textContent = Number(range.value).toFixed(digits).replace("-", "\u2212");
    range.setAttribute("aria-valuetext", Number(range.value).toFixed(digits));
  };
  range.addEventListener("input", () => (show(), change(Number(range.value))));
  show();
  const name = html("label", { for: id }, label, ...(symbol ? [" ", html("i", {}, symbol)] : []));
  return {
    element: html("div", { class: "play-slider" }, name, shown, range),
    set max(now) { range.max = now; },
    get value() { return Number(range.value); },
    set value(now) { range.value = now; show(); },
  };
}

/** A button; with `pressed`, a toggle button. */
export function button(text, click, { pressed = null, title = null } = {}) {
  return html("button", { type: "button", class: "play-button", title, "aria-pressed": pressed === null ? null : String(pressed),
    onclick: click }, text);
}

/** A line that a screen reader reads when its text changes. */
export function announcer() {
  return html("p", { class: "play-status", role: "status", "aria-live": "polite" });
}

/** The state in the link's fragment, as { name: text }. */
export function linkState() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

/** Keeps a state in the link without adding to the browser's history; browsers refuse to do so many times a second. */
export function keepInLink(state) {
  history.replaceState(null, "", `#${new URLSearchParams(state)}`);
}

/** Delays `call` until no call has been asked for during so many milliseconds. */
export function settled(call, milliseconds) {
  let timer = 0;
  const ask = () => {
    clearTimeout(timer);
    timer = setTimeout(call, milliseconds);
  };
  ask.now = () => (clearTimeout(timer), call());
  return ask;
}

/** A colour of play.css, such as "fast", in the form that canvas takes. */
export function color(name) {
  return getComputedStyle(document.body).getPropertyValue(`--play-${name}`).trim();
}

/** Calls `change` when the page becomes light or dark. */
export function onTheme(change) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", change);
  new MutationObserver(change).observe(document.body, { attributes: true, attributeFilter: ["data-theme"] });
}

/** Whether the user asked for less motion. */
export function calm() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/** Fills the page's placeholder with what `build` returns, or says why the page cannot run. */
export async function mount(build) {
  const place = document.querySelector("[data-play]");
  try {
    const made = await build();
    place.replaceChildren(...made);
    place.dataset.play = "ready";
  } catch (error) {
    place.replaceChildren(html("p", { class: "play-status", role: "alert" }, `This page cannot run here: ${error.message}`));
    place.dataset.play = "failed";
    throw error;
  }
}
