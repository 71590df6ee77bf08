"""Under which licence a base model is, as far as it says so itself: in the front matter of its README."""

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download, metadata_load

# What may stand in a card's front matter as it is: Hugging Face's short names, a link.
PLAIN = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}", re.ASCII)
LINK = re.compile(r"(https?://)?[\w./~:?=&%+-]{1,500}", re.ASCII)
OTHER = "other"


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence by Hugging Face's short name; of `other`, its own name and where it stands, if they are told."""

    short: str
    name: str = ""
    link: str = ""


def licence_of(model: str) -> Licence | None:
    """The licence of a model: of a folder by its README, of a hub's model by the one there. None where none is told.

    Args:
        model: a folder, or a hub id, whose README is fetched unless it was before.
    """
    folder = Path(model)
    try:
        readme = folder / "README.md" if folder.is_dir() else Path(hf_hub_download(model, "README.md"))
        told = metadata_load(readme)
    except Exception:
        # Whatever the hub, its cache or a broken README are at fault for: what is not told is not known.
        return None
    if not isinstance(told, dict):
        return None
    short = told.get("license")
    if isinstance(short, list) and len(short) == 1:
        short = short[0]
    if not isinstance(short, str) or not PLAIN.fullmatch(short):
        return None
    name, link = (str(told.get(key) or "") for key in ("license_name", "license_link"))
    return Licence(short, name if PLAIN.fullmatch(name) else "", link if LINK.fullmatch(link) else "")


def front_matter(licence: Licence | None) -> str:
    """The lines of a card's front matter, each with its end; none where the licence is not known."""
    if licence is None:
        return ""
    lines = {"license": licence.short, "license_name": licence.name, "license_link": licence.link}
    return "".join(f"{key}: {value}\n" for key, value in lines.items() if value)


def licence_section(licence: Licence | None) -> str:
    """The card's section."""
    if licence is None:
        told = (
            "Unknown: the base model's folder names none. Find out under which licence the base model is before you "
            "pass this one on; what it was trained from may bind, too."
        )
    else:
        name = licence.name or licence.short
        place = f" ({licence.link})" if licence.link else ""
        told = f"`{name}`{place}, as the base model. What it was trained from may bind, too; of that none is known."
    return f"## Licence\n\n{told}\n"
