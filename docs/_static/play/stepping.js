/* Time that passes on a page. It must never know what is shown. */

/** Moves a step from `from` to `to`, rate() steps per second, and calls show(step) in every frame, before which the
    last one calls end(). What it returns stops it. */
export function stepping({ from, to, rate, show, end }) {
  let before = performance.now(), reached = from, next = requestAnimationFrame(frame);
  function frame(now) {
    reached = Math.min(to, reached + Math.max(0, now - before) / 1000 * rate());
    before = now;
    if (reached < to) next = requestAnimationFrame(frame);
    else end();
    show(Math.floor(reached));
  }
  return () => cancelAnimationFrame(next);
}
