// The live curves of a run's page: asks for new points every two seconds and draws them as SVG. A point is
// [step, value], or of a stretch of steps [last step, mean, steps, step of the lowest, lowest, step of the highest, highest].
import { drawChart } from "./chart.js";

const EVERY_MS = 2000;
const MAX_POINTS = 4000; // gathered by a page that stays open for days: then it asks for fewer, of stretches, from the start

class Curves {
  constructor(element) {
    this.url = element.dataset.curvesUrl;
    this.words = { ...element.dataset };
    this.figures = [...element.querySelectorAll("figure")];
    this.forget();
  }

  forget() {
    this.points = {};
    this.attempt = null;
    this.step = 0;
  }

  async follow() {
    for (;;) {
      let answer = null;
      try {
        answer = await this.ask();
      } catch {
        // The network or the server is away for a moment: the next turn tries again.
      }
      if (answer) {
        this.take(answer);
        if (answer.finished && !answer.more) return;
      }
      if (!answer?.more) await new Promise((done) => setTimeout(done, EVERY_MS));
    }
  }

  async ask() {
    if (Object.values(this.points).some((points) => points.length > MAX_POINTS)) this.forget();
    const query = new URLSearchParams({ since_step: this.step });
    if (this.attempt !== null) query.set("attempt", this.attempt);
    const response = await fetch(`${this.url}?${query}`, { headers: { Accept: "application/json" } });
    if (!response.ok) throw new Error(`status ${response.status}`);
    return response.json();
  }

  take(answer) {
    const nothingNew = answer.step === this.step && answer.attempt === this.attempt;
    this.attempt = answer.attempt;
    if (nothingNew) return;
    if (answer.whole) this.points = {};
    for (const [name, points] of Object.entries(answer.points)) this.points[name] = [...(this.points[name] ?? []), ...points];
    this.step = answer.step;
    for (const figure of this.figures) drawFigure(figure, this.points, this.step, this.words);
  }
}

function drawFigure(figure, points, step, words) {
  const { series, beside, name, unit, line, lineName, floor } = figure.dataset;
  drawChart(figure.querySelector("svg"), {
    name,
    points: points[series] ?? [],
    beside: (beside && points[beside]) || [],
    steps: [1, Math.max(step, 1)],
    percent: unit === "percent",
    line: line === undefined ? null : { value: Number(line), name: lineName },
    floor: floor === undefined ? null : Number(floor),
    words,
  });
}

for (const element of document.querySelectorAll("[data-charts]")) new Curves(element).follow();
