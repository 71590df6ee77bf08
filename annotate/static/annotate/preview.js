// The workbench beside the set-up form, under the rules that the form holds now. Nothing of it is saved or leased.

const WAIT = 400; // milliseconds after the last change

export class Preview {
  // told(answer) hears what the server says of the form after each update.
  constructor(root, form, told) {
    Object.assign(this, {root, form, told, shown: "", timer: 0, asking: null});
    this.part("preview-button").hidden = true;
  }

  part(name) {
    return this.root.querySelector(`[data-part="${name}"]`);
  }

  update({now = false} = {}) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), now ? 0 : WAIT);
  }

  async ask() {
    this.asking?.abort();
    this.asking = new AbortController();
    try {
      const body = new URLSearchParams(new FormData(this.form));
      const answer = await fetch(this.root.dataset.url, {method: "POST", body, signal: this.asking.signal});
      if (answer.ok) this.show(await answer.json());
    } catch (error) {
      if (error.name !== "AbortError" && !(error instanceof TypeError)) throw error; // offline: the next change asks again
    }
  }

  show(answer) {
    this.told(answer);
    const guidelines = this.part("preview-guidelines");
    const text = guidelines.querySelector(".text");
    guidelines.hidden = !answer.guidelines;
    if (text.innerHTML !== answer.guidelines) text.innerHTML = answer.guidelines;
    const task = JSON.stringify([answer.task.html, answer.task.rules]);
    if (task === this.shown) return;
    this.shown = task;
    this.part("task").innerHTML = answer.task.html;
  }
}
