// Going through rankings one by one: a accepts, r begins a note, n goes on. Silent while one types; Esc leaves the note.

const form = document.getElementById("review");
const note = form?.elements.note;
const acts = {
	a: () => form.querySelector("[value=accepted]").click(),
	r: () => note.focus(),
	n: () => form.querySelector("a").click(),
};

note?.addEventListener("keydown", (event) => {
	if (event.key === "Escape") note.blur();
	if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.querySelector("[value=returned]").click();
});

document.addEventListener("keydown", (event) => {
	if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey || event.isComposing || event.repeat) return;
	const act = form?.dataset.keys && !event.target.closest?.("input, select, textarea") && acts[event.key];
	if (!act) return;
	event.preventDefault();
	act();
});
