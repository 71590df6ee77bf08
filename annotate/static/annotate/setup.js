// The set-up form: says when it holds changes that are not saved, and keeps the preview of the workbench up to date.

import {Preview} from "./preview.js";

const form = document.querySelector('[data-part="form"]');
const status = document.querySelector('[data-part="status"]');
const preview = new Preview(document.querySelector('[data-part="preview"]'), form, (answer) => {
  status.textContent = answer.status;
});

let dirty = Boolean(document.querySelector("[data-unsaved]"));
const edited = () => {
  dirty = true;
  preview.update();
};

form.addEventListener("input", edited);
document.addEventListener("htmx:afterSettle", edited); // a row was added, moved or removed
document.addEventListener("submit", () => (dirty = false));
addEventListener("beforeunload", (event) => dirty && event.preventDefault());
preview.update({now: true});
