/* The pictures of learning: the loss and the right answers after each pass, and a table of words with the answers before
   and after. They must know nothing about a network. */
import { LEFT, RIGHT, fill, tint, view, write } from "./canvas.js";
import { html } from "./controls.js";
import { saidOf } from "./sound-views.js";

/** The mean loss of each pass, and the share of the recordings that are answered right after it. */
export function progressView() {
  return view({
    name: "sound-progress", height: 110,
    caption: "Learning, pass by pass: the loss, and the share of the recordings that the network answers right.",
    describe: ({ states, samples }) => {
      const { pass, passes, loss, right } = states.at(-1);
      return `After pass ${pass} of ${passes}: loss ${loss.toFixed(2)}, ${right} of ${samples} recordings right`;
    },
    paint: (pen, { width, height }, { states, samples, before }) => {
      const { pass, passes, loss, right } = states.at(-1), most = Math.max(...states.map((state) => state.loss));
      const x = (at) => LEFT + (width - LEFT - RIGHT) * at / passes, y = (share) => height - 8 - (height - 36) * share;
      for (const mark of [0, 1]) {
        fill(pen, "grid", LEFT, y(mark), width - LEFT - RIGHT, 1);
        write(pen, `${100 * mark} %`, LEFT - 5, y(mark), "right");
      }
      const rights = states.map((state) => [state.pass, state.right / samples]);
      if (before !== null) rights.unshift([0, before / samples]);
      line(pen, "slow", rights, x, y);
      line(pen, "drive", states.map((state) => [state.pass - 0.5, state.loss / most]), x, y);
      write(pen, `loss ${loss.toFixed(2)}`, LEFT, 9, "left", "drive");
      write(pen, `${right} of ${samples} right`, LEFT + 90, 9, "left", "slow");
      write(pen, `pass ${pass} of ${passes}`, width - RIGHT, 9, "right");
    },
  });
}

function line(pen, name, points, x, y) {
  Object.assign(pen, { strokeStyle: tint(name), lineWidth: 2 });
  pen.beginPath();
  for (const [at, share] of points) pen.lineTo(x(at), y(share));
  pen.stroke();
}

/** A table of words: the answers before and after; without `compared`, where the network before knew other words, only
    those after. */
export function trialsView() {
  const rows = html("tbody"), head = html("tr");
  let compared = true;
  const cell = (name, answer) => {
    const good = answer.names[answer.answer] === name;
    return html("td", { "data-right": String(good) }, `${good ? "\u2713" : "\u2717"} ${saidOf(answer)}`);
  };
  return {
    rows,
    element: html("table", { class: "sound-trials" }, html("thead", {}, head), rows),
    clear() { rows.replaceChildren(); },
    begin(comparable) {
      compared = comparable;
      rows.replaceChildren();
      const names = compared ? ["Word", "Before", "After"] : ["Word", "Answer"];
      head.replaceChildren(...names.map((text) => html("th", { scope: "col" }, text)));
    },
    add(name, before, after) {
      const answers = compared ? [before, after] : [after];
      rows.append(html("tr", {}, html("th", { scope: "row" }, name), ...answers.map((answer) => cell(name, answer))));
    },
    summary() {
      const count = rows.children.length;
      const [first, last] = [2, 3].map((n) => rows.querySelectorAll(`td:nth-child(${n})[data-right=true]`).length);
      if (!count) return "No word was tried.";
      return `Right of ${count} words: ${first}${compared ? ` before, ${last} after` : ""}.`;
    },
  };
}
