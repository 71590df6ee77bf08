// How curves are shown, as a visitor chose it: in the address, so that a link shows the same, and kept in the browser.
// smooth=0.9 is for all charts, smooth=train/loss~0.5 for one; log=train/loss; x=minutes.

export const SMOOTHING = ["auto", "0", "0.5", "0.8", "0.9", "0.95", "0.99"];
const NAMES = ["x", "smooth", "log"];
const KEPT = "plackett-curves";

export const usual = () => ({ x: "step", smooth: { "": "auto" }, log: [] });

// What the parameters say; what makes no sense is the usual.
export function parse(parameters) {
  const choices = usual();
  if (parameters.get("x") === "minutes") choices.x = "minutes";
  for (const given of parameters.getAll("smooth")) {
    const at = given.lastIndexOf("~");
    const [chart, weight] = at < 0 ? ["", given] : [given.slice(0, at), given.slice(at + 1)];
    if (SMOOTHING.includes(weight)) choices.smooth[chart] = weight;
  }
  choices.log = [...new Set(parameters.getAll("log"))].filter(Boolean);
  return choices;
}

// The parameters with the choices that are not the usual, and with all others of theirs as they were.
export function withChoices(parameters, choices) {
  const found = new URLSearchParams(parameters);
  for (const name of NAMES) found.delete(name);
  if (choices.x !== "step") found.set("x", choices.x);
  for (const [chart, weight] of Object.entries(choices.smooth)) {
    if (chart === "" ? weight !== "auto" : weight !== choices.smooth[""]) found.append("smooth", chart ? `${chart}~${weight}` : weight);
  }
  for (const chart of choices.log) found.append("log", chart);
  return found;
}

export const weightOf = (choices, chart) => choices.smooth[chart] ?? choices.smooth[""];

// A chart of its own weight; for all ("") the charts' own are forgotten.
export const withWeight = (choices, chart, weight) =>
  ({ ...choices, smooth: chart ? { ...choices.smooth, [chart]: weight } : { "": weight } });

export const withLog = (choices, chart, on) =>
  ({ ...choices, log: [...choices.log.filter((one) => one !== chart), ...(on ? [chart] : [])] });

// What the address says; where it says nothing, what this browser showed last.
export function begin() {
  const asked = new URLSearchParams(location.search);
  if (NAMES.some((name) => asked.has(name))) return parse(asked);
  try {
    return parse(new URLSearchParams(localStorage.getItem(KEPT) ?? ""));
  } catch {
    return usual(); // a browser that keeps nothing
  }
}

export function keep(choices) {
  const query = withChoices(new URLSearchParams(location.search), choices).toString();
  history.replaceState(history.state, "", `${location.pathname}${query ? `?${query}` : ""}${location.hash}`);
  try {
    localStorage.setItem(KEPT, withChoices(new URLSearchParams(), choices).toString());
  } catch {
    // The address has them.
  }
}
