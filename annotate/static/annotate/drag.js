// Dragging chips. Only a chip starts it, so scrolling never moves anything.

const THRESHOLD = 6;

// drop(id, target): "pool", "tier:N", "gap:N" or nothing; it redraws the rail, so that no click follows.
export function enableDrag(rail, {drop, locked}) {
	let drag = null;
	const mine = (event) => drag && event.pointerId === drag.pointer;

	rail.addEventListener("pointerdown", (event) => {
		const chip = event.target.closest(".chip");
		if (!chip || event.button !== 0 || drag || locked()) return;
		drag = {chip, pointer: event.pointerId, x: event.clientX, y: event.clientY, ghost: null, target: null};
		chip.setPointerCapture(event.pointerId);
	});

	rail.addEventListener("pointermove", (event) => {
		if (!mine(event)) return;
		const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
		if (!drag.ghost && Math.hypot(dx, dy) < THRESHOLD) return;
		drag.ghost ??= makeGhost(drag.chip);
		drag.ghost.style.transform = `translate(${dx}px, ${dy}px)`;
		drag.target?.classList.remove("over");
		drag.target = targetAt(rail, event.clientX, event.clientY);
		drag.target?.classList.add("over");
		drag.target?.scrollIntoView({block: "nearest", inline: "nearest"});
	});

	rail.addEventListener("pointerup", (event) => {
		if (!mine(event)) return;
		const {chip, target, ghost} = drag;
		end();
		if (ghost) drop(chip.dataset.id, target?.dataset.drop);
	});
	for (const sign of ["pointercancel", "lostpointercapture"]) rail.addEventListener(sign, end);

	function end() {
		drag?.target?.classList.remove("over");
		drag?.ghost?.remove();
		drag?.chip.classList.remove("lifted");
		drag = null;
	}
}

function makeGhost(chip) {
	const {left, top, width, height} = chip.getBoundingClientRect();
	const ghost = chip.cloneNode(true);
	ghost.className += " ghost";
	ghost.removeAttribute("data-key");
	ghost.setAttribute("aria-hidden", "true");
	Object.assign(ghost.style, {left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px`});
	document.body.append(ghost);
	chip.classList.add("lifted");
	return ghost;
}

// The outer quarter of a tier belongs to the gap on that side.
function targetAt(rail, x, y) {
	const hit = document.elementFromPoint(x, y)?.closest("[data-drop]");
	if (!hit || !rail.contains(hit)) return null;
	const [kind, index] = hit.dataset.drop.split(":");
	const box = hit.getBoundingClientRect();
	const sideways = getComputedStyle(rail).flexDirection === "row";
	const share = sideways ? (x - box.left) / box.width : (y - box.top) / box.height;
	const gap = kind !== "tier" ? null : share < 0.22 ? index : share > 0.78 ? Number(index) + 1 : null;
	return (gap !== null && rail.querySelector(`[data-drop="gap:${gap}"]`)) || hit;
}
