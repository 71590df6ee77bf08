// Ranking one task: its state, what draws it and what changes it. No network.

import {drawCards, goTo, nextScale} from "./cards.js";
import {enableDrag} from "./drag.js";
import {listenForKeys} from "./keys.js";
import {part} from "./parts.js";
import {drawRail, drawSentence} from "./rail.js";
import * as ranking from "./ranking_state.js";

// more: further actions that keys and [data-act] may name.
export function startRanker({words, shortcuts, actions: more, onChange}) {
	let task, history;
	let focus = null;
	let busy = false;
	const now = () => history?.now;

	const withFocus = (act, ...values) => (history && focus !== null ? apply(act(now(), focus, ...values)) : false);
	const actions = {
		pick(id) {
			focus = focus === String(id) ? null : String(id);
			draw();
		},
		focus(index) {
			if (!history || !(index in task.order)) return false;
			focus = task.order[index];
			draw();
			goTo(focus);
		},
		move(direction) {
			if (!history) return false;
			const last = task.order.length - 1;
			const at = focus === null ? (direction > 0 ? -1 : last + 1) : task.order.indexOf(focus);
			return actions.focus(Math.max(0, Math.min(last, at + direction)));
		},
		place: (index) => withFocus(ranking.place, index),
		insert: (gap) => withFocus(ranking.insert, gap),
		unrank: () => withFocus(ranking.unrank),
		half: (direction) => focus !== null && void withFocus(ranking.halfStep, direction),
		strength: (gap, value) => apply(ranking.setStrength(now(), gap, value)),
		judge: () => focus !== null && void nextScale(focus),
		bad: () => apply({...now(), allBad: !now().allBad}),
		undo: () => settle(history && ranking.undo(history)),
		redo: () => settle(history && ranking.redo(history)),
		...more,
	};
	document.addEventListener("click", ({target}) => clicked(target));
	part("rationale").addEventListener("input", ({target}) => apply({...now(), rationale: target.value}, "rationale"));
	listenForKeys({actions, singleKeys: shortcuts});
	enableDrag(part("tiers"), {drop, locked: () => busy});

	// next = {order, rules, html} or null; draft: a saved one or null.
	function show(next, draft) {
		task = next;
		busy = false;
		history = null;
		if (!task) return;
		part("task").innerHTML = task.html;
		part("notes").open = task.rules.rationale === "required" || Boolean(draft?.rationale);
		adopt(draft);
	}

	function adopt(draft) {
		focus = null;
		history = ranking.begin(ranking.fromDraft(task.order, draft, task.rules));
		draw();
	}

	const apply = (next, tag) => (history ? settle(ranking.change(history, next, tag)) : false);

	function settle(next) {
		if (busy || !history || next.now === now()) return false;
		history = next;
		onChange(now());
		draw();
		part("live").textContent = ranking.spoken(now(), words);
	}

	function problem() {
		const {revises, draft, kept, rules} = task;
		return revises && !draft && !kept && !history.at ? words.problems.unchanged : ranking.problem(now(), rules, words);
	}

	function draw() {
		const state = now();
		const view = {focus, words, rules: task.rules, locked: busy};
		const missing = problem();
		drawRail(state, view);
		drawCards(state, view);
		drawSentence(state, view, state.tiers.flat().length > 1 && missing);
		part("submit").setAttribute("aria-disabled", busy || missing !== null);
		part("all-bad").setAttribute("aria-pressed", state.allBad);
		part("undo").disabled = busy || !history.at;
		part("redo").disabled = busy || history.at > history.states.length - 2;
		if (part("rationale").value !== state.rationale) part("rationale").value = state.rationale;
	}

	function clicked(target) {
		const card = target.closest(".response");
		const button = target.closest("[data-act]");
		if (target.matches("[data-rating], [data-flag]")) rate(card.dataset.id, target);
		else if (button) {
			const [name, ...values] = button.dataset.act.split(":");
			actions[name](...values.map(Number));
		} else if (card && !target.closest("a, button, summary, label, .scale") && getSelection().isCollapsed) {
			focus = card.dataset.id;
			draw();
			card.focus({preventScroll: true});
		}
	}

	function rate(id, {dataset: {rating, flag}, value}) {
		const next = rating ? ranking.setRating(now(), id, rating, Number(value)) : ranking.toggleFlag(now(), id, flag);
		if (apply(next) === false) draw();
	}

	function drop(id, target) {
		const [kind, number] = target?.split(":") ?? [];
		focus = id;
		draw();
		if (kind) actions[{pool: "unrank", tier: "place", gap: "insert"}[kind]](Number(number));
	}

	function lock() {
		busy = true;
		draw();
	}

	return {show, adopt, apply, lock, now, problem, busy: () => busy, focus: () => focus};
}
