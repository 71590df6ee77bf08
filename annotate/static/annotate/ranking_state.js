// The answer being made, as plain values; every function returns a new state.
// order: ids as presented. tiers: [[id, …], …], best first, none empty; what is in none is unranked, as all is at first.
// strengths: per gap 1, 2, 3 or null. ratings {id: {criterion: number}}, flags {id: [flag]}, rewrite {of, text} or null.

export const blank = (order, {ties}) =>
	({order, ties, tiers: [], strengths: [], allBad: false, ratings: {}, flags: {}, rationale: "", rewrite: null});

export const letterOf = (state, id) => String.fromCharCode(65 + state.order.indexOf(id));
export const tierOf = (state, id) => state.tiers.findIndex((tier) => tier.includes(id));
export const unranked = (state) => state.order.filter((id) => tierOf(state, id) < 0);

// Beyond the last tier: into a new one. Where ties are off: a new tier at that rank.
export function place(state, id, index) {
	const at = tierOf(state, id);
	if (at === index) return state;
	if (!state.ties || index >= state.tiers.length) return insert(state, id, at >= 0 && at < index ? index + 1 : index);
	return arrange(state, state.tiers.map((tier, n) => (n === index ? [...without(tier, id), id] : without(tier, id))));
}

// Into a tier of its own, in front of the one that now has index `gap`.
export function insert(state, id, gap) {
	const tiers = state.tiers.map((tier) => without(tier, id));
	tiers.splice(gap, 0, [id]);
	return arrange(state, tiers);
}

export const unrank = (state, id) => arrange(state, state.tiers.map((tier) => without(tier, id)));

// Up (-1) or down (+1): out of a tie into a tier of its own, then into the next. Below the last lie the unranked.
export function halfStep(state, id, direction) {
	const at = tierOf(state, id);
	if (at < 0) return direction < 0 ? insert(state, id, state.tiers.length) : state;
	if (state.tiers[at].length > 1) return insert(state, id, direction < 0 ? at : at + 1);
	if (at + direction < 0) return state;
	if (at + direction >= state.tiers.length) return unrank(state, id);
	return state.ties ? place(state, id, at + direction) : insert(state, id, direction < 0 ? at - 1 : at + 2);
}

// The same value again takes it back; so with ratings and flags.
export function setStrength(state, gap, value) {
	if (!(gap in state.strengths)) return state;
	return {...state, strengths: state.strengths.map((old, n) => (n === gap ? (old === value ? null : value) : old))};
}

export function setRating(state, id, key, value) {
	const {[key]: old, ...rest} = state.ratings[id] ?? {};
	return {...state, ratings: put(state.ratings, id, old === value ? rest : {...rest, [key]: value})};
}

export function toggleFlag(state, id, key) {
	const old = state.flags[id] ?? [];
	return {...state, flags: put(state.flags, id, old.includes(key) ? without(old, key) : [...old, key])};
}

const without = (list, one) => list.filter((other) => other !== one);

function put(all, id, value) {
	const {[id]: _, ...rest} = all;
	return Object.keys(value).length ? {...rest, [id]: value} : rest;
}

// Closes empty tiers; a strength stays as long as a member of each of its two tiers does.
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

export const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

const letters = (state, ids, between = ", ") => ids.map((id) => letterOf(state, id)).join(between);

export const placeOf = (state, id, words) => rankOf(state, tierOf(state, id), words);

const rankOf = ({tiers}, at, words) => (tiers[at]?.length > 1 ? words.tied : words.ordinals)[at] ?? words.unranked;

// "B > A = D, C unranked"
export const sentence = (state, words) => sentenceParts(state, words).filter(Boolean).join(", ");

export function sentenceParts(state, words) {
	const ranking = state.tiers.map((tier) => letters(state, tier, " = ")).join(" > ");
	const rest = ranking && letters(state, unranked(state));
	const stronger = state.strengths.map((value, n) => value && strengthOf(state, n, value, words));
	const more = [rest && fill(words.rest, {letters: rest}), ...stronger, state.rewrite && fill(words.edited, {letter: letterOf(state, state.rewrite.of)})];
	return [[state.allBad && words.allBad, ranking], more].map((parts) => parts.filter(Boolean).join(", "));
}

// "B clearly better than A = D"
export function strengthOf(state, gap, value, words) {
	const [upper, lower] = [0, 1].map((n) => letters(state, state.tiers[gap + n], " = "));
	return fill(words.strength, {upper, strength: words.strengths[value - 1], lower});
}

// "2nd, tied: A, D, clearly better than the next"; −1 is the unranked.
export function tierLabel(state, index, words) {
	const ids = index < 0 ? unranked(state) : state.tiers[index] ?? [];
	const label = fill(words.tier, {place: rankOf(state, index, words), letters: letters(state, ids) || words.none});
	const strength = words.strengths[state.strengths[index] - 1];
	return strength ? fill(words.better, {tier: label, strength}) : label;
}

export function spoken(state, words) {
	const parts = state.tiers.map((_, index) => tierLabel(state, index, words));
	if (parts.length && unranked(state).length) parts.push(tierLabel(state, -1, words));
	if (state.allBad) parts.unshift(words.allBad);
	return `${parts.join("; ") || words.nothing}.`;
}

// Why this cannot be submitted yet; null when it can.
export function problem(state, rules, {problems}) {
	if (!state.allBad && state.tiers.flat().length < 2) return rules.all_bad ? problems.two : problems.twoOnly;
	if (!rules.partial && state.tiers.length && unranked(state).length) return problems.partial;
	if (rules.strength === "required" && state.strengths.includes(null)) return problems.strength;
	for (const {key, label} of rules.criteria.filter(({required}) => required)) {
		const open = state.order.find((id) => !(key in (state.ratings[id] ?? {})));
		if (open) return fill(problems.rating, {letter: letterOf(state, open), label});
	}
	if (rules.rationale === "required" && !state.rationale.trim()) return problems.rationale;
	return null;
}

export const toAnswer = (state) => ({...toDraft(state), unranked: unranked(state)});

export const toDraft = ({order, ties, tiers, allBad, ...rest}) => ({...rest, ranking: tiers, all_bad: allBad});

// The server has left out of a draft what the rules forbid.
export function fromDraft(order, draft, rules) {
	const state = blank(order, rules);
	const seen = new Set();
	const fresh = (id) => order.includes(id) && !seen.has(id) && seen.add(id);
	const tiers = (draft?.ranking ?? []).map((tier) => tier.filter(fresh)).filter((tier) => rules.ties || tier.length < 2);
	const next = arrange(state, tiers);
	const {strengths = [], all_bad = false, ratings = {}, flags = {}, rationale, rewrite = null} = draft ?? {};
	return {
		...next, ratings, flags, rewrite, allBad: all_bad, rationale: rationale ?? "",
		strengths: strengths.length === next.strengths.length ? strengths : next.strengths,
	};
}

const step = (states, at, tag) => ({states, at, tag, now: states[at]});

export const begin = (state) => step([state], 0);

// Changes in a row with one tag are one step: typing.
export function change(history, next, tag = null) {
	if (same(next, history.now)) return history;
	const at = history.at + (tag && tag === history.tag ? 0 : 1);
	return step([...history.states.slice(0, at), next], at, tag);
}

export const undo = ({states, at}) => step(states, Math.max(at - 1, 0));
export const redo = ({states, at}) => step(states, Math.min(at + 1, states.length - 1));
