// One task's draft: at once here, within a second on the server.

import {send} from "../webapp/http.js";
import * as copies from "./local_copies.js";

const SETTLE = 400;

export class DraftKeeper {
	// hooks: state(word), conflict(theirs, mine) → Promise<"theirs" or not>, adopt(body), gone(error)
	constructor({user, task, url, draft}, hooks) {
		Object.assign(this, {where: ["draft", user, task], url, hooks, version: draft?.version ?? 0, body: null, tries: 0});
		this.wake = () => this.save();
		addEventListener("online", this.wake);
	}

	// The server's body, or this browser's own that was never sent.
	async open(draft) {
		const local = copies.read(...this.where);
		if (local && local.body.stamp !== draft?.body.stamp) {
			const follows = !draft || local.version === this.version;
			if (follows || (await this.hooks.conflict(draft.body, local.body)) !== "theirs") {
				this.change(local.body);
				return local.body;
			}
		}
		copies.remove(...this.where);
		return draft?.body ?? null;
	}

	get dirty() {
		return this.body !== null;
	}

	// The stamp tells whether two drafts are one.
	change(body) {
		this.body = {...body, stamp: copies.newKey()};
		copies.write(...this.where, {version: this.version, body: this.body});
		this.hooks.state("saving");
		this.tries = 0;
		this.schedule(SETTLE);
	}

	schedule(wait) {
		clearTimeout(this.timer);
		this.timer = setTimeout(this.wake, wait);
	}

	async save() {
		if (this.closed || !this.dirty || this.sending) return;
		clearTimeout(this.timer);
		this.sending = true;
		const {body} = this;
		try {
			const {version} = await send("PUT", this.url, {version: this.version, body}, {keepalive: JSON.stringify(body).length < 50000});
			this.version = version;
			this.tries = 0;
			if (this.body === body) this.done();
		} catch (error) {
			if (!this.closed) await this.failed(error);
		}
		this.sending = false;
		if (this.dirty && !this.tries) this.schedule(0);
	}

	done() {
		this.body = null;
		copies.remove(...this.where);
		this.hooks.state("saved");
	}

	async failed(error) {
		const theirs = error.extra.draft;
		if (error.passing) {
			this.hooks.state(error.status ? "waiting" : "offline");
			this.schedule(Math.min(15000, 500 * 2 ** this.tries++));
		} else if (error.code !== "stale_draft") {
			this.tries = 1;
			this.hooks.gone(error);
		} else {
			this.tries = 0;
			this.version = theirs?.version ?? 0;
			if (!theirs) return;
			const same = theirs.body.stamp === this.body.stamp;
			if (!same && (await this.hooks.conflict(theirs.body, this.body)) !== "theirs") return;
			this.done();
			if (!same) this.hooks.adopt(theirs.body);
		}
	}

	close() {
		this.closed = true;
		clearTimeout(this.timer);
		removeEventListener("online", this.wake);
	}

	forget() {
		this.close();
		copies.remove(...this.where);
	}
}
