// Time really worked; extending the lease; a word after a long stretch.

const IDLE = 60_000;
const STRETCH = 50 * 60_000;
const PAUSE = 5 * 60_000; // ends a stretch

export class Clock {
	constructor({leaseSeconds, extend, tired}) {
		const every = Math.min(leaseSeconds * 250, 600_000);
		this.lastTick = this.lastExtension = performance.now();
		this.stretch = 0;
		this.restart();
		for (const sign of ["pointermove", "pointerdown", "keydown", "scroll"]) {
			addEventListener(sign, () => (this.lastSeen = performance.now()), {passive: true, capture: true});
		}
		setInterval(() => {
			const now = performance.now();
			const idle = now - this.lastSeen;
			const worked = idle < IDLE && !document.hidden ? now - this.lastTick : 0;
			this.lastTick = now;
			this.spent += worked;
			if (idle > PAUSE) this.stretch = 0;
			else if ((this.stretch += worked) > STRETCH) {
				this.stretch = 0;
				tired();
			}
			if (worked && now - this.lastExtension > every) {
				this.lastExtension = now;
				extend();
			}
		}, 1000);
	}

	restart(seconds = 0) {
		this.spent = seconds * 1000;
		this.lastSeen = performance.now();
	}

	get seconds() {
		return Math.round(this.spent / 100) / 10;
	}
}
