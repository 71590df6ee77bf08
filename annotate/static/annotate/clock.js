// Time really worked; the lease; a word after a long stretch.

const IDLE = 60_000;
const STRETCH = 50 * 60_000;
const PAUSE = 5 * 60_000;

export function startClock({leaseSeconds, extend, tired}) {
	const every = Math.min(leaseSeconds * 250, 600_000);
	let spent = 0, stretch = 0, seen, ticked, extended;
	seen = ticked = extended = performance.now();
	for (const sign of ["pointermove", "pointerdown", "keydown", "scroll"]) {
		addEventListener(sign, () => (seen = performance.now()), {passive: true, capture: true});
	}
	setInterval(() => {
		const now = performance.now();
		const worked = now - seen < IDLE && !document.hidden ? now - ticked : 0;
		ticked = now;
		spent += worked;
		if (now - seen > PAUSE) stretch = 0;
		else if ((stretch += worked) > STRETCH) {
			stretch = 0;
			tired();
		}
		if (worked && now - extended > every) {
			extended = now;
			extend();
		}
	}, 1000);
	return {
		restart: (seconds = 0) => (spent = seconds * 1000),
		seconds: () => Math.round(spent / 100) / 10,
	};
}
