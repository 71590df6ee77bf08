// Answers on their way. Each is written down with its key before the first attempt, so that neither a lost reply nor a
// closed browser can lose it or make it twice: the server answers the same key once.

import {persist} from "../webapp/http.js";
import * as copies from "./local_copies.js";

const KIND = "answer";

export class Outbox {
  constructor({user, url, onWait}) {
    Object.assign(this, {user, url, onWait});
  }

  // Resolves when the server has it; rejects when it refuses. The key stays with the lease in either case.
  async submit(body, task) {
    const known = copies.read(KIND, this.user, body.lease);
    const item = {key: known?.key ?? copies.newKey(), url: this.url, task, body};
    copies.write(KIND, this.user, body.lease, item);
    return this.deliver(item);
  }

  // What an earlier page left behind for this project; what the server refuses is dropped, its draft is still there.
  async resume() {
    for (const [, item] of copies.all(KIND, this.user)) {
      if (item.url !== this.url) continue;
      try {
        await this.deliver(item);
      } catch (error) {
        if (error.status === 401 || error.status === 403) return;
      }
    }
  }

  async deliver(item) {
    try {
      const ranking = await persist("POST", item.url, item.body, {
        headers: {"Idempotency-Key": item.key}, onWait: this.onWait,
      });
      copies.remove(KIND, this.user, item.body.lease);
      copies.remove("draft", this.user, item.task);
      return ranking;
    } catch (error) {
      // A refused answer may be corrected and sent again; one that waits for a log-in stays written down.
      if (error.status !== 401 && error.status !== 403) copies.remove(KIND, this.user, item.body.lease);
      throw error;
    }
  }
}
