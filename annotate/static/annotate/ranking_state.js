// The answer being made, as plain values: no DOM, no clock, no network. Every function returns a new state.
//
// state = {order, tiers, strengths, allBad, ratings, flags, rationale}
//   order      ids of the responses as presented; never changes
//   tiers      [[id, …], …], best first, never an empty one; ids inside a tier stand in presented order
//   strengths  one value per gap between tiers: 1 slightly, 2 clearly, 3 much better, null not said
// Whatever is in no tier is unranked, which is how everything starts.

export const STRENGTHS = {1: "slightly better", 2: "clearly better", 3: "much better"};

export function blank(order) {
  return {order, tiers: [], strengths: [], allBad: false, ratings: {}, flags: {}, rationale: ""};
}

// --- looking ---------------------------------------------------------------------------------------------------

export const letterOf = (state, id) => String.fromCharCode(65 + state.order.indexOf(id));
export const tierOf = (state, id) => state.tiers.findIndex((tier) => tier.includes(id));
export const unranked = (state) => state.order.filter((id) => tierOf(state, id) < 0);
export const countPlaced = (state) => state.tiers.reduce((sum, tier) => sum + tier.length, 0);

export function ordinal(number) {
  const teen = number % 100 > 10 && number % 100 < 14;
  return number + ((!teen && ["th", "st", "nd", "rd"][number % 10]) || "th");
}

// --- changing --------------------------------------------------------------------------------------------------

// Into the tier with this index; beyond the last, into a new last tier. Where ties are off, a new tier at that rank.
export function place(state, id, index, ties = true) {
  if (index < 0) return unrank(state, id);
  if (index >= state.tiers.length) return insert(state, id, state.tiers.length);
  if (state.tiers[index].includes(id) && (ties || state.tiers[index].length === 1)) return state;
  if (!ties) return insert(state, id, tierOf(state, id) >= 0 && tierOf(state, id) < index ? index + 1 : index);
  return arrange(state, state.tiers.map((tier, n) => (n === index ? [...without(tier, id), id] : without(tier, id))));
}

// Into a tier of its own in front of the tier that now has index `gap`; gap = number of tiers: behind the last.
export function insert(state, id, gap) {
  const tiers = state.tiers.map((tier) => without(tier, id));
  tiers.splice(Math.max(0, Math.min(gap, tiers.length)), 0, [id]);
  return arrange(state, tiers);
}

export function unrank(state, id) {
  return tierOf(state, id) < 0 ? state : arrange(state, state.tiers.map((tier) => without(tier, id)));
}

// Half a step up (-1) or down (+1): out of a tie into a tier of its own, then into the next tier. Below the last tier
// lie the unranked ones; they come up into a new last tier.
export function halfStep(state, id, direction, ties = true) {
  const at = tierOf(state, id);
  if (at < 0) return direction < 0 ? insert(state, id, state.tiers.length) : state;
  if (state.tiers[at].length > 1) return insert(state, id, direction < 0 ? at : at + 1);
  if (at + direction < 0) return state;
  if (at + direction >= state.tiers.length) return unrank(state, id);
  return ties ? place(state, id, at + direction) : insert(state, id, direction < 0 ? at - 1 : at + 2);
}

// The same value again takes the statement back.
export function setStrength(state, gap, value) {
  if (!(gap in state.strengths)) return state;
  return {...state, strengths: state.strengths.map((old, n) => (n === gap ? (old === value ? null : value) : old))};
}

export const setAllBad = (state, allBad) => ({...state, allBad});
export const setRationale = (state, rationale) => ({...state, rationale});

const without = (tier, id) => tier.filter((other) => other !== id);

// Closes empty tiers, and keeps a strength as long as a member of each of its two neighbouring tiers stays put.
function arrange(state, wanted) {
  const inOrder = (one, two) => state.order.indexOf(one) - state.order.indexOf(two);
  const tiers = wanted.filter((tier) => tier.length).map((tier) => [...tier].sort(inOrder));
  const survives = (gap, upper, lower) =>
    state.tiers[gap].some((id) => upper.includes(id)) && state.tiers[gap + 1].some((id) => lower.includes(id));
  const strengths = tiers.slice(1).map((lower, n) => {
    const gap = state.strengths.findIndex((_, old) => survives(old, tiers[n], lower));
    return gap < 0 ? null : state.strengths[gap];
  });
  const next = {...state, tiers, strengths};
  return same(next, state) ? state : next;
}

const same = (one, two) => JSON.stringify(one) === JSON.stringify(two);

// --- saying ----------------------------------------------------------------------------------------------------

// "B > A = D, C unranked": what would be saved, as the page shows it.
export const sentence = (state) => sentenceParts(state).filter(Boolean).join(", ");

// The same as [what is said, what is left unranked].
export function sentenceParts(state) {
  const letters = (ids) => ids.map((id) => letterOf(state, id));
  const ranking = state.tiers.map((tier) => letters(tier).join(" = ")).join(" > ");
  const rest = ranking ? letters(unranked(state)).join(", ") : "";
  return [[state.allBad && "All bad", ranking].filter(Boolean).join(", "), rest && `${rest} unranked`];
}

// The same for ears.
export function spoken(state) {
  const list = (ids) => {
    const names = ids.map((id) => letterOf(state, id));
    return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
  };
  const parts = state.tiers.map((tier, n) => {
    const strength = state.strengths[n] ? `, ${STRENGTHS[state.strengths[n]]} than the next` : "";
    return `${list(tier)} ${tier.length > 1 ? "tied " : ""}${ordinal(n + 1)}${strength}`;
  });
  const rest = unranked(state);
  if (parts.length && rest.length) parts.push(`${list(rest)} unranked`);
  if (state.allBad) parts.unshift("All are bad");
  return parts.length ? `${parts.join("; ")}.` : "Nothing placed yet.";
}

// Why this cannot be submitted yet, for people; null when it can.
export function problem(state, rules) {
  if (!state.allBad && countPlaced(state) < 2) return "Place at least two responses, or say that all are bad.";
  if (!rules.all_bad && state.allBad) return "“All are bad” is off in this project.";
  if (!rules.ties && state.tiers.some((tier) => tier.length > 1)) return "Ties are off in this project.";
  if (!rules.partial && countPlaced(state) && unranked(state).length) return "Place every response.";
  if (rules.strength === "required" && state.strengths.includes(null)) return "Say how much better, for each step.";
  if (rules.rationale === "required" && !state.rationale.trim()) return "Say why, in the notes.";
  return null;
}

// --- in and out ------------------------------------------------------------------------------------------------

export function toAnswer(state, rules) {
  return {
    ranking: state.tiers,
    unranked: unranked(state),
    strengths: rules.strength === "off" ? state.strengths.map(() => null) : state.strengths,
    all_bad: state.allBad,
    ratings: state.ratings,
    flags: state.flags,
    rationale: rules.rationale === "off" ? null : state.rationale.trim() || null,
    rewrite: null,
  };
}

export const toDraft = ({tiers, strengths, allBad, ratings, flags, rationale}) =>
  ({ranking: tiers, strengths, all_bad: allBad, ratings, flags, rationale});

// A draft may be old or foreign: whatever in it does not fit the task is left out.
export function fromDraft(order, draft) {
  const state = blank(order);
  if (!draft || typeof draft !== "object") return state;
  const seen = new Set();
  const fresh = (id) => order.includes(id) && !seen.has(id) && seen.add(id);
  const tiers = (Array.isArray(draft.ranking) ? draft.ranking : []).map((tier) => (Array.isArray(tier) ? tier : []).filter(fresh));
  const arranged = arrange(state, tiers);
  const strengths = Array.isArray(draft.strengths) && draft.strengths.length === arranged.strengths.length ? draft.strengths : arranged.strengths;
  return {
    ...arranged,
    strengths: strengths.map((value) => (value in STRENGTHS ? value : null)),
    allBad: draft.all_bad === true,
    ratings: draft.ratings ?? {},
    flags: draft.flags ?? {},
    rationale: typeof draft.rationale === "string" ? draft.rationale : "",
  };
}

// --- undo ------------------------------------------------------------------------------------------------------

export const begin = (state) => ({past: [], now: state, future: [], tag: null});

// `tag` names what is being typed: changes in a row with one tag are one step.
export function change(history, next, tag = null) {
  if (next === history.now || same(next, history.now)) return history;
  const past = tag && tag === history.tag ? history.past : [...history.past, history.now];
  return {past, now: next, future: [], tag};
}

export function undo({past, now, future}) {
  if (!past.length) return {past, now, future, tag: null};
  return {past: past.slice(0, -1), now: past.at(-1), future: [now, ...future], tag: null};
}

export function redo({past, now, future}) {
  if (!future.length) return {past, now, future, tag: null};
  return {past: [...past, now], now: future[0], future: future.slice(1), tag: null};
}
