/* The ten digits as drawings, so that the page can be used without a pen. They are curves through a few points. The
   file must know nothing about what becomes of them. */

const CURVES = [
  [[[52, 14], [34, 22], [26, 45], [29, 70], [44, 85], [62, 80], [73, 58], [71, 32], [60, 17], [52, 14]]],
  [[[56, 14], [52, 50], [48, 86]]],
  [[[29, 30], [36, 17], [53, 13], [66, 22], [66, 38], [52, 58], [27, 82]], [[27, 82], [50, 80], [74, 82]]],
  [[[29, 20], [46, 13], [63, 19], [64, 34], [44, 47]], [[44, 47], [66, 54], [70, 70], [56, 84], [40, 86], [26, 78]]],
  [[[33, 15], [29, 36], [30, 51], [48, 54], [68, 48]], [[70, 14], [67, 50], [62, 87]]],
  [[[70, 15], [52, 16], [36, 16]], [[36, 16], [34, 30], [32, 45]],
    [[32, 45], [50, 42], [66, 54], [66, 72], [50, 85], [27, 79]]],
  [[[60, 13], [42, 30], [31, 55], [34, 77], [49, 86], [65, 77], [65, 61], [51, 54], [37, 62], [33, 72]]],
  [[[25, 20], [48, 19], [72, 17]], [[72, 17], [60, 42], [50, 64], [43, 87]]],
  [[[64, 22], [48, 13], [34, 23], [38, 39], [54, 50], [67, 66], [60, 83], [43, 86], [34, 73], [42, 56], [60, 42],
    [66, 30], [64, 22]]],
  [[[66, 26], [52, 14], [35, 24], [34, 42], [49, 49], [64, 40], [67, 24]], [[67, 24], [65, 55], [58, 87]]],
];
const PIECES = 8; // straight pieces between two points of a curve

/** The strokes of a digit, in [0, 1]. */
export function sampleDigit(digit) {
  return CURVES[digit].map((points) => smooth(points.map(([x, y]) => [x / 100, y / 100])));
}

/** The Catmull-Rom curve through points. */
function smooth(points) {
  const at = (k) => points[Math.max(0, Math.min(points.length - 1, k))], curve = [points[0]];
  for (let k = 1; k < points.length; ++k)
    for (let piece = 1; piece <= PIECES; ++piece)
      curve.push(between(at(k - 2), at(k - 1), at(k), at(k + 1), piece / PIECES));
  return curve;
}

function between(before, from, to, after, t) {
  return [0, 1].map((axis) => {
    const [a, b, c, d] = [before, from, to, after].map((point) => point[axis]);
    return b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)));
  });
}
