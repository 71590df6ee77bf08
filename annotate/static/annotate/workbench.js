// The ranking page: fetches tasks, sends answers, tells of trouble.

import {pause, persist, send} from "../webapp/http.js";
import {cardOf} from "./cards.js";
import {startClock} from "./clock.js";
import {handOver, keepDraft} from "./drafts.js";
import {openOutbox} from "./outbox.js";
import {ask, part} from "./parts.js";
import {startRanker} from "./ranker.js";
import {fill, fromDraft, letterOf, sentence, toAnswer, toDraft} from "./ranking_state.js";

const page = document.getElementById("workbench");
const {user, pageUrl, leaseUrl, leaseSeconds, again} = page.dataset;
const guidelines = Number(page.dataset.guidelines);
const words = JSON.parse(page.dataset.words);

let tasks = []; // to rank: the present one, the prefetched one
let task; // on the page: the first or an earlier one
let drafts;
const finished = new Set(); // leases that a late reply may still bring

const onWait = ({status}) => say(status ? "waiting" : "offline");
const outbox = openOutbox({user, url: `${pageUrl}submit/`, onWait, onRefused: stuck, onExtra: () => part("extra").showPopover()});
const clock = startClock({leaseSeconds, extend: () => tasks.forEach(extend), tired: () => part("pause")?.showPopover()});
const ranker = startRanker({
	words,
	shortcuts: () => part("shortcuts").checked,
	onChange: (state) => drafts.change(draftOf(state)),
	actions: {
		submit, back, compare, rewrite, again: advance, guidelines: readGuidelines,
		skip: () => leave("skip", drop),
		flag: () => leave("flag", () => ask("notice", words.flagged)),
		leave: () => show(),
		help: () => ask("help"),
	},
});

function receive({tasks: leased, progress, guidelines: news, closed = false}) {
	const whole = (one) => tasks.find(({lease}) => lease === one.lease) ?? one;
	tasks = [...tasks.filter(({expired}) => expired), ...leased.map(whole)].filter(({lease}) => !finished.has(lease));
	page.dataset.closed = closed;
	part("progress").textContent = progress.words;
	Object.assign(part("progress-bar"), {max: progress.wanted || 1, value: progress.done});
	if (news.version !== guidelines && !news.read) location.reload(); // they come with the page
}

const known = () => ({have: tasks.map(({lease}) => lease), guidelines});

const fetchTasks = () => persist("POST", `${pageUrl}next/`, known(), {onWait}).then(receive, stuck);

async function advance() {
	if (!tasks.length) await fetchTasks();
	await show();
}

async function show(next = tasks[0] ?? null) {
	drafts?.close();
	task = next;
	page.dataset.view = task ? "task" : "done";
	page.dataset.revising = Boolean(task?.revises);
	if (!task) {
		drafts = null;
		ranker.show(null);
		settled();
		return part("done").focus();
	}
	const hooks = {state: say, conflict, adopt: ranker.adopt, gone: stuck};
	drafts = keepDraft(task, {user, url: `${leaseUrl}${task.lease}/draft/`}, hooks);
	const draft = (await drafts.open()) ?? task.answer;
	clock.restart(draft?.seconds);
	ranker.show(task, draft);
	settled();
	scrollTo(0, 0);
	part("task").focus({preventScroll: true});
}

const keptTask = () => ({...task, draft: null, kept: true, answer: draftOf(ranker.now())});
const draftOf = (state) => ({...toDraft(state), seconds: clock.seconds(), revises: task.revises});

const extend = ({lease}) => send("POST", `${leaseUrl}${lease}/extend/`, {}).catch(({code}) => code === "lease_ended" && hint(words.leaseEnded));

async function submit() {
	if (ranker.busy() || !task) return;
	const missing = ranker.problem();
	if (missing) return hint(missing);
	const {lease, task: id, revises} = task;
	finish(lease);
	drafts.close();
	const body = {...toAnswer(ranker.now()), ...(revises ? {revises} : {lease}), seconds: clock.seconds(), ...known()};
	const delivery = outbox.submit(body, `${id}/${revises ?? ""}`, keptTask());
	settled();
	tell(words.submitted);
	if (tasks.length) await show();
	else ranker.lock();
	const answer = await delivery;
	if (answer) receive(answer);
	if (ranker.busy() && !outbox.pending()) await (answer ? show() : advance());
	else settled();
}

function finish(lease) {
	finished.add(lease);
	tasks = tasks.filter((one) => one.lease !== lease);
}

async function back(ranking) {
	await outbox.idle();
	const shown = ({task: earlier}) => (earlier ? show(earlier) : ask("notice", words.noEarlier));
	await send("POST", `${pageUrl}back/`, {before: task?.revises, ranking}).then(shown, stuck);
}

async function drop() {
	finish(task.lease);
	drafts.forget();
	await advance();
	await fetchTasks();
}

function conflict(theirs, mine) {
	const said = (body) => sentence(fromDraft(task.order, body, task.rules), words) || words.nothing;
	return ask("conflict", {mine: said(mine), theirs: said(theirs)});
}

// What no patience mends. `sent`: a refused answer, a draft again; a revision if the task is ranked.
async function stuck(error, sent) {
	say("lost");
	for (const dialog of document.querySelectorAll("dialog[open]:not(#notice)")) dialog.close();
	if (error.loggedOut) return void ask("logged-out");
	const {ranking} = error.extra;
	const message = [error.message, ...Object.values(error.fields)].join(" ");
	const [title, text] = ranking ? words.already : [words.refused, sent ? words.backToIt : words.kept];
	const kept = sent ?? (ranking && keptTask());
	await ask("notice", {title, text: fill(text, {message})});
	if (!kept) return;
	if (ranking) {
		kept.revises = String(ranking);
		finish(kept.lease);
	} else if (!kept.revises) {
		finished.delete(kept.lease);
		tasks = [kept, ...tasks];
	}
	await show(kept);
	drafts.change(draftOf(ranker.now()));
}

// For ears only trouble and its end: keys are announced already.
function say(state) {
	const shown = part("save-state");
	const before = shown.dataset.state;
	const said = (shown.textContent = words.states[state]);
	if (state !== before && /offline|waiting|lost/.test(state + before)) part("alerts").textContent = said;
	shown.dataset.state = state;
}

const settled = () => say(outbox.pending() ? "sending" : outbox.kept().length ? "lost" : drafts?.dirty() ? "saving" : "saved");
const tell = (text) => void (part("live").textContent = text);
const hint = (text) => tell((part("hint").textContent = text));

// Sends the dialog's form to the address of its name.
async function leave(name, done) {
	if (!task || ranker.busy()) return;
	const url = `${leaseUrl}${task.lease}/${name}/`;
	const form = document.querySelector(`#${name} form`);
	form.reset();
	if ((await ask(name)) === "send") await send("POST", url, Object.fromEntries(new FormData(form))).then(done, stuck);
}

async function readGuidelines() {
	if ((await ask("guidelines")) !== "read") return;
	part("read").hidden = true;
	send("POST", `${pageUrl}read/`, {version: guidelines}).catch(() => {});
}

function compare() {
	if (!task) return;
	htmx.ajax("GET", `${pageUrl}difference/?lease=${task.lease}&a=${ranker.focus() ?? ""}`, {target: "#difference", swap: "innerHTML"});
	ask("compare");
}

// Emptied or unchanged text is no edited version.
async function rewrite() {
	const now = ranker.now();
	const best = now?.tiers[0] ?? [];
	const of = now?.rewrite?.of ?? best.find((id) => id === ranker.focus()) ?? best[0];
	if (!of || !task.rules.rewrite) return;
	const text = part("rewrite");
	const original = cardOf(of).querySelector(".raw").textContent;
	const keep = (edited) => {
		const said = edited.trim() && edited !== original;
		ranker.apply({...ranker.now(), rewrite: said ? {of, text: edited} : null}, "rewrite");
	};
	text.value = now.rewrite?.text ?? original;
	text.oninput = () => keep(text.value);
	if ((await ask("rewrite", {title: fill(words.rewriteOf, {letter: letterOf(now, of)})})) === "discard") keep("");
}

// Logging out waits for what is not saved yet.
document.querySelector('form[action$="/logout/"]').addEventListener("submit", async (event) => {
	event.preventDefault();
	const saved = [outbox.idle().then(() => outbox.resume()), drafts?.save()];
	await Promise.race([Promise.all(saved), pause(3000)]);
	event.target.submit();
});

await outbox.resume();
await fetchTasks();
if (await handOver(user, tasks)) await fetchTasks();
await show();
if (again) await back(again);
if (page.dataset.unread) readGuidelines();
