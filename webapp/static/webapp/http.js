// JSON requests of our pages.

const words = document.querySelector("meta[name=http-words]")?.dataset ?? {};

export class HttpError extends Error {
	// status 0: the server was not reached.
	constructor(status, {code = "", message = "", fields = {}, extra = {}} = {}) {
		super(message || words.answered?.replace("{status}", status));
		Object.assign(this, {status, code, fields, extra});
	}

	get passing() {
		return this.status === 0 || this.status === 429 || this.status >= 500;
	}

	get loggedOut() {
		return this.status === 401 || /CSRF/.test(this.message);
	}
}

const csrfToken = () => document.cookie.match(/(?:^|; )csrftoken=([^;]*)/)?.[1] ?? "";

// Resolves with the parsed body (null when empty), rejects with HttpError.
export async function send(method, url, body, {headers = {}, keepalive = false} = {}) {
	const request = {
		method, keepalive, body: JSON.stringify(body), signal: AbortSignal.timeout(20000),
		headers: {Accept: "application/json", "Content-Type": "application/json", "X-CSRFToken": csrfToken(), ...headers},
	};
	let answer, text;
	try {
		answer = await fetch(url, request);
		text = await answer.text();
	} catch {
		throw new HttpError(0, {message: words.unreachable});
	}
	const content = parse(text);
	if (!answer.ok) throw new HttpError(answer.status, content?.error);
	return content;
}

// Like send, but as long as it takes; onWait(error) hears of each failure.
export async function persist(method, url, body, {onWait = () => {}, ...options} = {}) {
	for (let attempt = 0; ; attempt++) {
		try {
			return await send(method, url, body, options);
		} catch (error) {
			if (!error.passing) throw error;
			onWait(error);
			await pause(Math.min(15000, 500 * 2 ** attempt) * (0.8 + 0.4 * Math.random()));
		}
	}
}

// Ends early when the network comes back.
export const pause = (milliseconds) => new Promise((done) => {
	setTimeout(done, milliseconds);
	addEventListener("online", done, {once: true});
});

function parse(text) {
	try {
		return JSON.parse(text);
	} catch {
		return null;
	}
}
