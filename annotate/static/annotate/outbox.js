// Answers on their way, in order. Each is written down with its key first, so none is lost or made twice.

import {persist} from "../webapp/http.js";
import * as copies from "./local_copies.js";

export class Outbox {
	constructor({user, url, onWait, onRefused}) {
		Object.assign(this, {user, url, onWait, onRefused, pending: 0, idle: Promise.resolve()});
	}

	// The server's answer; nothing when refused, after onRefused(error, sent).
	submit(body, task, sent) {
		const item = {key: copies.newKey(), url: this.url, task, body};
		copies.write("answer", this.user, item.key, item);
		this.pending += 1;
		const refused = async (error) => void (await this.onRefused(error, sent));
		return (this.idle = this.idle.then(() => this.deliver(item)).catch(refused).finally(() => (this.pending -= 1)));
	}

	// What an earlier page left behind; of what the server refuses the draft is still there.
	async resume() {
		for (const item of copies.all("answer", this.user)) {
			if (item.url === this.url) await this.deliver(item).catch(() => {});
		}
	}

	async deliver(item) {
		try {
			const answer = await persist("POST", item.url, item.body, {headers: {"Idempotency-Key": item.key}, onWait: this.onWait});
			copies.remove("draft", this.user, item.task);
			copies.remove("answer", this.user, item.key);
			return answer;
		} catch (error) {
			// What waits for a log-in stays written down.
			if (error.status !== 401 && error.status !== 403) copies.remove("answer", this.user, item.key);
			throw error;
		}
	}
}
