// The ranking page: fetches tasks, lets the parts around the state work together, sends the answer.

import {persist, send} from "../webapp/http.js";
import {drawPlaces, goTo, listenToCards} from "./cards.js";
import {Clock} from "./clock.js";
import {ask, askForm, open} from "./dialogs.js";
import {enableDrag} from "./drag.js";
import {DraftKeeper} from "./drafts.js";
import {listenForKeys} from "./keys.js";
import {Outbox} from "./outbox.js";
import {drawRail, drawSentence} from "./rail.js";
import * as ranking from "./ranking_state.js";

const STATES = {saved: "Saved", saving: "Saving…", offline: "Offline – kept in this browser", waiting: "The server is busy – trying again", sending: "Submitting…", lost: "Not saved"};

const page = document.getElementById("workbench");
const part = (name) => page.querySelector(`[data-part="${name}"]`) ?? document.querySelector(`[data-part="${name}"]`);
const {user, nextUrl, submitUrl, leaseUrl, leaseSeconds} = page.dataset;
const rail = part("tiers");

let tasks = []; // the one on the page, then the prefetched one
const finished = new Set(); // leases that an answer to an earlier question may still bring
let task = null;
let history = null;
let focus = null;
let drafts = null;
let busy = false;
let shortcuts = page.dataset.shortcuts === "on";

const outbox = new Outbox({user, url: submitUrl, onWait: trouble});
const clock = new Clock({leaseSeconds: Number(leaseSeconds), extend: () => tasks.forEach(extend)});

// --- tasks -----------------------------------------------------------------------------------------------------

async function start() {
  wire();
  await outbox.resume();
  await fill();
  await show();
}

// The lease on the page and one more; open leases come again, so a lost reply costs nothing.
async function fill() {
  try {
    const {tasks: open, progress} = await persist("POST", nextUrl, {}, {onWait: trouble});
    tasks = open.filter(({lease}) => !finished.has(lease));
    part("progress").textContent = progress.words;
    Object.assign(part("progress-bar"), {max: progress.wanted || 1, value: progress.done});
  } catch (error) {
    if (tasks.length) return;
    await stuck(error);
    location.assign("/");
  }
}

async function show() {
  task = tasks[0] ?? null;
  focus = null;
  page.dataset.view = task ? "task" : "done";
  if (!task) return part("done").focus();
  part("task").innerHTML = task.html;
  drafts = new DraftKeeper(
    {user, lease: task.lease, task: task.task, url: `${leaseUrl}${task.lease}/draft/`, draft: task.draft},
    {state: say, conflict, adopt, gone: stuck},
  );
  const draft = await drafts.open(task.draft);
  if (!drafts.dirty) say("saved");
  history = ranking.begin(ranking.fromDraft(task.order, draft));
  clock.restart();
  clock.spent = (Number(draft?.seconds) || 0) * 1000;
  part("notes").hidden = task.rules.rationale === "off";
  part("notes").open = task.rules.rationale === "required" || history.now.rationale !== "";
  part("rationale").value = history.now.rationale;
  part("all-bad").hidden = !task.rules.all_bad;
  draw();
  scrollTo(0, 0);
  part("task").focus({preventScroll: true});
}

async function advance() {
  finished.add(task.lease);
  drafts.forget();
  tasks = tasks.filter(({lease}) => !finished.has(lease));
  if (!tasks.length) await fill();
  await show();
  if (task && tasks.length < 2) fill();
}

const extend = ({lease}) => send("POST", `${leaseUrl}${lease}/extend/`, {}).catch(() => {});

// --- the answer ------------------------------------------------------------------------------------------------

function apply(next, tag) {
  if (busy || !task) return false;
  return settle(ranking.change(history, next, tag));
}

function settle(next) {
  if (busy || !task || next.now === history.now) return false;
  history = next;
  drafts.change({...ranking.toDraft(history.now), seconds: clock.seconds});
  if (part("rationale").value !== history.now.rationale) part("rationale").value = history.now.rationale;
  draw();
  part("live").textContent = ranking.spoken(history.now);
}

function draw() {
  const {now} = history;
  const problem = ranking.problem(now, task.rules);
  drawRail(rail, now, {focus, rules: task.rules, actions, locked: busy});
  drawPlaces(part("task"), now, focus);
  drawSentence(part("sentence"), part("hint"), now, {focus, problem: ranking.countPlaced(now) > 1 ? problem : null});
  part("submit").setAttribute("aria-disabled", String(busy || problem !== null));
  part("all-bad").setAttribute("aria-pressed", String(now.allBad));
  part("undo").disabled = busy || !history.past.length;
  part("redo").disabled = busy || !history.future.length;
}

const ties = () => task.rules.ties;
const withFocus = (act) => task && focus !== null && apply(act(history.now, focus));

const actions = {
  pick(id) {
    if (busy) return;
    focus = focus === id ? null : id;
    draw();
  },
  focus(index) {
    if (!task || index >= task.order.length) return false;
    focus = task.order[index];
    draw();
    goTo(part("task"), focus);
  },
  move(direction) {
    if (!task) return false;
    const at = focus === null ? (direction > 0 ? -1 : task.order.length) : task.order.indexOf(focus);
    return actions.focus(Math.max(0, Math.min(task.order.length - 1, at + direction)));
  },
  place: (index) => withFocus((state, id) => ranking.place(state, id, index, ties())),
  insert: (gap) => withFocus((state, id) => ranking.insert(state, id, gap)),
  unrank: () => withFocus(ranking.unrank),
  half(direction) {
    if (!task || focus === null) return false;
    withFocus((state, id) => ranking.halfStep(state, id, direction, ties()));
  },
  strength: (gap, value) => apply(ranking.setStrength(history.now, gap, value)),
  undo: () => settle(ranking.undo(history)),
  redo: () => settle(ranking.redo(history)),
  guidelines: () => void open("guidelines"),
  help: () => void open("help"),
  submit: () => void submit(),
};

async function submit() {
  if (busy || !task) return;
  const problem = ranking.problem(history.now, task.rules);
  if (problem) {
    part("hint").textContent = part("live").textContent = problem;
    return;
  }
  lock(true, "sending");
  const body = {lease: task.lease, ...ranking.toAnswer(history.now, task.rules), seconds: clock.seconds};
  drafts.close();
  try {
    await outbox.submit(body, task.task);
  } catch (error) {
    return refused(error);
  }
  lock(false, "saved");
  part("live").textContent = "Submitted.";
  await advance();
}

async function refused(error) {
  lock(false, "lost");
  if (error.code === "already_submitted") {
    await ask("notice", {title: "You have ranked this task already", text: "Another tab or an earlier visit sent an answer, and that one counts. What is on this page was not sent."});
    return advance();
  }
  reopenDraft();
  const details = Object.values(error.fields ?? {});
  await stuck(Object.assign(error, {message: [error.message, ...details].join(" ")}));
}

// The answer was not taken, so it is a draft again.
function reopenDraft() {
  const {version} = drafts;
  drafts = new DraftKeeper(
    {user, lease: task.lease, task: task.task, url: `${leaseUrl}${task.lease}/draft/`, draft: {version}},
    {state: say, conflict, adopt, gone: stuck},
  );
  drafts.change({...ranking.toDraft(history.now), seconds: clock.seconds});
}

function lock(on, state) {
  busy = on;
  say(state);
  page.setAttribute("aria-busy", String(on));
  draw();
}

// --- what can go wrong -----------------------------------------------------------------------------------------

async function conflict(theirs, mine) {
  const words = (body) => ranking.sentence(ranking.fromDraft(task.order, body)) || "nothing placed";
  const answer = await ask("conflict", {mine: words(mine), theirs: words(theirs)});
  return answer === "theirs" ? "theirs" : "mine";
}

function adopt(body) {
  history = ranking.begin(ranking.fromDraft(task.order, body));
  part("rationale").value = history.now.rationale;
  draw();
}

// A refusal that no patience mends: say it, say that the work is kept, offer the way on.
async function stuck(error) {
  say("lost");
  if (error.code === "already_submitted") return refused(error);
  const loggedOut = error.status === 401 || error.code === "not_authenticated" || /CSRF/.test(error.message);
  if (loggedOut) return void ask("logged-out");
  await ask("notice", {title: "The server did not accept this", text: `${error.message} Your work is kept in this browser.`});
}

function trouble(error) {
  say(error.status === 0 ? "offline" : "waiting");
}

// For eyes always; for ears only trouble and its end: each key press is announced already.
function say(state) {
  const shown = part("save-state");
  const troubled = ["offline", "waiting", "lost"];
  if (state !== shown.dataset.state && [state, shown.dataset.state].some((one) => troubled.includes(one))) part("alerts").textContent = STATES[state];
  shown.textContent = STATES[state];
  shown.dataset.state = state;
}

// --- buttons, forms --------------------------------------------------------------------------------------------

async function leave(dialog, url) {
  const fields = task && !busy && (await askForm(dialog));
  if (!fields) return false;
  try {
    await send("POST", url, fields);
    return true;
  } catch (error) {
    await stuck(error);
    return false;
  }
}

async function skip() {
  if (await leave("skip", `${leaseUrl}${task?.lease}/skip/`)) await advance();
}

async function flag() {
  const url = page.dataset.flagUrl.replace(/0{8}-0{4}-0{4}-0{4}-0{12}/, task?.lease);
  if (await leave("flag", url)) await ask("notice", {title: "Flagged", text: "The manager will look at this task. You can still rank or skip it."});
}

function wire() {
  const onClick = (name, act) => part(name).addEventListener("click", act);
  onClick("submit", actions.submit);
  onClick("undo", actions.undo);
  onClick("redo", actions.redo);
  onClick("open-guidelines", actions.guidelines);
  onClick("open-help", actions.help);
  onClick("all-bad", () => apply(ranking.setAllBad(history.now, !history.now.allBad)));
  onClick("skip", skip);
  onClick("flag", flag);
  onClick("again", async () => (await fill(), show()));
  onClick("more", () => {
    const opened = part("rail").classList.toggle("opened");
    part("more").setAttribute("aria-expanded", String(opened));
    part("more").textContent = opened ? "Less" : "More";
  });
  part("rationale").addEventListener("input", (event) => apply(ranking.setRationale(history.now, event.target.value), "rationale"));
  part("shortcuts").addEventListener("change", (event) => {
    shortcuts = event.target.checked;
    page.dataset.shortcuts = shortcuts ? "on" : "off";
    send("POST", page.dataset.shortcutsUrl, {on: shortcuts}).catch(() => say("lost"));
  });
  listenToCards(part("task"), (id) => actions.focus(task.order.indexOf(id)));
  listenForKeys({actions, singleKeys: () => shortcuts});
  enableDrag(rail, {
    locked: () => busy,
    drop(id, target) {
      focus = id;
      const [kind, number] = target.split(":");
      const {now} = history;
      const next = kind === "pool" ? ranking.unrank(now, id)
        : kind === "tier" ? ranking.place(now, id, Number(number), ties()) : ranking.insert(now, id, Number(number));
      if (apply(next) === false) draw();
    },
  });
}

start();
