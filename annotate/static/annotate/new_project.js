// Suggests a project's address from its name, until somebody writes one.

const form = document.querySelector('[data-part="new-project"]');
const {name, slug} = Object.fromEntries([...form.elements].map((one) => [one.name, one]));
let own = slug.value !== "";

const suggestion = (text) =>
	text.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").toLowerCase().replace(/[^a-z0-9_-]+/g, "-").replace(/^[-_]+|[-_]+$/g, "").slice(0, 60);

slug.addEventListener("input", () => (own = slug.value !== ""));
name.addEventListener("input", () => {
	if (!own) slug.value = suggestion(name.value);
});
