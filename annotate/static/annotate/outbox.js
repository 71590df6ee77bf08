// Answers on their way, in order. Each is written down with its key first, so none is lost or made twice.

import {persist} from "../webapp/http.js";
import * as copies from "./local_copies.js";

export function openOutbox({user, url, onWait, onRefused, onExtra}) {
	let pending = 0;
	let idle = Promise.resolve();

	// The server's answer; nothing when refused, after onRefused(error, sent).
	function submit(body, draft, sent) {
		const item = {key: copies.newKey(), url, draft, body};
		copies.write("answer", user, item.key, item);
		pending += 1;
		idle = idle.then(() => resume(item.key)).then(() => deliver(item))
			.catch((error) => onRefused(error, sent)).finally(() => (pending -= 1));
		return idle;
	}

	const kept = () => copies.all("answer", user).filter((item) => item.url === url);

	// What an earlier page or a log-out left behind.
	async function resume(besides) {
		for (const item of kept()) if (item.key !== besides) await deliver(item).catch(() => {});
	}

	async function deliver({key, body, draft}) {
		try {
			const answer = await persist("POST", url, body, {headers: {"Idempotency-Key": key}, onWait});
			copies.remove("draft", user, draft);
			copies.remove("answer", user, key);
			if (!answer.ranking.counted) onExtra();
			return answer;
		} catch (error) {
			if (!error.loggedOut) copies.remove("answer", user, key); // else it waits for the log-in
			throw error;
		}
	}

	return {submit, resume, kept, pending: () => pending, idle: () => idle};
}
