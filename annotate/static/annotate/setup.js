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
document.addEventListener("submit", () => (dirty = false));
addEventListener("beforeunload", (event) => dirty && event.preventDefault());
form.elements.guidelines.addEventListener("input", () => (part("preview-guidelines").open = true));
preview.update({now: true});
