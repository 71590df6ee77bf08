// The live curves of a run's page: asks for new measurements every two seconds and draws them as SVG.
import { drawChart } from "./chart.js";

const EVERY_MS = 2000;
const FINISHED = new Set(["succeeded", "failed", "cancelled"]);

class Curves {
  constructor(element) {
    this.url = element.dataset.metricsUrl;
    this.words = { ...element.dataset };
    this.figures = [...element.querySelectorAll("figure")];
    this.rows = [];
    this.attempt = null;
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
        if (FINISHED.has(answer.state) && !answer.more) return;
      }
      if (!answer?.more) await new Promise((done) => setTimeout(done, EVERY_MS));
    }
  }

  async ask() {
    const query = new URLSearchParams({ since_step: this.rows.at(-1)?.step ?? 0 });
    if (this.attempt !== null) query.set("attempt", this.attempt);
    const response = await fetch(`${this.url}?${query}`, { headers: { Accept: "application/json" } });
    if (!response.ok) throw new Error(`status ${response.status}`);
    return response.json();
  }

  take(answer) {
    this.attempt = answer.attempt;
    if (answer.discard_after !== null) this.rows = this.rows.filter((row) => row.step <= answer.discard_after);
    if (answer.metrics.length === 0 && answer.discard_after === null) return;
    this.rows.push(...answer.metrics);
    for (const figure of this.figures) drawFigure(figure, this.rows, this.words);
  }
}

function pointsOf(rows, name) {
  return rows.filter((row) => typeof row.values[name] === "number").map((row) => [row.step, row.values[name]]);
}

function drawFigure(figure, rows, words) {
  const { series, beside, name, unit, line, lineName, floor } = figure.dataset;
  drawChart(figure.querySelector("svg"), {
    name,
    points: pointsOf(rows, series),
    beside: beside ? pointsOf(rows, beside) : [],
    steps: [rows[0]?.step ?? 0, rows.at(-1)?.step ?? 1],
    percent: unit === "percent",
    line: line === undefined ? null : { value: Number(line), name: lineName },
    floor: floor === undefined ? null : Number(floor),
    words,
  });
}

for (const element of document.querySelectorAll("[data-charts]")) new Curves(element).follow();
