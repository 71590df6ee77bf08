// Dragging a chip with the pointer. Only chips start it, so scrolling the page never moves anything.

const THRESHOLD = 6;
const EDGE = 28;

// drop(id, target): target is "pool", "tier:N" or "gap:N".
export function enableDrag(rail, {drop, locked}) {
  let drag = null;

  rail.addEventListener("pointerdown", (event) => {
    const chip = event.target.closest(".chip");
    if (!chip || event.button !== 0 || drag || locked()) return;
    drag = {chip, id: chip.dataset.id, pointer: event.pointerId, x: event.clientX, y: event.clientY, ghost: null, target: null};
    chip.setPointerCapture(event.pointerId);
  });

  rail.addEventListener("pointermove", (event) => {
    if (!drag || event.pointerId !== drag.pointer) return;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (!drag.ghost && Math.hypot(dx, dy) < THRESHOLD) return;
    drag.ghost ??= makeGhost(drag.chip);
    drag.ghost.style.transform = `translate(${dx}px, ${dy}px)`;
    scrollNearEdge(rail, event);
    mark(targetAt(rail, event.clientX, event.clientY));
  });

  rail.addEventListener("pointerup", (event) => {
    if (!drag || event.pointerId !== drag.pointer) return;
    const {id, target, ghost} = drag;
    end();
    if (!ghost) return;
    swallowClick(rail);
    if (target) drop(id, target.dataset.drop);
  });
  for (const sign of ["pointercancel", "lostpointercapture"]) rail.addEventListener(sign, end);
  document.addEventListener("keydown", (event) => event.key === "Escape" && end());

  function mark(target) {
    if (drag.target === target) return;
    drag.target?.classList.remove("over");
    target?.classList.add("over");
    drag.target = target;
  }

  function end() {
    if (!drag) return;
    drag.target?.classList.remove("over");
    drag.ghost?.remove();
    drag.chip.classList.remove("lifted");
    drag = null;
  }
}

function makeGhost(chip) {
  const box = chip.getBoundingClientRect();
  const ghost = chip.cloneNode(true);
  ghost.classList.add("ghost");
  ghost.removeAttribute("data-key");
  ghost.setAttribute("aria-hidden", "true");
  Object.assign(ghost.style, {left: `${box.left}px`, top: `${box.top}px`, width: `${box.width}px`, height: `${box.height}px`});
  document.body.append(ghost);
  chip.classList.add("lifted");
  return ghost;
}

// The middle of a tier is the tier; its outer quarter belongs to the gap on that side.
function targetAt(rail, x, y) {
  const hit = document.elementFromPoint(x, y)?.closest("[data-drop]");
  if (!hit || !rail.contains(hit) || !hit.dataset.drop.startsWith("tier:")) return hit && rail.contains(hit) ? hit : null;
  const box = hit.getBoundingClientRect();
  const sideways = getComputedStyle(rail).flexDirection === "row";
  const share = sideways ? (x - box.left) / box.width : (y - box.top) / box.height;
  const index = Number(hit.dataset.drop.slice(5));
  const gap = share < 0.22 ? index : share > 0.78 ? index + 1 : null;
  return (gap !== null && rail.querySelector(`[data-drop="gap:${gap}"]`)) || hit;
}

function scrollNearEdge(rail, {clientX, clientY}) {
  const box = rail.getBoundingClientRect();
  const push = (at, low, high) => (at < low + EDGE ? -8 : at > high - EDGE ? 8 : 0);
  rail.scrollBy(push(clientX, box.left, box.right), push(clientY, box.top, box.bottom));
}

// The click that follows a drag would pick the chip.
function swallowClick(rail) {
  const swallow = (event) => event.stopPropagation();
  rail.addEventListener("click", swallow, {capture: true, once: true});
  setTimeout(() => rail.removeEventListener("click", swallow, {capture: true}), 0);
}
