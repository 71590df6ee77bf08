// What this browser keeps until the server has it, where storage is neither full nor forbidden.

const path = (kind, user, name) => `plackett/${kind}/${user}/${name}`;

function quietly(act) {
	try {
		return act();
	} catch {
		return null;
	}
}

export const read = (...where) => quietly(() => JSON.parse(localStorage.getItem(path(...where))));
export const write = (kind, user, name, value) => quietly(() => localStorage.setItem(path(kind, user, name), JSON.stringify(value)));
export const remove = (...where) => quietly(() => localStorage.removeItem(path(...where)));

export function all(kind, user) {
	const start = path(kind, user, "");
	const keys = quietly(() => Object.keys(localStorage).filter((key) => key.startsWith(start))) ?? [];
	return keys.map((key) => read(kind, user, key.slice(start.length))).filter(Boolean);
}

// randomUUID exists only behind TLS and on localhost.
export const newKey = () => crypto.getRandomValues(new Uint32Array(4)).join("-");
