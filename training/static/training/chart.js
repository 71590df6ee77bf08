// One small line chart as SVG: axes, a main curve, a dashed one beside it, a horizontal reference. Colours come from CSS,
// words from the page: what stands in braces is filled in. A point may stand for a stretch of steps, see run.js.

const SVG = "http://www.w3.org/2000/svg";
const FRAME = { left: 44, right: 312, top: 10, bottom: 148 };
const MAX_POINTS = 600;
const SMOOTH_FROM = 60; // shorter curves are shown as they are

export function drawChart(svg, { name, points, beside, steps, percent, line, floor, words }) {
  const write = percent ? (value) => `${local((value * 100).toFixed(1))} %` : shortNumber;
  svg.replaceChildren();
  svg.append(element("path", { class: "axis", d: `M${FRAME.left} ${FRAME.top}V${FRAME.bottom}H${FRAME.right}` }));
  if (points.length === 0) return; // the page says that nothing is measured yet
  const raw = thin(points.flatMap(spread));
  const aside = thin(smooth(beside));
  const range = rangeOf([...raw, ...aside].map((point) => point[1]), { line, floor, ceiling: percent ? 1 : Infinity });
  const place = scales(steps, range);
  if (line !== null) drawLine(svg, line, place);
  if (aside.length > 1) svg.append(element("path", { class: "curve two", d: pathOf(aside, place) }));
  const isLong = raw.length >= SMOOTH_FROM;
  if (isLong) svg.append(element("path", { class: "curve raw", d: pathOf(raw, place) }));
  svg.append(element("path", { class: "curve", d: pathOf(isLong ? thin(smooth(points)) : raw, place) }));
  if (!isLong) for (const point of raw) svg.append(dot(point, place, fill(words.point, { step: point[0], value: write(point[1]) })));
  const short = percent ? (value) => `${(value * 100).toFixed(0)} %` : shortNumber;
  svg.append(label(FRAME.left - 4, FRAME.top + 8, short(range[1]), "end"), label(FRAME.left - 4, FRAME.bottom, short(range[0]), "end"));
  svg.append(label(FRAME.right, 164, fill(words.step, { step: steps[1] }), "end"));
  const [first, last] = [points[0], points.at(-1)];
  const said = { name, first: write(first[1]), start: first[0], last: write(last[1]), end: last[0] };
  svg.setAttribute("aria-label", fill(words.summary, said));
  svg.parentElement.querySelector("[data-last]").textContent = write(last[1]);
}

// What a point says: itself, or the lowest and the highest of its stretch, in the order of their steps.
function spread(point) {
  const [, , count, lowStep, low, highStep, high] = point;
  if (count === undefined) return [point];
  if (lowStep === highStep) return [[lowStep, low]];
  return lowStep < highStep ? [[lowStep, low], [highStep, high]] : [[highStep, high], [lowStep, low]];
}

// The mean over the last fortieth of the measured steps, at every point.
function smooth(points) {
  if (points.length < SMOOTH_FROM) return points;
  const size = Math.ceil(points.reduce((sum, [, , count = 1]) => sum + count, 0) / 40);
  let [sum, steps, oldest] = [0, 0, 0];
  return points.map(([step, mean, count = 1]) => {
    sum += mean * count;
    steps += count;
    for (let next = points[oldest][2] ?? 1; steps - next >= size; next = points[oldest][2] ?? 1) {
      sum -= points[oldest][1] * next;
      steps -= next;
      oldest += 1;
    }
    return [step, sum / steps];
  });
}

// Of every stretch of steps the lowest and the highest point stay, so that no spike is lost.
function thin(points) {
  if (points.length <= MAX_POINTS) return points;
  const size = Math.ceil((points.length / MAX_POINTS) * 2);
  const kept = [];
  for (let start = 0; start < points.length; start += size) {
    const part = points.slice(start, start + size);
    const low = part.reduce((a, b) => (b[1] < a[1] ? b : a));
    const high = part.reduce((a, b) => (b[1] > a[1] ? b : a));
    kept.push(...(low[0] < high[0] ? [low, high] : low === high ? [low] : [high, low]));
  }
  if (kept.at(-1) !== points.at(-1)) kept.push(points.at(-1));
  return kept;
}

function rangeOf(values, { line, floor, ceiling }) {
  const known = [...values, ...(line ? [line.value] : []), ...(floor === null ? [] : [floor])];
  let [low, high] = [known.reduce((a, b) => Math.min(a, b)), known.reduce((a, b) => Math.max(a, b))];
  if (high - low < 1e-9) [low, high] = [low - 0.5, high + 0.5];
  const room = (high - low) * 0.06;
  const bottom = ceiling === 1 ? 0 : (floor ?? -Infinity);
  return [low >= bottom ? Math.max(bottom, low - room) : low - room, Math.min(ceiling, high + room)];
}

function scales([first, last], [low, high]) {
  const wide = (FRAME.right - FRAME.left) / Math.max(last - first, 1);
  const tall = (FRAME.bottom - FRAME.top) / (high - low);
  return ([step, value]) => [FRAME.left + (step - first) * wide, FRAME.bottom - (value - low) * tall];
}

function pathOf(points, place) {
  return points.map((point, index) => `${index ? "L" : "M"}${place(point).map((part) => part.toFixed(1)).join(" ")}`).join("");
}

function drawLine(svg, { value, name }, place) {
  const y = place([0, value])[1].toFixed(1);
  svg.append(element("path", { class: "axis dashed", d: `M${FRAME.left} ${y}H${FRAME.right}` }), label(FRAME.right, Number(y) - 4, name, "end"));
}

function dot(point, place, text) {
  const [cx, cy] = place(point);
  const circle = element("circle", { class: "dot", cx: cx.toFixed(1), cy: cy.toFixed(1), r: 2.5 });
  const title = element("title", {});
  title.textContent = text;
  circle.append(title);
  return circle;
}

function label(x, y, text, anchor) {
  const found = element("text", { x, y, "text-anchor": anchor });
  found.textContent = text;
  return found;
}

function element(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function shortNumber(value) {
  if (value !== 0 && Math.abs(value) < 0.001) return local(value.toExponential(1));
  return local(Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3))));
}

// With the decimal sign of the page's language.
function local(number) {
  return number.replace(".", (1.5).toLocaleString(document.documentElement.lang)[1]);
}

function fill(words, values) {
  return words.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}
