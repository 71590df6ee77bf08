// Axes: which range they show, where a value lies on them, which values are written beside them, and how.

// What an axis shows of these values, with a little room. `line` and `floor` are always in it, the ceiling never passed.
export function rangeOf(values, { line = null, floor = null, ceiling = Infinity, log = false } = {}) {
  const always = [line, floor].filter((value) => value !== null && (!log || value > 0));
  const known = [...values, ...(log ? always.slice(0, line > 0 ? 1 : 0) : always)];
  if (known.length === 0) return log ? [0.1, 1] : [0, 1];
  let [low, high] = [known.reduce((a, b) => Math.min(a, b)), known.reduce((a, b) => Math.max(a, b))];
  if (log) {
    if (high / low < 1.000001) return [low / 2, high * 2];
    const room = (high / low) ** 0.06;
    return [low / room, Math.min(high * room, ceiling)];
  }
  if (high - low < 1e-9) [low, high] = [low - 0.5, high + 0.5];
  const room = (high - low) * 0.06;
  const bottom = ceiling < Infinity ? 0 : (floor ?? -Infinity);
  return [low >= bottom ? Math.max(bottom, low - room) : low - room, Math.min(ceiling, high + room)];
}

// From a value to its place between two others.
export function scaleOf([low, high], [from, to], log = false) {
  const of = log ? Math.log10 : (value) => value;
  const size = (to - from) / Math.max(of(high) - of(low), 1e-300);
  return (value) => from + (of(value) - of(low)) * size;
}

// Round values in a range, about so many.
export function ticksOf([low, high], about, log = false) {
  if (log) {
    const powers = between(Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)).map((power) => 10 ** power);
    if (powers.length > about + 1) return powers.filter((_, place) => place % Math.ceil(powers.length / about) === 0);
    if (powers.length >= 2) return powers;
    const finer = between(Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))).flatMap((power) => [1, 2, 5].map((one) => one * 10 ** power));
    const found = finer.filter((value) => value >= low && value <= high);
    if (found.length >= 2) return found;
  }
  const rough = (high - low) / Math.max(about, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough * 0.999);
  return between(Math.ceil(low / step - 1e-9), Math.floor(high / step + 1e-9)).map((place) => Number((place * step).toPrecision(12)));
}

const between = (first, last) => Array.from({ length: Math.max(last - first + 1, 0) }, (_, place) => first + place);

// Three significant digits, never in scientific notation unless tiny; shares as percent.
export function written(value, { percent = false, decimal = "." } = {}) {
  if (value === null || value === undefined) return "–";
  if (percent) return `${(value * 100).toFixed(1).replace(".", decimal)}\u00a0%`;
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1).replace(".", decimal);
  return (Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)))).replace(".", decimal);
}

// The same for a round value beside an axis: no idle digits.
export function tickWritten(value, { percent = false, decimal = "." } = {}) {
  if (percent) return `${String(Number((value * 100).toPrecision(4))).replace(".", decimal)}\u00a0%`;
  if (value !== 0 && (Math.abs(value) < 0.001 || Math.abs(value) >= 1e6)) return value.toExponential(0).replace(".", decimal);
  return String(Number(value.toPrecision(6))).replace(".", decimal);
}
