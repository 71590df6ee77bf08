// How long someone really worked on a task, and the lease that must not run out meanwhile.

const IDLE = 60_000;
const TICK = 1000;

export class Clock {
  // extend(): called every quarter of the lease, and at least each 10 minutes, while the page is in use.
  constructor({leaseSeconds, extend}) {
    this.spent = 0;
    this.lastSeen = this.lastTick = this.lastExtension = performance.now();
    const every = Math.min(leaseSeconds * 250, 600_000);
    for (const sign of ["pointermove", "pointerdown", "keydown", "wheel", "scroll", "touchmove"]) {
      addEventListener(sign, () => (this.lastSeen = performance.now()), {passive: true, capture: true});
    }
    setInterval(() => {
      const now = performance.now();
      const inUse = document.visibilityState === "visible" && now - this.lastSeen < IDLE;
      if (inUse) this.spent += now - this.lastTick;
      this.lastTick = now;
      if (inUse && now - this.lastExtension > every) {
        this.lastExtension = now;
        extend();
      }
    }, TICK);
  }

  restart() {
    this.spent = 0;
    this.lastSeen = this.lastTick = this.lastExtension = performance.now();
  }

  get seconds() {
    return Math.round(this.spent / 100) / 10;
  }
}
