"""Takes the pictures of docs/images from a running Plackett, with the same browser as the tests.

    python -m tools.take_screenshots --url http://127.0.0.1:8000 --project demo --user NAME --password PASSWORD

The user must be able to rank in the project; nothing is submitted, but the draft of the task on the page changes. The
pictures in the README show a project of tools/screenshots.jsonl with two scales and two flags.
"""

import argparse
import os
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
CHROMIUM = os.environ.get("PLACKETT_CHROMIUM", "/usr/bin/chromium")
SIZES = ((390, 844), (1280, 860), (2560, 1200))
FLAGS = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def main() -> None:
    """Reads the flags, logs in and takes each picture in both themes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--project", default="demo", help="Slug.")
    parser.add_argument("--user", required=True)
    parser.add_argument("--password", required=True)
    parser.add_argument(
        "--keys", default="a 0 b 0 c 0 d 0 e 0 c 1 d 1 a 2 b", help="What is typed on the ranking page."
    )
    parser.add_argument("--run", type=int, help="Also take this run's page.")
    options = parser.parse_args()
    IMAGES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *sandbox])
        for scheme in ("light", "dark"):
            page = log_in(browser, scheme, options)
            for width, height in SIZES:
                page.set_viewport_size({"width": width, "height": height})
                take_workbench(page, f"{options.url}/p/{options.project}/rank/", options.keys, f"{width}-{scheme}")
            if options.run and scheme == "light":
                take_run(page, f"{options.url}/runs/{options.run}/")
        browser.close()


def log_in(browser: Browser, scheme: str, options: argparse.Namespace) -> Page:
    """A new page of someone who is logged in."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{options.url}/accounts/login/")
    page.get_by_label("Username").fill(options.user)
    page.get_by_label("Password").fill(options.password)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Projects").wait_for()
    return page


def take_workbench(page: Page, address: str, keys: str, name: str) -> None:
    """The ranking page with an answer half made."""
    page.goto(address)
    page.locator(".response").first.wait_for()
    if page.locator("[data-unread]").count():
        page.get_by_role("button", name="I have read them").click()
    for key in keys.split():
        page.keyboard.press(key)
    strength = page.locator(".strengths button", has_text="clearly").first
    if strength.is_visible() and strength.get_attribute("aria-pressed") == "false":
        strength.click()
    page.locator("[data-state=saved]").wait_for()
    page.evaluate("scrollTo(0, 0)")
    page.mouse.move(5, 5)
    page.wait_for_timeout(300)
    page.screenshot(path=IMAGES / f"workbench-{name}.png")


def take_run(page: Page, address: str) -> None:
    """A run's page, as far down as it goes."""
    page.goto(address)
    page.locator("#run-live").wait_for()
    page.wait_for_timeout(1000)
    page.screenshot(path=IMAGES / "run.png", full_page=True, clip={"x": 0, "y": 0, "width": 1280, "height": 1200})


if __name__ == "__main__":
    main()
