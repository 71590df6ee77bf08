"""A file between its upload and its import: looked at, mapped, tried, imported, removed; and the page of exports."""

import io
import json
from datetime import timedelta
from typing import Any

import pyarrow.parquet
import pytest
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from django.utils import timezone

from annotate.interchange import EXPORTS, FORMATS
from annotate.models import ImportBatch, ImportUpload, Project, Prompt, Ranking, Role, User
from annotate.pages import format_words
from annotate.services.uploads import AT_ONCE, KEPT_FOR, forget_uploads
from tests.annotate.factories import make_project, make_user
from tests.annotate.pages.test_pages import browser

pytestmark = pytest.mark.django_db

TABLE = "question,answer_a,answer_b,better,who\nTea?,A drink.,A leaf.,b,ann\nMilk?,White.,Wet.,neither,bob\n"
PAGE = reverse("import_data", args=["tales"])


@pytest.fixture
def project() -> Project:
    return make_project("tales")


@pytest.fixture
def manager(project: Project) -> User:
    return make_user("mia", project=project, role=Role.MANAGER)


def uploaded(person: User, text: str | bytes = TABLE, format: str = "csv", name: str = "tea.csv") -> str:
    """The address of the page on which a file waits."""
    data = text.encode() if isinstance(text, str) else text
    answer = browser(person).post(PAGE, {"format": format, "file": SimpleUploadedFile(name, data)})
    assert answer.status_code == 302, answer.content.decode()
    return str(answer["Location"])


def page_of(person: User, address: str) -> str:
    answer = browser(person).get(address)
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


def done(person: User, address: str, do: str, **fields: str) -> str:
    return " ".join(browser(person).post(address, {"do": do} | fields, follow=True).content.decode().split())


#: Columns in the order of the file: question, answer_a, answer_b, better, who.
MAPPED = {
    "column_0": "prompt",
    "column_1": "response_1",
    "column_2": "response_2",
    "column_3": "winner",
    "column_4": "annotator",
}


def test_a_table_is_mapped_tried_and_imported(project: Project, manager: User) -> None:
    address = uploaded(manager)
    assert not Prompt.objects.exists() and not ImportBatch.objects.exists()
    page = page_of(manager, address)
    # The usual names are guessed; `who` is asked for.
    assert "Tea?" in page and "<b>B &gt; A</b>" in page
    assert "winner is &#x27;neither&#x27;" in page and "2 records: 1 can be read, 1 cannot or are left out." in page
    done(manager, address, "look", **MAPPED | {"column_3": "-"})
    assert ImportUpload.objects.get().mapping["better"] == "-"
    assert "a task with 2 responses" in page_of(manager, address)
    tried = done(manager, address, "try", **MAPPED)
    assert "1 record would be taken in; nothing was changed" in tried and "neither" in tried
    assert not Prompt.objects.exists() and ImportUpload.objects.count() == 1
    stored = ImportUpload.objects.get().stored
    assert "1 record was taken in" in done(manager, address, "import", **MAPPED, overlap="0")
    assert Ranking.objects.get().annotator.first_name == "ann"
    batch = ImportBatch.objects.get()
    assert (batch.source, batch.format, batch.created_by) == ("tea.csv", "csv", manager)
    assert not ImportUpload.objects.exists() and not default_storage.exists(stored)
    assert browser(manager).get(address).status_code == 404


def test_what_cannot_be_is_said_at_the_form_and_the_file_stays(project: Project, manager: User) -> None:
    address = uploaded(manager)
    twice = browser(manager).post(address, {"do": "import"} | MAPPED | {"column_4": "prompt"})
    assert twice.status_code == 422 and "two columns are mapped to prompt" in twice.content.decode()
    wrong = browser(manager).post(address, {"do": "import", "overlap": "99"} | MAPPED)
    assert wrong.status_code == 422
    strict = browser(manager).post(address, {"do": "import", "strict": "on"} | MAPPED)
    assert strict.status_code == 422 and "1 of 2 records have faults; nothing was imported" in strict.content.decode()
    assert ImportUpload.objects.count() == 1 and not ImportBatch.objects.exists()


def test_parquet_and_label_studio_are_mapped_too(project: Project, manager: User) -> None:
    file = io.BytesIO()
    columns = {"q": ["Tea?"], "x": ["one"], "y": ["two"]}
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    page = page_of(manager, uploaded(manager, file.getvalue(), "parquet", "t.parquet"))
    assert ">q</label>" in page and "prompt must be a text" in page
    task = {"id": 1, "data": {"q": "Tea?", "items": [{"id": "x", "body": "one"}, {"id": "y", "body": "two"}]}}
    address = uploaded(manager, json.dumps([task]), "label-studio", "ls.json")
    assert "map its name to prompt" in page_of(manager, address)
    done(manager, address, "look", column_0="prompt", column_1="responses")
    assert "a task with 2 responses" in page_of(manager, address)


def test_a_file_is_its_importers_alone(project: Project, manager: User) -> None:
    address = uploaded(manager)
    other = make_user("max", project=project, role=Role.MANAGER)
    outsider = make_user("oda", project=make_project("else"), role=Role.MANAGER)
    for person in (other, outsider):
        assert browser(person).get(address).status_code == 404
        assert browser(person).post(address, {"do": "drop"}).status_code == 404
    assert browser(manager).get(address.replace("tales", "else")).status_code == 404
    assert ImportUpload.objects.count() == 1


def test_files_are_removed_when_dropped_when_there_are_too_many_and_when_their_time_is_over(
    project: Project, manager: User
) -> None:
    address = uploaded(manager)
    stored = ImportUpload.objects.get().stored
    assert "nothing of it was imported" in done(manager, address, "drop")
    assert not ImportUpload.objects.exists() and not default_storage.exists(stored)
    addresses = [uploaded(manager, name=f"{number}.csv") for number in range(AT_ONCE + 1)]
    assert ImportUpload.objects.count() == AT_ONCE and browser(manager).get(addresses[0]).status_code == 404
    late = ImportUpload.objects.order_by("created_at")[0]
    ImportUpload.objects.filter(pk=late.pk).update(created_at=timezone.now() - KEPT_FOR - timedelta(seconds=1))
    assert browser(manager).get(addresses[1]).status_code == 404
    assert forget_uploads() == 1 and not default_storage.exists(late.stored)
    assert ImportUpload.objects.count() == AT_ONCE - 1 and forget_uploads() == 0


def test_too_large_a_file_is_not_kept(project: Project, manager: User, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 50
    file = SimpleUploadedFile("tea.csv", TABLE.encode())
    answer = browser(manager).post(PAGE, {"format": "csv", "file": file})
    assert answer.status_code == 422 and "takes files of any size" in answer.content.decode()
    assert not ImportUpload.objects.exists()


def test_every_format_and_option_has_words() -> None:
    assert set(format_words.IMPORTS) == set(FORMATS) and set(format_words.EXPORTS) == set(EXPORTS)


# --- exports ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def engineer(project: Project, manager: User) -> User:
    done(manager, uploaded(manager), "import", **MAPPED)
    return make_user("eve", project=project, role=Role.VIEWER, engineer=True)


def export_page(person: User, **asked: str) -> Any:
    return browser(person).get(reverse("export_page", args=["tales"]), asked)


def test_the_page_of_exports_shows_the_first_lines_of_every_format(engineer: User) -> None:
    for name in EXPORTS:
        page = export_page(engineer, format=name).content.decode()
        assert f"/export/?format={name}" in page and "Tea?" in page, name
    assert "/api/v1/projects/tales/export/?format=plackett" in export_page(engineer).content.decode()


def test_options_go_into_the_link_and_the_commands(engineer: User) -> None:
    asked = {"format": "arena", "key": "it's ours", "models": "no", "as": "parquet"}
    page = export_page(engineer, **asked).content.decode()
    assert "format=arena&amp;as=parquet&amp;key=it%27s+ours&amp;models=no" in page
    assert "--as parquet --key &#x27;it&#x27;\\&#x27;&#x27;s ours&#x27; --models no" in page
    page = export_page(engineer, format="trl", votes="majority", agreement="0.6", margin="strength").content.decode()
    assert "agreement=0.6&amp;margin=strength&amp;votes=majority" in page and "&quot;margin&quot;: 0.0" in page
    assert '<option value="0.6" selected>60%</option>' in page


def test_agreement_is_asked_for_in_words(engineer: User) -> None:
    page = export_page(engineer, format="trl").content.decode()
    assert '<option value="0" selected>not looked at</option>' in page and "Plackett-Cursor" in page
    page = export_page(engineer, format="trl", agreement="0.66").content.decode()
    assert '<option value="0.66" selected>two thirds of them</option>' in page and "agreement=0.66" in page
    assert "Plackett-Cursor" not in page, "what annotators say together has no new"


def test_an_option_that_cannot_be_is_said_at_its_field(engineer: User) -> None:
    answer = export_page(engineer, format="trl", agreement="7", ties="perhaps")
    page = answer.content.decode()
    assert (
        answer.status_code == 422 and page.count('class="error"') == 2 and "/api/v1/projects/tales/export/" not in page
    )
