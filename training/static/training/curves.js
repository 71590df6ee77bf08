// The charts of a run's page and of runs beside each other: asks for new points every two seconds while a run lives.
import { Chart, drawKey } from "./chart.js";
import { begin, keep, weightOf, withLog, withWeight } from "./curve_choices.js";
import { clockOf, nothing, taken } from "./curve_points.js";

const EVERY_MS = 2000;
const USE_EVERY_MS = 10_000;
const MAX_POINTS = 4000; // gathered by a page that stays open for days: then it asks for fewer, of stretches, from the start
const TIME = "time/step_seconds";

let choices = begin();
const boards = [];

// A section of charts with its controls. `lines` of a chart come from `linesOf(figure)`.
class Board {
  constructor(section) {
    this.section = section;
    const said = document.querySelector("[data-said]");
    const tools = { words: { ...section.dataset }, say: (text) => (said.textContent = text) };
    this.charts = [...section.querySelectorAll("figure")].map((figure) => new Chart(figure, tools));
    section.addEventListener("change", (event) => this.choose(event.target));
    boards.push(this);
  }

  choose({ dataset, value, checked }) {
    if (dataset.smooth !== undefined) choices = withWeight(choices, dataset.smooth, value);
    else if (dataset.log !== undefined) choices = withLog(choices, dataset.log, checked);
    else if (dataset.x !== undefined) choices = { ...choices, x: value };
    else return;
    keep(choices);
    for (const board of boards) board.draw();
  }

  showChoices() {
    for (const select of this.section.querySelectorAll("[data-smooth]")) select.value = weightOf(choices, select.dataset.smooth);
    for (const box of this.section.querySelectorAll("[data-log]")) box.checked = choices.log.includes(box.dataset.log);
    for (const select of this.section.querySelectorAll("[data-x]")) select.value = choices.x;
  }

  draw() {
    this.showChoices();
    for (const chart of this.charts) {
      const key = chart.figure.dataset.chart;
      chart.draw({ lines: this.linesOf(chart.figure), log: choices.log.includes(key), weight: weightOf(choices, key), x: this.axis() });
    }
  }
}

// Curves over the steps of one run or several.
class Curves extends Board {
  constructor(section) {
    super(section);
    const sources = [...document.querySelectorAll("[data-curves-url]")];
    this.feeds = new Map(sources.map((one) => [one.dataset.run, new Feed(one.dataset.curvesUrl, () => this.draw())]));
    this.draw();
    for (const feed of this.feeds.values()) feed.follow();
  }

  axis() {
    return choices.x;
  }

  linesOf(figure) {
    return [...figure.querySelectorAll("[data-series]")].map((item) => {
      const { points } = this.feeds.get(item.dataset.run).state;
      return { item, number: Number(item.dataset.number), points: points[item.dataset.series] ?? [], x: clockOf(points[TIME] ?? []) };
    });
  }
}

// What is known of one run's measurements.
class Feed {
  constructor(url, tell) {
    this.url = url;
    this.tell = tell;
    this.state = nothing();
  }

  async follow() {
    for (;;) {
      const answer = await asked(() => this.ask());
      if (answer) {
        const before = this.state;
        this.state = taken(before, answer);
        if (this.state !== before) this.tell();
        if (answer.finished && !answer.more) return;
      }
      if (!answer?.more) await pause(EVERY_MS);
    }
  }

  ask() {
    if (Object.values(this.state.points).some((points) => points.length > MAX_POINTS)) this.state = nothing();
    const query = new URLSearchParams({ since_step: this.state.step });
    if (this.state.attempt !== null) query.set("attempt", this.state.attempt);
    return `${this.url}?${query}`;
  }
}

// How busy machines were, over the minutes since the run began.
class Use extends Board {
  constructor(section) {
    super(section);
    this.lines = [];
    this.row = section.querySelector("template");
    this.follow();
  }

  axis() {
    return "minutes";
  }

  async follow() {
    for (;;) {
      const answer = await asked(() => this.section.dataset.useUrl);
      if (answer) {
        this.lines = answer.lines;
        for (const chart of this.charts) this.list(chart.figure);
        this.section.hidden = this.lines.length === 0;
        this.draw();
        if (answer.finished) return;
      }
      await pause(USE_EVERY_MS);
    }
  }

  // One row under the chart for each line of it; more workers than marks begin again with the first.
  list(figure) {
    const mine = this.lines.filter((line) => line.figure === figure.dataset.chart);
    figure.hidden = mine.length === 0;
    const rows = figure.querySelector("[data-readings]");
    for (let place = rows.children.length; place < mine.length; place++) {
      const row = this.row.content.cloneNode(true).firstElementChild;
      row.dataset.number = (place % 6) + 1;
      row.dataset.name = mine[place].name;
      row.querySelector("[data-who]").textContent = mine[place].name;
      rows.append(row);
      drawKey(row.querySelector("svg"), (place % 6) + 1);
    }
  }

  linesOf(figure) {
    const mine = this.lines.filter((line) => line.figure === figure.dataset.chart);
    return [...figure.querySelector("[data-readings]").children].slice(0, mine.length).map((item, place) =>
      ({ item, number: Number(item.dataset.number), points: mine[place].points, x: (minutes) => minutes }));
  }
}

// The network or the server may be away for a moment: then there is no answer, and the next turn tries again.
async function asked(address) {
  try {
    const response = await fetch(address(), { headers: { Accept: "application/json" } });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

const pause = (time) => new Promise((done) => setTimeout(done, time));

for (const key of document.querySelectorAll("svg[data-key]")) drawKey(key, Number(key.dataset.key));
for (const section of document.querySelectorAll("[data-charts]")) new Curves(section);
for (const section of document.querySelectorAll("[data-use-url]")) new Use(section);
if (boards.length) keep(choices); // what this browser remembered stands in the address, too
