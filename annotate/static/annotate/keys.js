// Keys: silent while someone types, in dialogs, and with Ctrl, Alt or Meta.

const CONTROLS = "a, button, select, textarea, summary"; // Enter means nothing to a scale
const TYPING = "input:not([type=radio], [type=checkbox]), select, textarea";

// An action returns false when it had nothing to do: the key keeps its usual meaning.
export function listenForKeys({actions, singleKeys}) {
	document.addEventListener("keydown", (event) => {
		if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
		if (document.querySelector("dialog[open]") || event.target.closest?.(TYPING)) return;
		const [name, ...values] = meaning(event, singleKeys()) ?? [];
		if (actions[name] && actions[name](...values) !== false) event.preventDefault();
	});
}

function meaning({key, shiftKey, target}, singleKeys) {
	if (key === "Enter") return shiftKey || target.closest?.(CONTROLS) ? null : ["submit"];
	// With single keys off, arrows still work on a focused chip.
	if (!singleKeys && !target.closest?.(".chip")) return null;
	const arrow = {ArrowUp: ["half", -1], ArrowDown: ["half", 1], ArrowLeft: ["move", -1], ArrowRight: ["move", 1]}[key];
	if (arrow) return shiftKey || target.matches("input, [tabindex='0']") ? null : arrow;
	if (!singleKeys) return null;
	if (key === "?") return ["help"];
	// Before shift, with which some keyboards type digits.
	if (/^\d$/.test(key)) return key === "0" ? ["unrank"] : ["place", key - 1];
	if (shiftKey) return [{U: "redo", G: "guidelines", B: "back", D: "compare", E: "rewrite"}[key.toUpperCase()]];
	return /^[a-i]$/i.test(key) ? ["focus", parseInt(key, 19) - 10] : [{u: "undo", r: "judge"}[key.toLowerCase()]];
}
