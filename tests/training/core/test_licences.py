"""The licence of a base model, from its own README into the card of what is trained from it."""

from pathlib import Path

import pytest
from huggingface_hub import metadata_load

from training.core import licences
from training.core.licences import Licence, front_matter, licence_of, licence_section
from training.core.policy_cards import policy_card


def readme(folder: Path, content: str) -> str:
    (folder / "README.md").write_text(content, encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize(
    ("matter", "expected"),
    [
        ("license: apache-2.0", Licence("apache-2.0")),
        ("license: [mit]", Licence("mit")),
        (
            "license: other\nlicense_name: our-own\nlicense_link: https://example.org/licence",
            Licence("other", "our-own", "https://example.org/licence"),
        ),
        ("license: other\nlicense_name: 'a`b'\nlicense_link: 'x y'", Licence("other")),
        ("tags: [a]", None),
        ("license: [mit, gpl-3.0]", None),
        ("license: '# <b>x'", None),
        ("license: [", None),
    ],
)
def test_a_licence_is_what_the_front_matter_says(tmp_path: Path, matter: str, expected: Licence | None) -> None:
    assert licence_of(readme(tmp_path, f"---\n{matter}\n---\n\n# A model\n")) == expected


def test_what_is_not_told_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert licence_of(str(tmp_path)) is None
    assert licence_of(readme(tmp_path, "license: mit\n")) is None  # not in a front matter

    def away(*_: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(licences, "hf_hub_download", away)
    assert licence_of("owner/name") is None
    monkeypatch.setattr(licences, "hf_hub_download", lambda *_: tmp_path / "README.md")
    readme(tmp_path, "---\nlicense: mit\n---\n")
    assert licence_of("owner/name") == Licence("mit")


def test_a_card_names_the_licence_and_hands_it_on(tmp_path: Path) -> None:
    known = Licence("other", "our-own", "https://example.org/licence")
    report = {"steps": 1, "counts": {}, "warnings": []}
    card = policy_card(kind="sft", base="base", report=report, config={}, data_sha256="abc", licence=known)
    assert licence_of(readme(tmp_path, card)) == known
    assert "`our-own` (https://example.org/licence), as the base model" in card
    card = policy_card(kind="sft", base="base", report=report, config={}, data_sha256="abc", licence=None)
    assert licence_of(readme(tmp_path, card)) is None and "Unknown: the base model's folder names none" in card
    assert "license" not in (metadata_load(tmp_path / "README.md") or {})


def test_the_words_of_both_kinds() -> None:
    assert front_matter(None) == "" and front_matter(Licence("mit")) == "license: mit\n"
    assert "`mit`, as the base model" in licence_section(Licence("mit"))
