"""Damage to bytes and to text, drawn at random."""

from __future__ import annotations

import random

SIGNS = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\n", b'"')


def damaged(raw: bytes, draw: random.Random) -> bytes:
    """The bytes with one to four faults: flipped, cut, doubled, moved, overwritten or appended."""
    found = bytearray(raw)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        if not found:
            break
        at = draw.randrange(len(found))
        length = min(draw.choice((1, 2, 4, 16, 300)), len(found) - at)
        how = draw.randrange(8)
        if how == 0:
            found[at] ^= 1 << draw.randrange(8)
        elif how == 1:
            del found[at:]
        elif how == 2:
            del found[at : at + length]
        elif how == 3:
            found[at:at] = found[at : at + length]
        elif how == 4:
            found[at : at + length] = draw.randbytes(length)
        elif how == 5:
            sign = draw.choice(SIGNS)
            found[at : at + len(sign)] = sign
        elif how == 6:
            found += draw.randbytes(draw.choice((1, 100, 5000)))
        else:
            found[at : at + length] = bytes(length)
    return bytes(found)


WORDS = (
    *("", " ", "0", "-1", "1", "nan", "inf", "-0", "1e400", "18446744073709551616", "9" * 5000, "null", "true", "None"),
    *("'", '"', '""', ",", ";", "\t", "\\", "\n", "\r\n", "#", "=", "[", "]", "{", "}", "$(touch CANARY)"),
    *("`touch CANARY`", ";touch CANARY;", "|touch CANARY", "&&touch CANARY", "<script>alert(1)</script>", "../../x"),
    *("/dev/zero", "\x00", "\x1b[31m", "\ufeff", "é", "\u202e", "\U0001f600", "e\u0301", "%s%n", "{0}", "~", "--help"),
    *("a" * 300, "a" * 5000),
)
"""What programs trip over."""


def text_damaged(text: str, draw: random.Random, canary: str = "") -> str:
    """The text with one to three faults in its lines or its words; `CANARY` becomes a file that nothing may make."""
    lines = text.splitlines(keepends=True) or [""]
    for _ in range(draw.choice((1, 1, 2, 3))):
        at = draw.randrange(len(lines))
        line = lines[at]
        place = draw.randrange(len(line) + 1)
        how = draw.randrange(6)
        if how == 0:
            del lines[at]
        elif how == 1:
            lines.insert(draw.randrange(len(lines) + 1), line)
        elif how == 2:
            lines[at] = line[:place] + draw.choice(WORDS) + line[place:]
        elif how == 3:
            lines[at] = line[:place] + draw.choice(WORDS) + line[place + draw.randrange(9) :]
        elif how == 4:
            lines[at] = line[:place]
        else:
            other = draw.randrange(len(lines))
            lines[at], lines[other] = lines[other], line
        lines = lines or [""]
    return "".join(lines).replace("CANARY", canary)
