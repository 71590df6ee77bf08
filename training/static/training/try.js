// A try: text is appended as it is written, the end is said aloud once, and hub fields show where the hub was chosen.

const EVERY_MS = 400;
const AFTER_FAILURE_MS = 3000;
const [OPENING, CLOSING] = ["<think>", "</think>"];

// One response: thinking stands at its beginning, between two tags.
class Answer {
  constructor(card) {
    this.thought = card.querySelector("[data-thinking]");
    this.said = card.querySelector("[data-text]");
    const thinking = this.thought.textContent;
    this.text = (thinking ? OPENING + thinking + (this.said.textContent ? CLOSING : "") : "") + this.said.textContent;
  }

  add(piece) {
    this.text += piece;
    const start = this.text.trimStart();
    if (!start.startsWith(OPENING)) {
      this.said.textContent = this.text;
      return;
    }
    const [thinking, ...answer] = start.slice(OPENING.length).split(CLOSING);
    this.thought.textContent = thinking.trim();
    this.thought.closest("details").hidden = false;
    this.said.textContent = answer.join(CLOSING).trimStart();
  }
}

async function follow(live) {
  const answers = new Map([...live.querySelectorAll("[data-place]")].map((card) => [card.dataset.place, new Answer(card)]));
  let since = Number(live.dataset.since);
  while (live.isConnected) {
    let wait = EVERY_MS;
    try {
      const response = await fetch(`${live.dataset.pieces}?since=${since}`, { headers: { Accept: "application/json" } });
      if (!response.ok) throw new Error(`status ${response.status}`);
      const told = await response.json();
      if (String(told.attempt) !== live.dataset.attempt) return; // another attempt begins anew; the part itself is on its way
      for (const [model, sample, text] of told.pieces) answers.get(`${model}.${sample}`)?.add(text);
      since = told.next;
      if (told.over) {
        live.dispatchEvent(new Event("try-over"));
        return;
      }
    } catch {
      wait = AFTER_FAILURE_MS; // the network or the server is away for a moment
    }
    await new Promise((done) => setTimeout(done, wait));
  }
}

function look() {
  const live = document.getElementById("try-live");
  if (live?.dataset.pieces && !live.dataset.followed) {
    live.dataset.followed = "yes";
    follow(live);
  }
}

document.addEventListener("htmx:afterSettle", () => {
  const live = document.getElementById("try-live");
  if (live?.dataset.end) document.querySelector("[data-try-said]").textContent = live.dataset.end;
  look();
});
look();

for (const form of document.querySelectorAll("[data-try-form]")) {
  for (const name of ["model", "model_2"]) {
    const choice = form.elements.namedItem(name);
    const hub = form.elements.namedItem(`hub_${name}`).closest(".field");
    const show = () => { hub.hidden = choice.value !== "hub"; };
    choice.addEventListener("change", show);
    show();
  }
  // Ctrl+Enter in the conversation is the button.
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(form.querySelector("button.go"));
  });
}
