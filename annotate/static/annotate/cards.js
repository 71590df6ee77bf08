// The responses. What folds or shows the raw text is a checkbox and CSS.

import {part} from "./parts.js";
import {fill, letterOf, placeOf, tierOf} from "./ranking_state.js";

export const cardOf = (id) => part("task").querySelector(`.response[data-id="${id}"]`);

export function drawCards(state, {focus, words}) {
	for (const id of state.order) {
		const card = cardOf(id);
		const place = placeOf(state, id, words);
		card.querySelector("[data-place]").textContent = place;
		card.classList.toggle("placed", tierOf(state, id) >= 0);
		card.classList.toggle("focus", id === focus);
		card.setAttribute("aria-label", fill(words.response, {letter: letterOf(state, id), place}));
		for (const input of card.querySelectorAll("[data-rating], [data-flag]")) {
			const {rating, flag} = input.dataset;
			input.checked = rating ? state.ratings[id]?.[rating] === Number(input.value) : Boolean(state.flags[id]?.includes(flag));
		}
	}
}

// To its next scale, and from the last to the first.
export function nextScale(id) {
	const scales = [...cardOf(id).querySelectorAll(".scale")];
	const at = scales.findIndex((scale) => scale.matches(":focus-within"));
	const next = scales[at + 1] ?? scales[0];
	(next?.querySelector(":checked") ?? next?.querySelector("input"))?.focus();
}

// A card is no control: with the focus on it, Enter still submits.
export function goTo(id) {
	const card = cardOf(id);
	card.focus({preventScroll: true});
	const {top, height} = card.getBoundingClientRect();
	if (top < 0 || top > innerHeight / 2) card.scrollIntoView({block: top < 0 || height > innerHeight * 0.7 ? "start" : "nearest"});
}
