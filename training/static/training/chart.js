// One line chart as SVG: axes, up to a few lines that differ in colour, dashes and marks, and a cursor that pointer,
// finger and arrow keys move. Colours come from CSS, words from the page: what stands in braces is filled in.
import { automaticWeight, nearest, placesOf, positive, smoothed, spread, thin } from "./curve_points.js";
import { rangeOf, scaleOf, tickWritten, ticksOf, written } from "./scales.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 200;
const ROOM = { left: 46, right: 10, top: 10, bottom: 22 };
const MAX_POINTS = 600; // drawn of a line
const FEW_POINTS = 60; // each has its mark
const MARKS = 7; // along a line of many points, where there are several lines
const DRAWN = [
  "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0Z", "M-3-3H3V3H-3Z", "M0-4L3.6 2.8H-3.6Z", "M0-4L4 0L0 4L-4 0Z",
  "M-3-3L3 3M3-3L-3 3", "M0-4V4M-4 0H4",
]; // one for each line

export class Chart {
  // `words`: step, minutes, point, summary, leftOut, leftOutMany. `say`: tells a screen reader.
  constructor(figure, { words, say }) {
    this.figure = figure;
    this.plot = figure.querySelector("[data-plot]");
    this.svg = this.plot.querySelector("svg");
    this.words = words;
    this.say = say;
    this.cursor = null; // an x where it stands
    this.listen();
    new ResizeObserver(() => this.shown && this.draw(this.shown)).observe(this.plot);
  }

  // lines: [{item, number, points, x}], item being its row under the chart and x a function from the step.
  // options: log, weight ("auto" or a number as text), x ("step" or "minutes").
  draw(shown) {
    this.shown = shown;
    const { lines, log, x: axis } = shown;
    const weight = shown.weight === "auto" && this.figure.dataset.plain !== undefined ? "0" : shown.weight;
    const { unit, name } = this.figure.dataset;
    const [line, floor] = [numberOf(this.figure.dataset.line), numberOf(this.figure.dataset.floor)];
    this.format = { percent: unit === "percent", decimal: decimalSign() };
    this.drawn = lines.map((one) => prepared(one, { log, weight, axis }));
    const width = Math.max(this.plot.clientWidth, 160);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.replaceChildren();
    const values = this.drawn.flatMap((one) => [...one.raw, ...one.main].map((point) => point[1]).filter((value) => value !== null));
    const ends = this.drawn.flatMap((one) => [one.raw[0]?.[0], one.raw.at(-1)?.[0]]).filter((x) => x !== undefined);
    this.tellLeftOut();
    if (ends.length === 0) return this.tellEmpty();
    const across = [axis === "minutes" ? 0 : Math.min(1, ...ends), Math.max(...ends)];
    if (across[1] <= across[0]) across[1] = across[0] + 1;
    const range = rangeOf(values, { line, floor, ceiling: this.format.percent ? 1 : Infinity, log });
    this.x = scaleOf(across, [ROOM.left, width - ROOM.right]);
    this.y = scaleOf(range, [HEIGHT - ROOM.bottom, ROOM.top], log);
    this.across = across;
    this.drawAxes(range, { width, log, axis });
    if (line !== null && line >= range[0] && line <= range[1]) this.drawLine(line, width);
    for (const one of this.drawn) this.drawCurve(one);
    this.pointer = element("g", { class: "cursor" });
    this.svg.append(this.pointer);
    this.places = placesOf(this.drawn.map((one) => one.main));
    this.summarise(name);
    this.show();
  }

  drawAxes(range, { width, log, axis }) {
    const [bottom, right] = [HEIGHT - ROOM.bottom, width - ROOM.right];
    for (const value of ticksOf(range, 5, log)) {
      const y = this.y(value).toFixed(1);
      this.svg.append(element("path", { class: "grid", d: `M${ROOM.left} ${y}H${right}` }));
      this.svg.append(label(ROOM.left - 5, Number(y) + 4, tickWritten(value, this.format), "end"));
    }
    this.svg.append(element("path", { class: "axis", d: `M${ROOM.left} ${ROOM.top}V${bottom}H${right}` }));
    const ticks = ticksOf(this.across, width > 420 ? 7 : 5).filter((value) => axis === "minutes" || Number.isInteger(value));
    for (const value of ticks) {
      const x = this.x(value);
      this.svg.append(element("path", { class: "axis", d: `M${x.toFixed(1)} ${bottom}v4` }));
      this.svg.append(label(Math.min(x, right), bottom + 16, tickWritten(value, { decimal: this.format.decimal }), x > right - 14 ? "end" : "middle"));
    }
  }

  drawLine(value, width) {
    const y = this.y(value).toFixed(1);
    this.svg.append(element("path", { class: "axis dashed", d: `M${ROOM.left} ${y}H${width - ROOM.right}` }));
    this.svg.append(label(width - ROOM.right, Number(y) - 4, this.figure.dataset.lineName, "end"));
  }

  drawCurve({ number, raw, main, weight }) {
    const place = ([x, value]) => [this.x(x), this.y(value)];
    if (weight) this.svg.append(element("path", { class: `curve raw line-${number}`, d: pathOf(raw, place) }));
    this.svg.append(element("path", { class: `curve line-${number}`, d: pathOf(main, place) }));
    const known = main.filter((point) => point[1] !== null);
    const few = known.length <= FEW_POINTS && !weight;
    const every = few ? 1 : this.drawn.length > 1 ? Math.ceil(known.length / MARKS) : Infinity;
    // Those of different lines do not begin at the same place: they would hide each other.
    const first = few ? 0 : Math.floor(((number - 1) / 6) * every);
    for (let at = first; at < known.length; at += every) this.svg.append(mark(number, place(known[at])));
    if (!few && known.length && every !== Infinity) this.svg.append(mark(number, place(known.at(-1))));
  }

  tellEmpty() {
    this.places = [];
    for (const { item } of this.drawn) item.querySelector("[data-value]").textContent = "–";
  }

  tellLeftOut() {
    const count = this.drawn.reduce((sum, one) => sum + one.leftOut, 0);
    const told = this.figure.querySelector("[data-left-out]");
    told.hidden = count === 0;
    told.textContent = count ? fill(count === 1 ? this.words.leftOut : this.words.leftOutMany, { count }) : "";
  }

  summarise(name) {
    const parts = this.drawn.filter((one) => one.main.length).map((one) => {
      const [first, last] = [one.main[0], one.main.at(-1)];
      const said = { name: one.name || name, first: this.write(first[1]), start: this.where(first[0]), last: this.write(last[1]), end: this.where(last[0]) };
      return fill(this.words.summary, said);
    });
    this.plot.setAttribute("aria-label", [name, ...parts].join(". "));
  }

  // --- the cursor ------------------------------------------------------------------------------------------------

  listen() {
    const point = (event) => {
      if (!this.places?.length) return;
      const box = this.svg.getBoundingClientRect();
      const share = ((event.clientX - box.left) / box.width) * this.svg.viewBox.baseVal.width;
      const inside = (share - ROOM.left) / Math.max(this.x(this.across[1]) - ROOM.left, 1);
      this.moveTo(this.across[0] + inside * (this.across[1] - this.across[0]));
    };
    this.plot.addEventListener("pointermove", point);
    this.plot.addEventListener("pointerdown", point);
    this.plot.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && !this.plot.matches(":focus-visible") && this.leave());
    this.plot.addEventListener("blur", () => this.leave());
    this.plot.addEventListener("keydown", (event) => this.press(event));
  }

  press(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || !this.places?.length) return;
    if (event.key === "Escape") return this.leave();
    const last = this.places.length - 1;
    const at = this.cursor === null ? null : nearest(this.places.map((x) => [x]), this.cursor);
    const far = Math.max(Math.round(last / 10), 1);
    const to = {
      ArrowLeft: (at ?? last + 1) - 1, ArrowRight: at === null ? last : at + 1,
      PageUp: (at ?? last) - far, PageDown: (at ?? last) + far, Home: 0, End: last,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.moveTo(this.places[Math.min(Math.max(to, 0), last)]);
    this.say(this.told());
  }

  moveTo(x) {
    const at = nearest(this.places.map((one) => [one]), x);
    this.cursor = this.places[at];
    this.show();
  }

  leave() {
    this.cursor = null;
    this.show();
  }

  // The values where the cursor stands; without one, the last.
  show() {
    if (!this.places?.length) return;
    this.pointer.replaceChildren();
    const at = this.figure.querySelector("[data-at]");
    at.textContent = this.cursor === null ? (at.dataset.about ?? "") : this.where(this.cursor);
    if (this.cursor !== null) {
      const x = this.x(this.cursor).toFixed(1);
      this.pointer.append(element("path", { class: "guide", d: `M${x} ${ROOM.top}V${HEIGHT - ROOM.bottom}` }));
    }
    for (const one of this.drawn) this.showReading(one);
  }

  showReading(one) {
    const point = this.pointOf(one, one.main);
    const measured = one.weight ? this.pointOf(one, one.raw) : null;
    one.item.querySelector("[data-value]").textContent = this.write(point?.[1]);
    one.item.querySelector("[data-measured]").textContent = measured ? `(${this.write(measured[1])})` : "";
    if (this.cursor !== null && point) this.pointer.append(mark(one.number, [this.x(point[0]), this.y(point[1])], "big"));
  }

  // Of a line the point at the cursor; none beyond its ends.
  pointOf(one, points) {
    const known = points.filter((point) => point[1] !== null);
    if (known.length === 0) return null;
    if (this.cursor === null) return known.at(-1);
    const [first, last] = [one.main[0][0], one.main.at(-1)[0]];
    return this.cursor < first || this.cursor > last ? null : known[nearest(known, this.cursor)];
  }

  told() {
    const values = this.drawn.map((one) => `${one.name} ${this.write(this.pointOf(one, one.main)?.[1])}`.trim());
    return `${this.where(this.cursor)}: ${values.join(", ")}`;
  }

  where(x) {
    return this.shown.x === "minutes" ? fill(this.words.minutes, { minutes: written(x, { decimal: this.format.decimal }) }) : fill(this.words.step, { step: x });
  }

  write(value) {
    return written(value ?? null, this.format);
  }
}

// A key for the legend: a piece of the line with its mark.
export function drawKey(svg, number) {
  svg.setAttribute("viewBox", "0 0 30 12");
  svg.replaceChildren(element("path", { class: `curve line-${number}`, d: "M1 6H29" }), mark(number, [15, 6]));
}

// A line as it is drawn: `main` smoothed where that is asked for, `raw` as it was measured, both [x, value].
function prepared({ item, number, points, x }, { log, weight, axis }) {
  const chosen = weight === "auto" ? automaticWeight(points) : Number(weight);
  const moved = axis === "minutes" && x ? (all) => all.map(([step, value]) => [x(step), value]) : (all) => all.map(([step, value]) => [step, value]);
  const fit = (all) => (log ? positive(all) : { points: all, leftOut: 0 });
  const all = axis === "minutes" && !x ? [] : points;
  const measured = fit(spread(all));
  const raw = moved(thin(measured.points, MAX_POINTS));
  const main = chosen ? moved(thin(fit(smoothed(all, chosen)).points, MAX_POINTS)) : raw;
  return { item, number, name: item.dataset.name ?? "", raw, main, weight: chosen, leftOut: measured.leftOut };
}

function pathOf(points, place) {
  let begun = false;
  return points.map((point) => {
    const command = begun ? "L" : "M";
    begun = point[1] !== null;
    return begun ? command + place(point).map((part) => part.toFixed(1)).join(" ") : "";
  }).join("");
}

function mark(number, [x, y], size = "") {
  return element("path", { class: `mark line-${number} ${size}`, d: DRAWN[(number - 1) % DRAWN.length], transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` });
}

function label(x, y, text, anchor) {
  const found = element("text", { x: x.toFixed(1), y: y.toFixed(1), "text-anchor": anchor });
  found.textContent = text;
  return found;
}

function element(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const numberOf = (text) => (text === undefined ? null : Number(text));
const decimalSign = () => (1.5).toLocaleString(document.documentElement.lang)[1];
const fill = (words, values) => words.replace(/\{(\w+)\}/g, (_, name) => values[name]);
