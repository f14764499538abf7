/* A plot in SVG with axes, drawn at the size at which it is shown, so that its text keeps its size; and the parts of
   plots. It must know nothing about the neuron. */

import { html, svg } from "./controls.js";

let plots = 0;

/** A plot; `marks` holds its curves, clipped at the axes. */
export class Plot {
  constructor({ height, left = 30, right = 12, top = 6, bottom = 20 }) {
    const id = `neuron-plot-${++plots}`;
    Object.assign(this, { height, margin: { left, right, top, bottom }, xs: [0, 1], ys: [0, 1] });
    this.axes = svg("g", { class: "neuron-axes" });
    this.hole = svg("rect");
    this.marks = svg("g", { "clip-path": `url(#${id})` });
    this.element = svg("svg", { role: "img", class: "neuron-plot" }, svg("clipPath", { id }, this.hole), this.axes,
      this.marks);
  }

  set label(text) {
    this.element.setAttribute("aria-label", text);
  }

  /** Fits the plot to a width in pixels; without a height, the plane within the axes is square. */
  fit(width) {
    const { left, right, top, bottom } = this.margin, across = width - left - right;
    this.inner = { width: across, height: this.height ? this.height - top - bottom : across };
    const height = this.inner.height + top + bottom;
    set(this.element, { width, height, viewBox: `0 0 ${width} ${height}` });
    set(this.hole, { x: left, y: top, width: this.inner.width, height: this.inner.height });
  }

  x(value) {
    return this.margin.left + this.inner.width * (value - this.xs[0]) / (this.xs[1] - this.xs[0]);
  }

  y(value) {
    return this.margin.top + this.inner.height * (this.ys[1] - value) / (this.ys[1] - this.ys[0]);
  }

  /** The value on the x axis under a pointer. */
  under(event) {
    const at = event.clientX - this.element.getBoundingClientRect().left - this.margin.left;
    return this.xs[0] + at / this.inner.width * (this.xs[1] - this.xs[0]);
  }

  /** Draws axes with these ranges. */
  frame({ xs, ys, xLabel = "", yLabel = "", xTicks = ticks(...xs, this.inner.width / 55),
    yTicks = ticks(...ys, Math.min(7, this.inner.height / 28)) }) {
    Object.assign(this, { xs, ys });
    const { left, top } = this.margin, bottom = top + this.inner.height, right = left + this.inner.width;
    const across = yTicks.flatMap((value) => [text(written(value), left - 5, this.y(value) + 4, "end"),
      line(left, this.y(value), right, this.y(value), value === 0 ? "zero" : "")]);
    const down = xTicks.map((value) => line(this.x(value), top, this.x(value), bottom));
    const numbers = xTicks.map((value) => text(written(value), this.x(value), bottom + 14, "middle"));
    const labels = [text(xLabel, (left + right) / 2, bottom + 29, "middle"), text(yLabel, 0, 0, "middle")];
    set(labels[1], { transform: `translate(11 ${(top + bottom) / 2}) rotate(-90)` });
    this.axes.replaceChildren(...across, ...down, ...(this.margin.bottom < 14 ? [] : numbers), ...labels);
  }

  /** The path data through points. */
  path(points) {
    return points.map(([x, y], k) => `${k ? "L" : "M"}${pixel(this.x(x))} ${pixel(this.y(y))}`).join("");
  }

  /** The path data of dots, which a stroke with round ends makes visible. */
  dots(points) {
    return points.map(([x, y]) => `M${pixel(this.x(x))} ${pixel(this.y(y))}h0`).join("");
  }
}

export function pixel(value) {
  return Math.round(value * 10) / 10;
}

/** A path element of a class, empty at first. */
export function curve(name) {
  return svg("path", { class: `neuron-${name}` });
}

export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}

function line(x1, y1, x2, y2, name = "") {
  return svg("line", { x1: pixel(x1), y1: pixel(y1), x2: pixel(x2), y2: pixel(y2), class: name });
}

function text(content, x, y, anchor) {
  return svg("text", { x: pixel(x), y: pixel(y), "text-anchor": anchor }, content);
}

/** A number with a true minus sign. */
export function written(value, digits = null) {
  return (digits === null ? String(value) : value.toFixed(digits)).replace("-", "−");
}

/** About `count` round numbers in a range. */
export function ticks(min, max, count) {
  const rough = (max - min) / Math.max(1, count), ten = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * ten).find((size) => size >= rough * 0.999);
  const first = Math.ceil(min / step - 1e-9), last = Math.floor(max / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, k) => Number(((first + k) * step).toPrecision(6)));
}

const SAMPLES = { output: "M0 11V1H24V11Z", marks: "M8 3h7l-3.5 6z", present: "M12 6h0",
  visited: "M4 6h0M12 6h0M20 6h0" };

/** A legend above a plot: each curve's name with a sample; entries are [class, name]. */
export function legend(...entries) {
  const sample = (name) => svg("svg", { width: 24, height: 12, "aria-hidden": "true" },
    svg("path", { class: `neuron-${name}`, d: SAMPLES[name] ?? "M1 6H23" }));
  const named = ([name, said]) => html("span", { class: `neuron-said neuron-said-${name}` }, sample(name), said);
  return html("div", { class: "neuron-legend" }, ...entries.map(named));
}
