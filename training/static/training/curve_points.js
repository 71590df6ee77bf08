// What curves are drawn from: gathering points, smoothing and thinning them, finding one. No page and no network here.
//
// A point is [step, value], or of a stretch of steps [last step, mean, steps, step of the lowest, lowest, step of the
// highest, highest]. A point whose value is null parts the curve.

const AUTOMATIC_FROM = 60; // shorter curves are shown as they are

export const nothing = () => ({ points: {}, attempt: null, step: 0 });

// The state with what an answer brings. A run that went on from a checkpoint sends all again: later steps are gone.
export function taken(state, answer) {
  if (answer.step === state.step && answer.attempt === state.attempt) return state;
  const before = answer.whole ? {} : state.points;
  const points = { ...before };
  for (const [name, found] of Object.entries(answer.points)) points[name] = [...(before[name] ?? []), ...found];
  return { points, attempt: answer.attempt, step: answer.step };
}

// The exponential moving average with bias correction: (1 - w) Σ w^(n-k) x_k / (1 - w^n). A stretch counts as so many
// points at its mean.
export function smoothed(points, weight) {
  let [sum, missing] = [0, 1]; // missing: w^n, the weight that no point has yet
  return points.map(([step, value, count = 1]) => {
    if (value === null) return [step, null];
    const kept = weight ** count;
    sum = sum * kept + value * (1 - kept);
    missing *= kept;
    return [step, sum / (1 - missing)];
  });
}

// A weight that remembers a thirtieth of what was measured; 0 for few points.
export function automaticWeight(points) {
  const measured = points.reduce((sum, [, , count = 1]) => sum + count, 0);
  return points.length < AUTOMATIC_FROM ? 0 : 1 - 30 / Math.max(measured, 31);
}

// Every point as itself, a stretch as its lowest and its highest in the order of their steps.
export const spread = (points) => points.flatMap((point) => {
  const [, , count, lowStep, low, highStep, high] = point;
  if (count === undefined) return [point];
  if (lowStep === highStep) return [[lowStep, low]];
  return lowStep < highStep ? [[lowStep, low], [highStep, high]] : [[highStep, high], [lowStep, low]];
});

// Of every stretch of points the lowest and the highest stay, so that no spike is lost; and the last one.
export function thin(points, most) {
  if (points.length <= most) return points;
  const size = Math.ceil((points.length / most) * 2);
  const kept = [];
  for (let start = 0; start < points.length; start += size) {
    const part = points.slice(start, start + size).filter((point) => point[1] !== null);
    if (part.length === 0) continue;
    const low = part.reduce((a, b) => (b[1] < a[1] ? b : a));
    const high = part.reduce((a, b) => (b[1] > a[1] ? b : a));
    kept.push(...(low[0] < high[0] ? [low, high] : low === high ? [low] : [high, low]));
  }
  if (kept.at(-1) !== points.at(-1)) kept.push(points.at(-1));
  return kept;
}

// With the values that a logarithm has none of taken out, and how many measured points that were.
export function positive(points) {
  const kept = points.map((point) => (point[1] !== null && point[1] <= 0 ? [point[0], null] : point));
  return { points: kept, leftOut: points.filter(([, value]) => value !== null && value <= 0).length };
}

// From a step to the minutes of training until then, by the seconds that steps took; null where none is known.
export function clockOf(seconds) {
  if (seconds.length === 0) return null;
  const knots = [[0, 0]];
  for (const [step, mean] of seconds) {
    const [before, minutes] = knots.at(-1);
    knots.push([step, minutes + ((step - before) * mean) / 60]);
  }
  return (step) => {
    const after = Math.min(Math.max(firstFrom(knots, step), 1), knots.length - 1);
    const [[left, low], [right, high]] = [knots[after - 1], knots[after]];
    return low + ((step - left) / Math.max(right - left, 1e-9)) * (high - low);
  };
}

// The place of the point whose x is nearest; of two alike the left one. -1 where there is none.
export function nearest(points, x) {
  const after = firstFrom(points, x);
  if (after === 0) return points.length ? 0 : -1;
  if (after === points.length) return after - 1;
  return x - points[after - 1][0] <= points[after][0] - x ? after - 1 : after;
}

// All x of these lines, once each, from left to right: where a cursor can stand.
export const placesOf = (lines) =>
  [...new Set(lines.flatMap((points) => points.filter((point) => point[1] !== null).map(([x]) => x)))].sort((a, b) => a - b);

// The place of the first point at or behind x.
function firstFrom(points, x) {
  let [low, high] = [0, points.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < x) low = middle + 1;
    else high = middle;
  }
  return low;
}
