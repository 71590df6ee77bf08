// The workbench beside the set-up form, under the rules that the form holds now. Nothing of it is saved or leased.

import {part} from "./parts.js";
import {startRanker} from "./ranker.js";
import {fill, sentence, toDraft} from "./ranking_state.js";

const WAIT = 400; // milliseconds after the last change

export class Preview {
	// told(answer) hears what the server says of the form after each update.
	constructor(root, form, told) {
		Object.assign(this, {root, form, told, shown: "", draft: null, timer: 0, asking: null});
		this.words = JSON.parse(root.dataset.words);
		for (const name of ["preview-button", "still"]) part(name)?.remove();
		part("bench").hidden = false;
		const absent = () => this.say(root.dataset.absent);
		this.ranker = startRanker({
			words: this.words,
			shortcuts: () => this.within,
			onChange: (state) => (this.draft = toDraft(state)),
			actions: {
				submit: () => this.within && this.submit(),
				guidelines: () => (part("preview-guidelines").open = true),
				skip: absent, flag: absent, compare: absent, rewrite: absent, back: absent, leave: absent, help: absent,
			},
		});
	}

	// Keys belong to the form unless somebody is in the preview.
	get within() {
		return this.root.contains(document.activeElement);
	}

	say(text) {
		part("live").textContent = part("hint").textContent = text;
	}

	submit() {
		const {problem, now} = this.ranker;
		this.say(problem() ?? fill(this.root.dataset.submitted, {sentence: sentence(now(), this.words)}));
	}

	update({now = false} = {}) {
		clearTimeout(this.timer);
		this.timer = setTimeout(() => this.ask(), now ? 0 : WAIT);
	}

	async ask() {
		this.asking?.abort();
		this.asking = new AbortController();
		const body = new URLSearchParams(new FormData(this.form));
		try {
			const answer = await fetch(this.root.dataset.url, {method: "POST", body, signal: this.asking.signal});
			if (answer.ok) this.show(await answer.json());
		} catch (error) {
			// Offline, or a newer change asks: either way the next answer is the one that counts.
			if (error.name !== "AbortError" && !(error instanceof TypeError)) throw error;
		}
	}

	show(answer) {
		this.told(answer);
		const guidelines = part("preview-guidelines");
		guidelines.hidden = !answer.guidelines;
		guidelines.querySelector(".text").innerHTML = answer.guidelines;
		const shown = JSON.stringify([answer.task.html, answer.task.rules]);
		if (shown === this.shown) return;
		this.shown = shown;
		this.ranker.show(answer.task, this.draft); // what was tried stays, as far as the new rules allow it
	}
}
