// Keeps one task's draft: at once in this browser, within a second on the server, never losing a change on the way.

import {send} from "../webapp/http.js";
import * as copies from "./local_copies.js";

const SETTLE = 400;

export class DraftKeeper {
  // hooks: state(word), conflict(theirs) → Promise<"mine" | "theirs">, adopt(body), gone(error)
  constructor({user, lease, task, url, draft}, hooks) {
    Object.assign(this, {user, lease, task, url, hooks, version: draft?.version ?? 0, body: null, tries: 0});
    this.wake = () => this.dirty && this.save();
    addEventListener("online", this.wake);
  }

  // The body to start from: the server's, or this browser's own copy when that was never sent.
  async open(draft) {
    const local = copies.read("draft", this.user, this.task);
    if (!local || same(local.body, draft?.body)) {
      copies.remove("draft", this.user, this.task);
      return draft?.body ?? null;
    }
    const follows = !draft || local.version === this.version;
    if (follows || (await this.hooks.conflict(draft.body, local.body)) === "mine") {
      this.change(local.body);
      return local.body;
    }
    copies.remove("draft", this.user, this.task);
    return draft.body;
  }

  get dirty() {
    return this.body !== null;
  }

  change(body) {
    this.body = body;
    copies.write("draft", this.user, this.task, {version: this.version, body, lease: this.lease});
    this.hooks.state("saving");
    this.tries = 0;
    this.schedule(SETTLE);
  }

  schedule(wait) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), wait);
  }

  async save() {
    if (this.closed || !this.dirty || this.sending) return;
    clearTimeout(this.timer);
    this.sending = true;
    const body = this.body;
    try {
      const saved = await send("PUT", this.url, {version: this.version, body}, {keepalive: JSON.stringify(body).length < 50000});
      this.version = saved.version;
      this.tries = 0;
      if (this.body === body) this.done();
    } catch (error) {
      await this.failed(error);
    }
    this.sending = false;
    if (this.dirty && !this.closed && !this.tries) this.schedule(0);
  }

  done() {
    this.body = null;
    copies.remove("draft", this.user, this.task);
    this.hooks.state("saved");
  }

  async failed(error) {
    if (this.closed) return;
    if (error.passing) {
      this.hooks.state(error.status === 0 ? "offline" : "waiting");
      this.schedule(Math.min(15000, 500 * 2 ** this.tries++));
    } else if (error.code === "stale_draft" && error.extra.draft) {
      const theirs = error.extra.draft;
      this.version = theirs.version;
      if (same(theirs.body, this.body)) return this.done();
      if ((await this.hooks.conflict(theirs.body, this.body)) === "mine") return;
      this.done();
      this.hooks.adopt(theirs.body);
    } else if (error.code === "stale_draft") {
      this.version = 0;
    } else {
      this.tries = 1;
      this.hooks.gone(error);
    }
  }

  // No more saving here: the answer is on its way, or the task is gone. The copy in this browser stays until forget().
  close() {
    this.closed = true;
    clearTimeout(this.timer);
    removeEventListener("online", this.wake);
  }

  forget() {
    this.close();
    copies.remove("draft", this.user, this.task);
  }
}

const same = (one, two) => JSON.stringify(sorted(one)) === JSON.stringify(sorted(two));

// Postgres gives the keys of an object back in its own order.
function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (!value || typeof value !== "object") return value ?? null;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])]));
}
