"""The page of all messages, in the areas of messages.toml, each with what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

from docs.site.help import cell, code
from docs.site.messages import SAID, Message, messages
from shard_tools.base.documents import parse_toml

PLACES = Path(__file__).with_name("messages.toml")


@dataclass(frozen=True, kw_only=True)
class Area:
    """A section of the page."""

    title: str
    about: str
    modules: tuple[str, ...]
    kinds: tuple[str, ...]

    def has(self, message: Message) -> bool:
        """Whether a message belongs here: by its exception, or else by its file; a * is within one directory."""
        if self.kinds:
            return message.kind in self.kinds
        depth = message.module.count("/")
        return any(
            fnmatch(message.module, pattern) and (pattern.endswith("/*") or pattern.count("/") == depth)
            for pattern in self.modules
        )


@cache
def places() -> tuple[tuple[Area, ...], dict[str, str]]:
    """The areas, and what to do by the words that a message has."""
    content = parse_toml(PLACES.read_text(encoding="utf-8"), PLACES.name).content
    areas = tuple(
        Area(
            title=area["title"],
            about=area.get("about", "").strip(),
            modules=tuple(area["modules"]),
            kinds=tuple(area.get("kinds", ())),
        )
        for area in content["area"]
    )
    return areas, {entry["words"]: entry["do"] for entry in content["do"]}


def area_of(message: Message) -> Area | None:
    """Where a message stands on the page; None if it has no place."""
    return next((area for area in places()[0] if area.has(message)), None)


def advice(message: Message) -> str:
    """What to do, as Markdown: by the message's own words, or by messages.toml; empty if nobody says it."""
    own = message.parts[1]
    if own and own != SAID:
        return cell(f"{own[:1].upper()}{own[1:]}")
    known = "The end of the message says it for your case." if own else ""
    return next((do for words, do in places()[1].items() if re.search(words, message.words)), known)


def message_page() -> str:
    """The page in Markdown."""
    lines = [
        "# All messages",
        "",
        "Search this page for the words of a message. A … stands for what differs: a name, a number, a path. What the",
        "message itself advises stands beside it; otherwise what helps. Where one line is not enough, see",
        "[troubleshooting](troubleshooting.md).",
        "",
        "The page is made of the source, so it has every message that there is.",
        "",
    ]
    by_area: dict[str, list[Message]] = {}
    for message in messages():
        if area := area_of(message):
            by_area.setdefault(area.title, []).append(message)
    for area in places()[0]:
        found: dict[str, str] = {}
        for message in by_area.get(area.title, []):
            found.setdefault(message.parts[0], advice(message))
        lines += [
            f"## {area.title}",
            "",
            *([area.about, ""] if area.about else []),
            "| message | what to do |",
            "|---|---|",
        ]
        lines += [f"| {code(words.replace('`', chr(39)))} | {do} |" for words, do in sorted(found.items())]
        lines.append("")
    return "\n".join(lines)
