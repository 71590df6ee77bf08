// Tiers, gaps and the unranked, drawn anew each time. Focus stays by data-key; data-act says what a click does.

import {part} from "./parts.js";
import {fill, letterOf, placeOf, sentenceParts, strengthOf, tierLabel, tierOf, unranked} from "./ranking_state.js";

export function drawRail(state, view) {
	const root = part("tiers");
	const held = root.contains(document.activeElement) && document.activeElement.dataset.key;
	const last = state.tiers.length;
	const rows = state.tiers.map((tier, index) => gap(state, view, index) + row(state, view, index, tier));
	if (last < state.order.length) rows.push(row(state, view, last, []));
	rows.push(row(state, view, -1, unranked(state)));
	root.innerHTML = rows.join("");
	root.dataset.count = state.order.length;
	root.classList.toggle("picking", view.focus !== null);
	root.querySelector(".chip[aria-pressed=true]")?.scrollIntoView({block: "nearest", inline: "nearest"});
	if (held) root.querySelector(`[data-key="${held}"]`)?.focus({preventScroll: true});
}

const safe = (text) => text.replace(/[&"<>]/g, (sign) => `&#${sign.charCodeAt(0)};`);

const button = (act, name, label, text, more = "") =>
	`<button type="button" class="${name}" data-key="${act}" data-act="${act}" aria-label="${safe(label)}" ${more}>${safe(text)}</button>`;

function row(state, view, index, ids) {
	const {focus, words} = view;
	const kind = index < 0 ? "pool" : ids.length ? "tier" : "gap"; // what a chip dropped on it means
	const act = index < 0 ? "unrank" : `place:${index}`;
	const place = words.ordinals[index] ?? words.unranked;
	const title = focus === null ? place : fill(words.placeHere, {letter: letterOf(state, focus), place});
	return `<div class="tier to-${kind}" role="group" data-drop="${kind}:${index}" data-act="${act}" aria-label="${safe(tierLabel(state, index, words))}">${
		button(act, "tier-name", title, place, idle(view)) + ids.map((id) => chip(state, id, view)).join("")
	}${index >= 0 && ids.length > 1 ? `<span class="tie">${safe(words.tie)}</span>` : ""}</div>`;
}

const idle = ({focus, locked}) => `aria-disabled="${locked || focus === null}"`;

function chip(state, id, {focus, words, locked}) {
	const letter = letterOf(state, id);
	const label = fill(words.response, {letter, place: placeOf(state, id, words)});
	const more = `data-id="${id}" aria-pressed="${id === focus}" aria-disabled="${locked}"`;
	return button(`pick:${id}`, tierOf(state, id) < 0 ? "chip idle" : "chip", label, letter, more);
}

function gap(state, view, index) {
	const {focus, rules, words} = view;
	const title = fill(focus === null ? words.gap : words.placeGap, {place: words.ordinals[index], letter: focus && letterOf(state, focus)});
	return `<div class="gap" data-drop="gap:${index}">${button(`insert:${index}`, "insert", title, "+", idle(view))}${
		index && rules.strength !== "off" ? strengths(state, view, index - 1) : ""}</div>`;
}

function strengths(state, {words, locked}, index) {
	const buttons = words.shortStrengths.map((short, n) => button(
		`strength:${index}:${n + 1}`, "", strengthOf(state, index, n + 1, words), short,
		`aria-pressed="${state.strengths[index] === n + 1}" aria-disabled="${locked}"`,
	));
	return `<div class="strengths" role="group" aria-label="${safe(words.strengthGroup)}">${buttons.join("")}</div>`;
}

export function drawSentence(state, {focus, words}, problem) {
	const [said, more] = sentenceParts(state, words);
	part("sentence").innerHTML = safe(said || words.nothing) + (more && `<span class="rest">, ${safe(more)}</span>`);
	const next = state.tiers.length;
	const press = focus !== null && tierOf(state, focus) < 0;
	part("hint").innerHTML = problem ? safe(problem) : !press ? "" :
		fill(safe(words.press), {key: `<kbd>${next + 1}</kbd>`, letter: letterOf(state, focus), place: words.ordinals[next]});
}
