// Pieces of the page, and its dialogs.

export const part = (name) => document.querySelector(`[data-part="${name}"]`);

let asked = Promise.resolve();

// The value of the button that closed it, "" for Escape. One question at a time.
export const ask = (id, texts = {}) => (asked = asked.then(() => {
	const dialog = document.getElementById(id);
	dialog.returnValue = "";
	dialog.showModal();
	for (const [name, text] of Object.entries(texts)) dialog.querySelector(`[data-text="${name}"]`).textContent = text;
	// Opened again at once, it hears of its last closing late.
	return new Promise((done) => (dialog.onclose = () => dialog.open || done(dialog.returnValue)));
}));
