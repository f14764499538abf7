/* Pictures on canvases, in the colours of the theme. Each is { element, draw(run, step) } and shows what happened in
   the first `step` steps. It must know nothing about what is drawn, or about who moves the step. */
import { color, html, onTheme } from "./controls.js";

export const LEFT = 34, RIGHT = 14;

const tints = new Map();
onTheme(() => tints.clear());

/** A colour of the theme, cached because asking the browser for it at every spike would be slow. */
export function tint(name) {
  if (!tints.get(name)) tints.set(name, color(name));
  return tints.get(name);
}

/** A canvas; `paint(pen, size, run, step)` draws in pixels of the page, `describe(run, step)` describes the picture in
    words. */
export function view({ height = null, name, caption = null, describe, paint }) {
  const canvas = html("canvas", { class: name, role: "img" });
  if (height) canvas.style.height = `${height}px`;
  let last = null;
  const draw = (...shown) => {
    last = shown;
    const size = { width: canvas.clientWidth, height: canvas.clientHeight }, pen = canvas.getContext("2d");
    canvas.width = size.width * devicePixelRatio;
    canvas.height = size.height * devicePixelRatio;
    pen.scale(devicePixelRatio, devicePixelRatio);
    pen.font = `11px ${getComputedStyle(canvas).fontFamily}`;
    if (shown[0]) paint(pen, size, ...shown);
    canvas.setAttribute("aria-label", shown[0] ? describe(...shown) : "Empty: nothing is drawn");
  };
  const again = () => last && draw(...last);
  new ResizeObserver(again).observe(canvas);
  onTheme(again);
  return { element: caption ? html("figure", {}, canvas, html("figcaption", {}, caption)) : canvas, draw };
}

/** A view over the steps of a run, which has `steps` and `shaded`: pairs of the first step and the end of each shaded
    range. `paint` also gets x(step) and the width of a step. */
export function overSteps({ left = LEFT, paint, ...rest }) {
  return view({
    ...rest,
    paint: (pen, size, run, step) => {
      const wide = (size.width - left - RIGHT) / run.steps, x = (at) => left + wide * at;
      pen.globalAlpha = 0.35;
      for (const [from, to] of run.shaded) fill(pen, "grid", x(from), 0, wide * (to - from), size.height);
      pen.globalAlpha = 1;
      paint(pen, size, run, step, x, wide);
      if (step && step < run.steps) fill(pen, "ink", x(step), 0, 1, size.height);
    },
  });
}

export function write(pen, text, x, y, align = "left", name = "ink") {
  Object.assign(pen, { fillStyle: tint(name), textAlign: align, textBaseline: "middle" });
  pen.fillText(text, x, y);
}

export function fill(pen, name, x, y, width, height) {
  pen.fillStyle = tint(name);
  pen.fillRect(x, y, width, height);
}
