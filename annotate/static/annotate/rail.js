// The rail: tiers with lettered chips, the gaps between them, the unranked. Drawn from the state each time; keyboard
// focus stays on what it was on, by data-key.

import {STRENGTHS, letterOf, ordinal, sentenceParts, tierOf, unranked} from "./ranking_state.js";

const SHORT = {1: "slightly", 2: "clearly", 3: "much better"};

// actions: pick(id), place(index), insert(gap), unrank(), strength(gap, value) – the last ones act on the focused response.
export function drawRail(root, state, {focus, rules, actions, locked}) {
  const held = root.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const context = {state, focus, rules, actions, locked};
  const rows = [];
  state.tiers.forEach((tier, index) => {
    rows.push(drawGap(context, index), drawTier(context, tier, index));
  });
  if (state.tiers.length < state.order.length) rows.push(drawNext(context));
  rows.push(drawPool(context));
  root.replaceChildren(...rows);
  root.dataset.count = state.order.length;
  root.classList.toggle("picking", focus !== null);
  if (focus !== null) root.querySelector(`.chip[data-id="${CSS.escape(focus)}"]`).scrollIntoView({block: "nearest", inline: "nearest"});
  if (held) root.querySelector(`[data-key="${CSS.escape(held)}"]`)?.focus({preventScroll: true});
}

function drawTier(context, tier, index) {
  const name = ordinal(index + 1);
  const row = drawRow(context, {name, label: `${name}: ${lettersOf(context, tier)}`, drop: `tier:${index}`, index});
  row.append(...tier.map((id) => drawChip(context, id)));
  if (tier.length > 1) row.append(element("span", {class: "tie"}, "tie"));
  return row;
}

function drawNext(context) {
  const index = context.state.tiers.length;
  const name = ordinal(index + 1);
  const row = drawRow(context, {name, label: `${name}: empty`, drop: `gap:${index}`, index});
  row.classList.add("vacant");
  return row;
}

function drawPool(context) {
  const rest = unranked(context.state);
  const label = rest.length ? `Unranked: ${lettersOf(context, rest)}` : "Unranked: none";
  const row = drawRow(context, {name: "unranked", label, drop: "pool", index: -1});
  row.classList.add("pool");
  row.append(...rest.map((id) => drawChip(context, id)));
  return row;
}

// The row's name is a button that places the focused response there; a click beside the chips does the same.
function drawRow(context, {name, label, drop, index}) {
  const {focus, actions, locked, state} = context;
  const act = () => (index < 0 ? actions.unrank() : actions.place(index));
  const title = focus === null ? name : `Place ${letterOf(state, focus)}: ${name}`;
  const button = element("button", {
    type: "button", class: "tier-name", "data-key": `row:${index}`, "aria-label": title,
    "aria-disabled": String(locked || focus === null),
  }, name);
  const row = element("div", {class: "tier", role: "group", "aria-label": label, "data-drop": drop}, button);
  row.addEventListener("click", (event) => !event.target.closest(".chip") && act());
  return row;
}

function drawGap(context, gap) {
  const {actions, focus, locked, rules, state} = context;
  const where = gap ? `between ${ordinal(gap)} and ${ordinal(gap + 1)}` : "above 1st";
  const title = focus === null ? `New tier ${where}` : `Place ${letterOf(state, focus)} in a new tier ${where}`;
  const insert = element("button", {
    type: "button", class: "insert", "data-key": `gap:${gap}`, "aria-label": title, title,
    "aria-disabled": String(locked || focus === null),
  }, "+");
  insert.addEventListener("click", () => actions.insert(gap));
  const row = element("div", {class: "gap", "data-drop": `gap:${gap}`}, insert);
  if (gap && rules.strength !== "off") row.append(drawStrengths(context, gap - 1));
  return row;
}

function drawStrengths({actions, locked, state}, gap) {
  const [upper, lower] = [state.tiers[gap], state.tiers[gap + 1]].map((tier) => tier.map((id) => letterOf(state, id)).join(" and "));
  const buttons = Object.entries(STRENGTHS).map(([value, words]) => {
    const on = state.strengths[gap] === Number(value);
    const button = element("button", {
      type: "button", "data-key": `strength:${gap}:${value}`, "aria-pressed": String(on), "aria-disabled": String(locked),
      "aria-label": `${upper} ${words} than ${lower}`,
    }, SHORT[value]);
    button.addEventListener("click", () => actions.strength(gap, Number(value)));
    return button;
  });
  return element("div", {class: "strengths", role: "group", "aria-label": `How much better is ${upper} than ${lower}?`}, ...buttons);
}

function drawChip({actions, focus, state, locked}, id) {
  const at = tierOf(state, id);
  const chip = element("button", {
    type: "button", class: at < 0 ? "chip idle" : "chip", "data-key": `chip:${id}`, "data-id": id,
    "aria-pressed": String(id === focus), "aria-disabled": String(locked),
    "aria-label": `Response ${letterOf(state, id)}, ${placeOf(state, id)}`,
  }, letterOf(state, id));
  chip.addEventListener("click", () => actions.pick(id));
  return chip;
}

// "2nd, tied", "1st", "unranked".
export function placeOf(state, id) {
  const at = tierOf(state, id);
  if (at < 0) return "unranked";
  return ordinal(at + 1) + (state.tiers[at].length > 1 ? ", tied" : "");
}

// The big sentence, and the small one under it that says what is left to do.
export function drawSentence(big, small, state, {focus, problem}) {
  const [said, left] = sentenceParts(state);
  big.replaceChildren(said || "Nothing placed yet", ...(left ? [element("span", {class: "rest"}, `, ${left}`)] : []));
  const next = state.tiers.length + 1;
  if (problem) small.textContent = problem;
  else if (focus !== null && tierOf(state, focus) < 0) small.replaceChildren("Press ", key(next), ` to place ${letterOf(state, focus)} ${ordinal(next)}.`);
  else small.textContent = "";
}

const key = (name) => element("kbd", {}, String(name));
const lettersOf = ({state}, ids) => ids.map((id) => letterOf(state, id)).join(", ");

export function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children);
  return made;
}
