// What this browser keeps until the server has it: drafts by user and task, answers on their way by user and lease.
// Storage can be full or forbidden; then work lives in the page alone, as it would without this file.

const key = (kind, user, name) => `plackett/${kind}/${user}/${name}`;

export function read(kind, user, name) {
  try {
    return JSON.parse(localStorage.getItem(key(kind, user, name)));
  } catch {
    return null;
  }
}

export function write(kind, user, name, value) {
  try {
    localStorage.setItem(key(kind, user, name), JSON.stringify(value));
  } catch { /* see above */ }
}

export function remove(kind, user, name) {
  try {
    localStorage.removeItem(key(kind, user, name));
  } catch { /* see above */ }
}

// [[name, value], …] of one kind and user.
export function all(kind, user) {
  const start = key(kind, user, "");
  try {
    const names = Object.keys(localStorage).filter((one) => one.startsWith(start)).map((one) => one.slice(start.length));
    return names.map((name) => [name, read(kind, user, name)]).filter(([, value]) => value);
  } catch {
    return [];
  }
}

// randomUUID exists only behind TLS and on localhost; a server in the next room has neither.
export function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
