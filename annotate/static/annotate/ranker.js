// Ranking one task: its state, what draws it and what changes it. No network.

import {drawCards, goTo} from "./cards.js";
import {enableDrag} from "./drag.js";
import {listenForKeys} from "./keys.js";
import {part} from "./parts.js";
import {drawRail, drawSentence} from "./rail.js";
import * as ranking from "./ranking_state.js";

export class Ranker {
	constructor({words, shortcuts = () => true, actions = {}, onChange = () => {}}) {
		Object.assign(this, {words, onChange, history: null, focus: null, busy: false});
		this.actions = {...this.ownActions(), ...actions};
		document.addEventListener("click", (event) => this.clicked(event.target));
		part("rationale").addEventListener("input", ({target}) => this.apply({...this.now, rationale: target.value}, "rationale"));
		listenForKeys({actions: this.actions, singleKeys: shortcuts});
		enableDrag(part("tiers"), {locked: () => this.busy, drop: (...where) => this.drop(...where)});
	}

	get now() {
		return this.history?.now;
	}

	get problem() {
		const {revises, draft, rules} = this.task;
		return revises && !draft && !this.history.at ? this.words.problems.unchanged : ranking.problem(this.now, rules, this.words);
	}

	// task = {order, rules, html}; draft: a saved one or null.
	show(task, draft) {
		this.task = task;
		part("task").innerHTML = task.html;
		part("notes").open = task.rules.rationale === "required" || Boolean(draft?.rationale);
		this.adopt(draft);
	}

	adopt(draft) {
		this.focus = null;
		this.history = ranking.begin(ranking.fromDraft(this.task.order, draft, this.task.rules));
		this.draw();
	}

	apply(next, tag) {
		return this.now ? this.settle(ranking.change(this.history, next, tag)) : false;
	}

	settle(history) {
		if (this.busy || !this.now || history.now === this.now) return false;
		this.history = history;
		this.onChange(this.now);
		this.draw();
		part("live").textContent = ranking.spoken(this.now, this.words);
	}

	draw() {
		const {now, busy, focus, words, task, history, problem} = this;
		const view = {focus, words, rules: task.rules, locked: busy};
		drawRail(now, view);
		drawCards(now, view);
		drawSentence(now, view, now.tiers.flat().length > 1 && problem);
		part("submit").setAttribute("aria-disabled", busy || problem !== null);
		part("all-bad").setAttribute("aria-pressed", now.allBad);
		part("undo").disabled = busy || !history.at;
		part("redo").disabled = busy || history.at > history.states.length - 2;
		if (part("rationale").value !== now.rationale) part("rationale").value = now.rationale;
	}

	ownActions() {
		const withFocus = (act) => (this.now && this.focus !== null ? this.apply(act(this.now, this.focus, this.task.rules.ties)) : false);
		const orderOf = () => (this.now ? this.task.order : []);
		return {
			pick: (id) => {
				this.focus = this.focus === String(id) ? null : String(id);
				this.draw();
			},
			focus: (index) => {
				if (!(index in orderOf())) return false;
				this.focus = this.task.order[index];
				this.draw();
				goTo(this.focus);
			},
			move: (direction) => {
				const last = orderOf().length - 1;
				const at = this.focus === null ? (direction > 0 ? -1 : last + 1) : orderOf().indexOf(this.focus);
				return this.actions.focus(Math.max(0, Math.min(last, at + direction)));
			},
			place: (index) => withFocus((state, id, ties) => ranking.place(state, id, index, ties)),
			insert: (gap) => withFocus((state, id) => ranking.insert(state, id, gap)),
			unrank: () => withFocus(ranking.unrank),
			half: (direction) => this.focus !== null && void withFocus((state, id, ties) => ranking.halfStep(state, id, direction, ties)),
			strength: (gap, value) => this.apply(ranking.setStrength(this.now, gap, value)),
			bad: () => this.apply({...this.now, allBad: !this.now.allBad}),
			undo: () => this.settle(ranking.undo(this.history)),
			redo: () => this.settle(ranking.redo(this.history)),
		};
	}

	clicked(target) {
		const card = target.closest(".response");
		const button = target.closest("[data-act]");
		if (target.matches("[data-rating], [data-flag]")) this.judge(card.dataset.id, target);
		else if (button) {
			const [name, ...values] = button.dataset.act.split(":");
			this.actions[name](...values.map(Number));
		} else if (card && !target.closest("a, button, summary, label, .scale") && getSelection().isCollapsed) {
			this.focus = card.dataset.id;
			this.draw();
			card.focus({preventScroll: true});
		}
	}

	judge(id, {dataset: {rating, flag}, value}) {
		const next = rating ? ranking.setRating(this.now, id, rating, Number(value)) : ranking.toggleFlag(this.now, id, flag);
		if (this.apply(next) === false) this.draw();
	}

	drop(id, target) {
		const [kind, number] = target?.split(":") ?? [];
		this.focus = id;
		this.draw();
		if (kind) this.actions[{pool: "unrank", tier: "place", gap: "insert"}[kind]](Number(number));
	}
}
