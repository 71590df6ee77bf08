"""How quick the ranking page is in Chromium: until it can be used, and from a key press to the next frame.

    python -m benchmarks.page
    python -m benchmarks.page --rounds 40

Real gunicorn, Postgres and Valkey, five responses of 4 kB each, all times Chromium's own. Three figures, each beside a
reference of the same run:

- usable: from the last byte of the document to the moment when all cards stand and keys work, the fetch of the task
  included; beside it the same browser's `domInteractive` of the guidelines page, which has next to no script;
- cards: from the last byte of the task to all cards drawn;
- key: from the press of a key that places, ties or moves a response to the end of the frame that shows it (the first
  animation frame after it, painted); beside it an empty page whose key handler changes one word.
"""

import argparse
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from benchmarks.servers import django_on_scratch_servers, gunicorn
from benchmarks.workbench import SLUG, fill, session_of

CHROMIUM = os.environ.get("PLACKETT_CHROMIUM", "/usr/bin/chromium")
FLAGS = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
FRAME = 1000 / 60

#: Notes when the cards stand; runs before any script of the page.
WATCH = """new MutationObserver(() => {
  const stands = document.querySelector("#workbench[data-view=task] .chip");
  if (stands) window.usableAt ??= performance.now();
}).observe(document, {subtree: true, childList: true, attributes: true, attributeFilter: ["data-view"]});"""

#: For each key: the press, the end of its handlers, the first frame after it, and when that frame was on the screen.
KEYS = """() => {
  window.pressed = [];
  addEventListener("keydown", (event) => {
    const one = {start: event.timeStamp};
    window.pressed.push(one);
    queueMicrotask(() => (one.handled = performance.now()));
    requestAnimationFrame(() => {
      const {port1, port2} = new MessageChannel();
      port1.onmessage = () => (one.painted = performance.now());
      port2.postMessage(null);
    });
  });
}"""
PLAIN = """<!doctype html><title>plain</title><p id=word>0</p>
<script>let n = 0; addEventListener("keydown", () => (word.textContent = ++n))</script>"""
TYPED = "a 1 b 2 c 2 d 1 ArrowDown ArrowDown u u Shift+U e 3 e ArrowUp ArrowUp 0 a 0 b 0"


def page_of(context: BrowserContext) -> Page:
    page = context.new_page()
    page.add_init_script(WATCH)
    return page


def usable(page: Page, address: str) -> tuple[float, float]:
    """Milliseconds from the document's last byte, and from the task's, until the cards stand."""
    page.goto(address)
    page.locator("#workbench[data-view=task] .chip").first.wait_for()
    found: list[float] = page.evaluate(
        """() => {
          const [document] = performance.getEntriesByType("navigation");
          const task = performance.getEntriesByType("resource").find(({name}) => name.endsWith("/rank/next/"));
          return [window.usableAt - document.responseEnd, window.usableAt - task.responseEnd];
        }"""
    )
    return found[0], found[1]


def interactive(page: Page, address: str) -> float:
    """Milliseconds from the document's last byte to domInteractive."""
    page.goto(address)
    return float(
        page.evaluate(
            "() => (([one]) => one.domInteractive - one.responseEnd)(performance.getEntriesByType('navigation'))"
        )
    )


def press(page: Page, keys: Sequence[str]) -> list[dict[str, Any]]:
    """What Chromium measured of each key."""
    page.bring_to_front()  # a page behind another gets a frame a second
    page.evaluate(KEYS)
    for key in keys:
        page.keyboard.press(key)
        page.wait_for_timeout(60)
    page.wait_for_timeout(1000)  # until the last frame is surely shown
    found: list[dict[str, Any]] = page.evaluate("window.pressed")
    return found


def report(name: str, values: Sequence[float], reference: Sequence[float] | None = None) -> None:
    median, p95 = statistics.median(values), statistics.quantiles(values, n=20)[-1]
    ratio = f"{median / statistics.median(reference):8.2f}" if reference else ""
    print(f"{name:38}{len(values):>6}{median:>10.1f}{p95:>9.1f}{ratio}")


def measure(browser: Browser, *, address: str, session: str, rounds: int) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.add_cookies([{"name": "sessionid", "value": session, "url": address}])
    page, rank, plain = page_of(context), f"{address}/p/{SLUG}/rank/", f"{address}/p/{SLUG}/guidelines/"
    usable(page, rank)
    interactive(page, plain)
    loads = [(usable(page, rank), interactive(page, plain)) for _ in range(rounds)]
    reference = [plainly for _, plainly in loads]
    report("guidelines page, interactive", reference)
    report("ranking page, usable", [whole for (whole, _), _ in loads], reference)
    report("ranking page, cards after the task", [cards for (_, cards), _ in loads], reference)
    usable(page, rank)
    if page.locator("dialog[open]").count():
        page.keyboard.press("Escape")
    keys = TYPED.split() * max(rounds // 10, 1)
    bare = context.new_page()
    bare.set_content(PLAIN)
    pressed, plainly = press(page, keys), press(bare, keys)
    for label, until in (("handled", "handled"), ("in the next frame, painted", "painted")):
        before = [one[until] - one["start"] for one in plainly]
        report(f"bare page, key {label}", before)
        report(f"ranking page, key {label}", [one[until] - one["start"] for one in pressed], before)
    work = [one["handled"] - one["start"] for one in pressed]
    print(f"keys whose work fits into one frame of {FRAME:.1f} ms: {sum(one < FRAME for one in work)} of {len(work)}")
    context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    with django_on_scratch_servers():
        from django.conf import settings
        from django.core.management import call_command

        Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)
        call_command("collectstatic", interactive=False, verbosity=0)
        annotator, _ = fill(8)
        session = session_of(annotator)
        with gunicorn() as web, sync_playwright() as playwright:
            sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
            found = CHROMIUM if Path(CHROMIUM).exists() else None
            browser = playwright.chromium.launch(executable_path=found, args=[*FLAGS, *sandbox])
            print(f"{'milliseconds':38}{'n':>6}{'median':>10}{'p95':>9}{'ratio':>8}")
            measure(browser, address=f"http://localhost:{web.port}", session=session, rounds=options.rounds)
            browser.close()


if __name__ == "__main__":
    main()
