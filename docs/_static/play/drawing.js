/* A pad to draw on, and the conversion of a drawing to a picture as in MNIST. A drawing is a list of strokes, a stroke
   a list of points [x, y] in [0, 1]. It must know nothing about a network. */
import { color, html, onTheme } from "./controls.js";

export const SIDE = 28;

const MIDDLE = 14.5; // the centre of mass of MNIST's digits: the middle of pixel 14, counted from 0
const FITTED = 20; // pixels of a drawing's larger side
const PEN = 1.2; // radius in the picture's pixels; makes sample digits as bright as MNIST's
const SMALLEST = 0.08; // larger side, on the pad, below which a drawing is enlarged no further; a dot stays a dot
const PAD_PEN = 0.045; // radius in the pad

/** A drawing's picture (SIDE * SIDE numbers in [0, 1]): scaled to 20 x 20 pixels, with its centre of mass at MIDDLE. */
export function pictureOf(strokes) {
  const points = strokes.flat();
  if (!points.length) return new Float32Array(SIDE * SIDE);
  const [left, right] = bounds(points.map(([x]) => x)), [top, bottom] = bounds(points.map(([, y]) => y));
  const scale = (FITTED - 2 * PEN) / Math.max(right - left, bottom - top, SMALLEST);
  const placed = (dx, dy) => strokes.map((stroke) => stroke.map(([x, y]) =>
    [SIDE / 2 + scale * (x - (left + right) / 2) + dx, SIDE / 2 + scale * (y - (top + bottom) / 2) + dy]));
  const mass = centre(painted(placed(0, 0)));
  return painted(placed(...mass.map((at) => clamped(MIDDLE - at, (SIDE - FITTED) / 2))));
}

function bounds(numbers) {
  return numbers.reduce(([low, high], x) => [Math.min(low, x), Math.max(high, x)], [Infinity, -Infinity]);
}

function clamped(x, most) {
  return Math.max(-most, Math.min(most, x));
}

function centre(picture) {
  let sum = 0, x = 0, y = 0;
  picture.forEach((pixel, at) => {
    sum += pixel;
    x += pixel * (at % SIDE + 0.5);
    y += pixel * (Math.floor(at / SIDE) + 0.5);
  });
  return [x / sum, y / sum];
}

/** The brightness of a pixel is the part of it that the pen covers. */
function painted(strokes) {
  const picture = new Float32Array(SIDE * SIDE);
  for (const stroke of strokes)
    stroke.forEach((to, k) => segment(picture, stroke[Math.max(k - 1, 0)], to));
  return picture;
}

function segment(picture, from, to) {
  const range = (axis) => [Math.min(from[axis], to[axis]) - PEN - 1, Math.max(from[axis], to[axis]) + PEN + 1]
    .map((at) => Math.max(0, Math.min(SIDE, Math.round(at))));
  const [left, right] = range(0), [top, bottom] = range(1);
  for (let y = top; y < bottom; ++y)
    for (let x = left; x < right; ++x) {
      const covered = PEN + 0.5 - distance([x + 0.5, y + 0.5], from, to);
      picture[y * SIDE + x] = Math.max(picture[y * SIDE + x], Math.min(covered, 1));
    }
}

function distance([x, y], [x0, y0], [x1, y1]) {
  const dx = x1 - x0, dy = y1 - y0, length = dx * dx + dy * dy;
  const along = length ? Math.max(0, Math.min(1, ((x - x0) * dx + (y - y0) * dy) / length)) : 0;
  return Math.hypot(x - x0 - along * dx, y - y0 - along * dy);
}

/** A pad; `change` is called when a stroke ends and when the drawing is replaced. */
export class Pad {
  constructor(change) {
    Object.assign(this, { change, drawing: [], before: [], fresh: false, stroke: null });
    this.element = html("canvas", { class: "network-pad", role: "img", "aria-label": "Pad to draw a digit on" });
    this.element.addEventListener("pointerdown", (event) => this.begin(event));
    this.element.addEventListener("pointermove", (event) => this.follow(event));
    for (const name of ["pointerup", "pointercancel"]) this.element.addEventListener(name, () => this.end());
    new ResizeObserver(() => this.paint()).observe(this.element);
    onTheme(() => this.paint());
  }

  /** Shows a drawing; the next stroke of the pen starts a new one. */
  show(drawing) {
    this.become(drawing);
    this.fresh = true;
    this.change();
  }

  clear() {
    this.show([]);
  }

  undo() {
    if (!this.before.length) return;
    this.drawing = this.before.pop();
    this.fresh = false;
    this.paint();
    this.change();
  }

  become(drawing) {
    this.before.push(this.drawing);
    this.drawing = drawing;
    this.paint();
  }

  begin(event) {
    if (this.stroke || event.button !== 0) return;
    event.preventDefault();
    this.element.setPointerCapture(event.pointerId);
    this.pointer = event.pointerId;
    this.stroke = [this.place(event)];
    this.become([...(this.fresh ? [] : this.drawing), this.stroke]);
    this.fresh = false;
  }

  follow(event) {
    if (!this.stroke || event.pointerId !== this.pointer) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) this.stroke.push(this.place(each));
    this.paint();
  }

  end() {
    if (!this.stroke) return;
    this.stroke = null;
    this.change();
  }

  place(event) {
    const { left, top, width, height } = this.element.getBoundingClientRect();
    return [(event.clientX - left) / width, (event.clientY - top) / height].map((x) => Math.max(0, Math.min(1, x)));
  }

  paint() {
    const side = this.element.clientWidth * devicePixelRatio, pen = this.element.getContext("2d");
    this.element.width = this.element.height = side;
    Object.assign(pen, { lineWidth: 2 * PAD_PEN * side, lineCap: "round", lineJoin: "round" });
    Object.assign(pen, { strokeStyle: color("ink"), shadowColor: color("ink"), shadowBlur: 0.01 * side });
    for (const stroke of this.drawing) {
      pen.beginPath();
      [stroke[0], ...stroke].forEach(([x, y]) => pen.lineTo(x * side, y * side));
      pen.stroke();
    }
  }
}
