// The set-up form: says when it holds changes that are not saved, and keeps the preview of the workbench up to date.

import {part} from "./parts.js";
import {Preview} from "./preview.js";

const form = part("form");
const preview = new Preview(part("preview"), form, ({status}) => {
	if (part("status").textContent !== status) part("status").textContent = status;
});

let dirty = "unsaved" in form.dataset;
const edited = () => {
	dirty = true;
	preview.update();
};

form.addEventListener("input", edited);
document.addEventListener("htmx:afterSettle", edited); // a row was added, moved or removed

// Requests that add, move or remove a row. The form waits for them: sent at once, it would carry the rows as they were.
const rows = new Set();
let waiting = null;
const ended = ({detail}, changed) => {
	rows.delete(detail.xhr);
	if (!changed) waiting = null; // what was asked for did not happen, which somebody should see before they go on
	if (!waiting || rows.size) return;
	const button = waiting;
	waiting = null;
	form.requestSubmit(button);
};
document.addEventListener("htmx:beforeRequest", ({detail}) => form.contains(detail.elt) && rows.add(detail.xhr));
document.addEventListener("htmx:afterSettle", (event) => ended(event, true));
document.addEventListener("htmx:afterRequest", (event) => event.detail.successful || ended(event, false));
form.addEventListener("submit", (event) => {
	if (!rows.size) return (dirty = false);
	event.preventDefault();
	waiting = event.submitter;
});
addEventListener("beforeunload", (event) => dirty && event.preventDefault());
form.elements.guidelines.addEventListener("input", () => (part("preview-guidelines").open = true));
preview.update({now: true});
