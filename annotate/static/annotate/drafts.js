// One task's draft: here at once, on the server within a second.

import {send} from "../webapp/http.js";
import * as copies from "./local_copies.js";

const SETTLE = 400;

// hooks: state(word), conflict(theirs, mine) → Promise<"theirs" or not>, adopt(body), gone(error)
export function keepDraft(task, {user, url}, hooks) {
	const where = ["draft", user, `${task.task}/${task.revises ?? ""}`];
	const sent = new Set(); // stamps: whose draft the server has
	let body = null; // not saved yet
	let tries = 0;
	let closed, sending, timer;
	addEventListener("online", save);

	// The server's body, or this browser's own that was never sent.
	async function open() {
		const local = copies.read(...where);
		const theirs = task.draft;
		if (local && local.body.stamp !== theirs?.body.stamp) {
			const follows = !theirs || local.version === theirs.version;
			if (follows || (await hooks.conflict(theirs.body, local.body)) !== "theirs") {
				change(local.body);
				return local.body;
			}
		}
		copies.remove(...where);
		return theirs?.body ?? null;
	}

	function change(changed) {
		body = {...changed, stamp: copies.newKey()};
		copies.write(...where, {url, version: task.draft?.version ?? 0, body});
		hooks.state("saving");
		if (tries) timer = clearTimeout(timer);
		tries = 0;
		schedule(SETTLE);
	}

	// Further changes do not put it off.
	const schedule = (wait) => (timer ??= setTimeout(save, wait));

	async function save() {
		timer = clearTimeout(timer);
		if (closed || !body || sending) return;
		sending = true;
		const now = body;
		sent.add(now.stamp);
		try {
			const keepalive = new Blob([JSON.stringify(now)]).size < 60000;
			const {version} = await send("PUT", url, {version: task.draft?.version ?? 0, body: now}, {keepalive});
			task.draft = {version, body: now};
			tries = 0;
			if (body === now) done();
		} catch (error) {
			if (!closed) await failed(error);
		}
		sending = false;
		if (body && !tries) schedule(0);
	}

	function done() {
		body = null;
		copies.remove(...where);
		if (!closed) hooks.state("saved");
	}

	async function failed(error) {
		if (error.passing) {
			hooks.state(error.status ? "waiting" : "offline");
			return schedule(Math.min(15000, 500 * 2 ** tries++));
		}
		tries = 1;
		if (error.code !== "stale_draft") return hooks.gone(error);
		tries = 0;
		const theirs = (task.draft = error.extra.draft);
		const stamp = theirs?.body.stamp;
		if (stamp === body.stamp) return done();
		if (!theirs || sent.has(stamp) || (await hooks.conflict(theirs.body, body)) !== "theirs") return;
		done();
		if (!closed) hooks.adopt(theirs.body);
	}

	function close() {
		closed = true;
		clearTimeout(timer);
		removeEventListener("online", save);
	}

	function forget() {
		close();
		copies.remove(...where);
	}

	return {open, change, save, close, forget, dirty: () => body !== null};
}

// Drafts of tasks that are not at hand: the server brings them back.
export async function handOver(user, tasks) {
	const lost = copies.all("draft", user).filter(({url}) => !tasks.some(({lease}) => url.includes(lease)));
	for (const {url, ...draft} of lost) await send("PUT", url, draft).catch(() => {});
	return lost.length;
}
