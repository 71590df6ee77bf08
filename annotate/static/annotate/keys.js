// Keys of the ranking page. Silent while someone types, in dialogs, and with Ctrl, Alt or Meta.

const CONTROLS = "a, button, input, select, textarea, summary, [role=button], [contenteditable]";
const TYPING = "input, select, textarea, [contenteditable]";

// actions: focus(index), place(index), unrank(), half(direction), move(direction), submit(), undo(), redo(), guidelines(),
// help() – each returns false when it had nothing to do, and the key keeps its usual meaning.
export function listenForKeys({actions, singleKeys}) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    if (document.querySelector("dialog[open]") || event.target.closest?.(TYPING)) return;
    const act = meaning(event, actions, singleKeys());
    if (act && act() !== false) event.preventDefault();
  });
}

function meaning(event, actions, singleKeys) {
  const {key, shiftKey, target} = event;
  if (key === "Enter") return shiftKey || target.closest?.(CONTROLS) ? null : actions.submit;
  // With single keys off, arrows still work on a chip that has the focus, as in any widget.
  if (!singleKeys && !target.closest?.(".chip")) return null;
  const arrow = {ArrowUp: [actions.half, -1], ArrowDown: [actions.half, 1], ArrowLeft: [actions.move, -1], ArrowRight: [actions.move, 1]}[key];
  if (arrow && !shiftKey) return () => arrow[0](arrow[1]);
  if (!singleKeys) return null;
  if (key === "?") return actions.help;
  // Before shift: some keyboards type digits with it.
  if (key === "0") return actions.unrank;
  if (/^[1-9]$/.test(key)) return () => actions.place(Number(key) - 1);
  if (shiftKey) return {U: actions.redo, G: actions.guidelines}[key.toUpperCase()];
  if (key.toLowerCase() === "u") return actions.undo;
  const index = key.length === 1 ? key.toLowerCase().charCodeAt(0) - 97 : -1;
  return index >= 0 && index < 9 ? () => actions.focus(index) : null;
}
