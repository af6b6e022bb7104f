"""How every source reads a value: words for unknown, genders and splits, numbers, and ages of 0 to 130 years."""

from __future__ import annotations

import re
from functools import lru_cache

from shard_tools.base.errors import UserError
from shard_tools.manifest import CLASSES

GENDERS = {
    "female": 0, "females": 0, "woman": 0, "women": 0, "f": 0,
    "male": 1, "males": 1, "man": 1, "men": 1, "m": 1,
}  # fmt: skip
SPLITS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validate": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
AROUND = r"(?:data|dataset|set|split|images?|imgs?|photos?|pictures?|faces?)"
"""Words that stand beside those in names of directories."""
_SPLIT = re.compile(rf"(?:{AROUND}[ _-]?)?({'|'.join(SPLITS)})(?:[ _-]?{AROUND})*(?:[ _-]?\d+)?")
UNKNOWN = ("", "unknown", "nan", "none", "null", "n/a", "na", "#n/a", "<na>", "?", "-")
"""Values that mean unknown in any column."""
UNKNOWN_AGES = frozenset({*UNKNOWN, "-1"})
MAX_AGE = 130
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)")

_N = r"(\d+(?:\.\d+)?)"
BIN = re.compile(
    rf"{_N}\s*(?:[-\N{{EN DASH}}\N{{EM DASH}}]|\bto\b)\s*{_N}"
    rf"|[(\[\]]\s*{_N}\s*(?:[-\N{{EN DASH}}\N{{EM DASH}},;]|\bto\b)\s*{_N}\s*[)\[\]]"
)
"""20-29, 20 to 29, (25, 32), [25;32), [20-29]; without brackets a comma is a decimal point's."""
DECIMAL_COMMA = re.compile(r"\+?\d+,\d+")
OPEN = re.compile(
    rf"([<>\u2264\u2265]=?|(more|less|older|younger) than|over|under|above|below|at least|at most)\s*{_N}"
    rf"|{_N}\s*(\+|plus|(and|or) (over|older|above|more|under|younger|below|less))"
)
EXCEL_DATE = re.compile(r"\d{1,2}-[a-z]{3}|[a-z]{3}-\d{2}")
"""What Excel makes of the bins 3-9 and 10-19."""


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How texts begin that a spreadsheet takes for a formula."""


def no_formula(text: str) -> str:
    """A text as no spreadsheet takes it for a formula: with an apostrophe before it, where it would be one."""
    return f"'{text}" if text.lstrip(" '").startswith(FORMULA) else text


def without_apostrophe(text: str) -> str:
    """What `no_formula` was given."""
    return text[1:] if text.startswith("'") and no_formula(text[1:]) == text else text


class MeaninglessError(Exception):
    """Why a value cannot become a label."""


def canonical(value: str) -> str:
    """A value as it is compared: case, space and the spelling of a number (1, 01, +1, 1.0) make no difference."""
    text = value.strip().casefold()
    if not NUMBER.fullmatch(text):
        return text
    number = float(text)
    return str(int(number)) if number.is_integer() else repr(number)


@lru_cache(10_000)
def split_of(text: str) -> str:
    """train, val or test, if a directory or a value names it, as Training, test_set and val2 do; else empty."""
    match = _SPLIT.fullmatch(text.strip().casefold())
    return SPLITS[match[1]] if match else ""


def swapped_word(word: str, gender: int) -> UserError:
    """The error for a word for one gender that is stated to mean the other, `gender`."""
    return UserError(f"{word!r} is a word for {CLASSES[1 - gender]}: it cannot be given as --{CLASSES[gender]}")


def is_age(years: float) -> bool:
    """Whether somebody can be that old."""
    return 0 <= years <= MAX_AGE


def age_of(text: str) -> float:
    """The years of an age that a table, a list or a name spells so, a bin's middle; -1 for a word for unknown.

    A comma is a decimal point: a field holds one only where it does not separate fields. Raises MeaninglessError with
    the reason for everything else: nothing is guessed.
    """
    value = canonical(text)
    if value in UNKNOWN_AGES:
        return -1.0
    found = BIN.fullmatch(value)
    if found:
        low, high = (float(bound) for bound in found.groups() if bound is not None)
        if is_age(low) and is_age(high) and low <= high:
            return (low + high) / 2
        raise MeaninglessError(f"its age {text!r} is no bin from a lower to a higher age, 0 to {MAX_AGE} years")
    if OPEN.fullmatch(value):
        raise MeaninglessError(
            f"its age {text!r} has no other end: state which number it stands for, as in --ages '{text}' 75"
        )
    if DECIMAL_COMMA.fullmatch(value):
        if len(value.rpartition(",")[2]) == 3:
            raise MeaninglessError(f"its age {text!r} may have a decimal comma or one of thousands")
        value = value.replace(",", ".")
    if NUMBER.fullmatch(value):
        if is_age(float(value)):
            return float(value)
        raise MeaninglessError(f"its age {text!r} is not 0 to {MAX_AGE} years")
    hint = ", which Excel may have made a date" if EXCEL_DATE.fullmatch(value) else ""
    raise MeaninglessError(f"its age {text!r} is neither 0 to {MAX_AGE} years nor a bin such as 20-29{hint}")
