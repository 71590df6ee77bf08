// The responses as cards: they never move. This file shows where each one stands, which one has the focus, and folds.

import {placeOf} from "./rail.js";
import {letterOf, tierOf} from "./ranking_state.js";

const cardOf = (root, id) => root.querySelector(`.response[data-id="${CSS.escape(id)}"]`);

export function drawPlaces(root, state, focus) {
  for (const id of state.order) {
    const card = cardOf(root, id);
    const place = card.querySelector("[data-place]");
    place.textContent = placeOf(state, id);
    place.classList.toggle("none", tierOf(state, id) < 0);
    card.classList.toggle("focus", id === focus);
    card.setAttribute("aria-label", `Response ${letterOf(state, id)}, ${placeOf(state, id)}`);
  }
}

// Brings the card into view and gives it the keyboard focus; a card is no control, so Enter still submits.
export function goTo(root, id) {
  const card = cardOf(root, id);
  card.focus({preventScroll: true});
  const box = card.getBoundingClientRect();
  const room = innerHeight - (parseFloat(getComputedStyle(document.documentElement).scrollPaddingBottom) || 0);
  if (box.top < 0 || box.top > room - 120) card.scrollIntoView({block: "start"});
  else if (box.bottom > room) card.scrollIntoView({block: box.height > room ? "start" : "nearest"});
}

// pick(id) is called for a click on a card that was not about a link, a control or a selection of text.
export function listenToCards(root, pick) {
  root.addEventListener("click", (event) => {
    const card = event.target.closest(".response");
    if (!card) return;
    if (event.target.closest("[data-raw]")) toggleRaw(card, event.target.closest("[data-raw]"));
    else if (event.target.closest("[data-unfold]")) unfold(card, event.target.closest("[data-unfold]"));
    else if (!event.target.closest("a, button, summary") && getSelection().isCollapsed) pick(card.dataset.id);
  });
}

function toggleRaw(card, button) {
  const raw = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(raw));
  card.querySelector(".rendered").hidden = raw;
  card.querySelector(".raw").hidden = !raw;
}

function unfold(card, button) {
  const folded = card.classList.toggle("folded");
  button.textContent = folded ? button.dataset.unfold : "Fold";
  button.setAttribute("aria-expanded", String(!folded));
  if (folded) card.scrollIntoView({block: "nearest"});
}
