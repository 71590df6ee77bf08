"""The ranking page as a person uses it, and what the database says afterwards."""

import re
from collections.abc import Sequence

from playwright.sync_api import Locator, Page, expect

from annotate.models import Entry, Lease, Project, Ranking, User
from tests.annotate.factories import make_project, make_task, make_user

FOUR = ("the first text", "the second text", "the third text", "the fourth text")


def project_with_tasks(count: int, *, texts: Sequence[str] = FOUR, **options: object) -> tuple[Project, User]:
    """A project with `count` tasks and an annotator."""
    project = make_project(**options)  # type: ignore[arg-type]
    for number in range(count):
        make_task(project, texts, question=f"Question number {number + 1}?")
    return project, make_user("ann", project=project)


class Bench:
    """Drives one tab."""

    def __init__(self, page: Page, url: str, project: Project) -> None:
        self.page, self.project = page, project
        self.address = f"{url}/p/{project.slug}/rank/"

    def open(self) -> "Bench":
        self.page.goto(self.address)
        expect(self.page.locator(".response").first).to_be_visible()
        if self.page.locator("[data-unread]").count():
            expect(self.page.locator("dialog#guidelines")).to_be_visible()
            self.page.keyboard.press("Escape")
        return self

    def keys(self, typed: str) -> None:
        for key in typed.split():
            self.page.keyboard.press(key)

    def part(self, name: str) -> Locator:
        return self.page.locator(f'[data-part="{name}"]')

    def act(self, name: str) -> Locator:
        """The control that does this."""
        return self.page.locator(f'[data-act="{name}"]:visible').first

    def card(self, letter: str) -> Locator:
        return self.page.locator(f"#response-{letter}")

    def chip(self, letter: str) -> Locator:
        return self.page.locator(".tiers .chip", has_text=re.compile(f"^{letter}$"))

    def says(self, sentence: str) -> None:
        expect(self.part("sentence")).to_have_text(sentence)

    def saved(self) -> None:
        expect(self.part("save-state")).to_have_text("Saved")

    def asks(self, question: str) -> None:
        """The prompt now on the page."""
        expect(self.page.locator(".prompt .text")).to_have_text(question)

    def drag(self, letter: str, target: Locator, *, share: float = 0.5) -> None:
        """Drags a chip to a height within the target: 0 its top, 1 its bottom."""
        start = self.chip(letter).bounding_box()
        assert start is not None
        mouse = self.page.mouse
        mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
        mouse.down()
        for _ in range(2):  # the rail may have scrolled towards the target meanwhile, as the eye would see
            end = target.bounding_box()
            assert end is not None
            mouse.move(end["x"] + end["width"] * 0.6, end["y"] + end["height"] * share, steps=6)
        mouse.up()

    def tier(self, number: int) -> Locator:
        return self.page.locator(".tiers .tier").nth(number - 1)


def tiers_by_letter(ranking: Ranking) -> dict[str, int | None]:
    """What the database holds, by the letters that the annotator saw."""
    tiers = dict(Entry.objects.filter(ranking=ranking).values_list("response_id", "tier"))
    return {chr(65 + index): tiers[pk] for index, pk in enumerate(ranking.presented_order)}


def lease_of(user: User) -> Lease:
    """The user's oldest lease that has no answer."""
    return Lease.objects.filter(annotator=user, slot__state="leased").order_by("leased_at").first() or _no_lease()


def _no_lease() -> Lease:
    raise AssertionError("the user holds no lease")
