// The ranking page: fetches tasks, sends answers, says what can go wrong.

import {persist, send} from "../webapp/http.js";
import {cardOf} from "./cards.js";
import {Clock} from "./clock.js";
import {DraftKeeper} from "./drafts.js";
import {Outbox} from "./outbox.js";
import {ask, open, part} from "./parts.js";
import {Ranker} from "./ranker.js";
import {fill, fromDraft, letterOf, sentence, toAnswer, toDraft} from "./ranking_state.js";

const page = document.getElementById("workbench");
const {user, pageUrl, leaseUrl} = page.dataset;
const [guidelines, leaseSeconds] = [page.dataset.guidelines, page.dataset.leaseSeconds].map(Number);
const words = JSON.parse(page.dataset.words);

let tasks = []; // to rank: the present one, the prefetched one
let task = null; // on the page: the first of them, or an earlier one
let drafts = null;
const finished = new Set(); // leases that a late reply may still bring

const onWait = ({status}) => say(status ? "waiting" : "offline");
const outbox = new Outbox({user, url: `${pageUrl}submit/`, onWait, onRefused: stuck});
const clock = new Clock({leaseSeconds, extend: () => tasks.forEach(extend), tired: () => part("pause")?.showPopover()});
const ranker = new Ranker({
	words,
	shortcuts: () => part("shortcuts").checked,
	onChange: (state) => drafts.change(draftOf(state)),
	actions: {
		submit, back, compare, rewrite,
		skip: async () => (await leave("skip")) ?? drop(),
		flag: async () => (await leave("flag")) ?? ask("notice", {title: words.flagged, text: words.flaggedText}),
		leave: () => void show(),
		again: () => void advance(),
		help: () => void open("help"),
		guidelines: () => void readGuidelines(),
	},
});

function receive({tasks: leased, progress, guidelines: news, closed = false}) {
	tasks = leased.map((one) => tasks.find(({lease}) => lease === one.lease) ?? one).filter(({lease}) => !finished.has(lease));
	page.dataset.closed = closed;
	part("progress").textContent = progress.words;
	Object.assign(part("progress-bar"), {max: progress.wanted || 1, value: progress.done});
	if (news.version !== guidelines) location.reload(); // the page comes with the new ones
}

async function fetchTasks() {
	const have = tasks.map(({lease}) => lease);
	try {
		receive(await persist("POST", `${pageUrl}next/`, {have, guidelines}, {onWait}));
	} catch (error) {
		if (error.code === "project_closed") page.dataset.closed = true;
		else await stuck(error);
	}
}

async function advance() {
	if (!tasks.length) await fetchTasks();
	await show();
}

async function show(next = tasks[0] ?? null) {
	drafts?.close();
	task = next;
	ranker.busy = false;
	page.dataset.view = task ? "task" : "done";
	page.dataset.revising = Boolean(task?.revises);
	if (!task) {
		drafts = ranker.history = null;
		settled();
		return part("done").focus();
	}
	drafts = new DraftKeeper(
		{user, task: task.task, url: `${leaseUrl}${task.lease}/draft/`, draft: task.draft},
		{state: say, conflict, adopt: (body) => ranker.adopt(body), gone: stuck},
	);
	const draft = (await drafts.open(task.draft)) ?? task.answer;
	clock.restart(draft?.seconds);
	ranker.show(task, draft);
	settled();
	scrollTo(0, 0);
	part("task").focus({preventScroll: true});
}

const draftOf = (state) => ({...toDraft(state), seconds: clock.seconds, revises: task.revises});

const extend = ({lease}) => send("POST", `${leaseUrl}${lease}/extend/`, {}).catch(({code}) => code === "lease_ended" && hint(words.leaseEnded));

// The prefetched task appears at once.
async function submit() {
	if (ranker.busy || !task) return;
	if (ranker.problem) return hint(ranker.problem);
	const {lease, task: id, revises} = task;
	tasks = tasks.filter((one) => one.lease !== lease);
	finished.add(lease);
	drafts.close();
	const body = {
		...toAnswer(ranker.now), ...(revises ? {revises} : {lease}),
		seconds: clock.seconds, have: tasks.map((one) => one.lease), guidelines,
	};
	const delivery = outbox.submit(body, id, {...task, draft: null, answer: draftOf(ranker.now)});
	settled();
	tell(words.submitted);
	if (tasks.length) await show();
	else {
		ranker.busy = true;
		ranker.draw();
	}
	const answer = await delivery;
	if (answer) receive(answer);
	if (ranker.busy && !outbox.pending) await (answer ? show() : advance());
	else settled();
}

async function back() {
	await outbox.idle;
	try {
		const {task: earlier} = await send("POST", `${pageUrl}back/`, {before: task?.revises ?? null});
		if (earlier) await show(earlier);
		else tell(words.noEarlier);
	} catch (error) {
		await stuck(error);
	}
}

// Done with it, without an answer.
async function drop() {
	finished.add(task.lease);
	drafts.forget();
	tasks = tasks.filter(({lease}) => !finished.has(lease));
	await advance();
	await fetchTasks();
}

async function conflict(theirs, mine) {
	const said = (body) => sentence(fromDraft(task.order, body, task.rules), words) || words.nothing;
	return ask("conflict", {mine: said(mine), theirs: said(theirs)});
}

// What no patience mends. `sent`: an answer on its way was refused, and becomes a draft again.
async function stuck(error, sent) {
	if (!sent) say("lost");
	if (error.status === 401 || /CSRF/.test(error.message)) return void ask("logged-out");
	if (error.code === "already_submitted") {
		await ask("notice", {title: words.already, text: words.alreadyText});
		return sent || drop();
	}
	const message = [error.message, ...Object.values(error.fields)].join(" ");
	await ask("notice", {title: words.refused, text: fill(sent ? words.backToIt : words.kept, {message})});
	if (!sent) return;
	finished.delete(sent.lease);
	if (!sent.revises) tasks = [sent, ...tasks];
	await show(sent);
	drafts.change(draftOf(ranker.now));
}

// For ears only trouble and its end: each key press is announced already.
function say(state) {
	const shown = part("save-state");
	const before = shown.dataset.state;
	if (state !== before && /offline|waiting|lost/.test(state + before)) part("alerts").textContent = words.states[state];
	shown.textContent = words.states[state];
	shown.dataset.state = state;
}

const settled = () => say(outbox.pending ? "sending" : drafts?.dirty ? "saving" : "saved");
const tell = (text) => void (part("live").textContent = text);
const hint = (text) => tell((part("hint").textContent = text));

// The dialog's form, sent to the address of the same name; false if nothing came of it.
async function leave(name) {
	if (!task || ranker.busy) return false;
	const form = document.querySelector(`#${name} form`);
	form.reset();
	if ((await ask(name)) !== "send") return false;
	try {
		await send("POST", `${leaseUrl}${task.lease}/${name}/`, Object.fromEntries(new FormData(form)));
	} catch (error) {
		await stuck(error);
		return false;
	}
}


async function readGuidelines() {
	if ((await ask("guidelines")) !== "read") return;
	part("read").hidden = true;
	send("POST", `${pageUrl}read/`, {version: guidelines}).catch(() => {});
}

function compare() {
	if (!task) return;
	htmx.ajax("GET", `${pageUrl}difference/?lease=${task.lease}&a=${ranker.focus ?? ""}`, {target: "#difference", swap: "innerHTML"});
	open("compare");
}

// An emptied or unchanged text is no edited version.
async function rewrite() {
	const {now, focus} = ranker;
	const best = now?.tiers[0] ?? [];
	const of = now?.rewrite?.of ?? (best.includes(focus) ? focus : best[0]);
	if (!of || !task.rules.rewrite) return;
	const text = part("rewrite");
	const original = cardOf(of).querySelector(".raw").textContent;
	const keep = (edited) => {
		const said = edited.trim() && edited !== original;
		ranker.apply({...ranker.now, rewrite: said ? {of, text: edited} : null}, "rewrite");
	};
	text.value = now.rewrite?.text ?? original;
	text.oninput = () => keep(text.value);
	if ((await ask("rewrite", {title: fill(words.rewriteOf, {letter: letterOf(now, of)})})) === "discard") keep("");
}

// Logging out waits for what is not saved yet.
document.querySelector('form[action$="/logout/"]').addEventListener("submit", async (event) => {
	event.preventDefault();
	const saved = Promise.all([outbox.idle, drafts?.save()]);
	await Promise.race([saved, new Promise((done) => setTimeout(done, 3000))]);
	event.target.submit();
});

await outbox.resume();
await advance();
if (page.dataset.unread) readGuidelines();
