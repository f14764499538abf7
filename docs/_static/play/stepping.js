/* Time that passes on a page. It must know nothing about what is shown. */

/** Moves a step from `from` to `to` at rate() steps per second and calls show(step) in every frame; the last frame
    first calls end(). Call the returned function to stop it. */
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
