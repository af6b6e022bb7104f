"""Dataclasses from JSON and TOML: what fits is read as it was written, and what does not is named with its place."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from shard_tools.base.documents import parse_toml, read_document, restored, restored_part, write_document
from shard_tools.base.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Part:
    a: int
    b: float | None = None


@dataclass(frozen=True, kw_only=True)
class Whole:
    x: float
    flag: bool = False
    freeze: Annotated[Literal["none", "backbone"] | int, "help"] = "none"
    warmup: float | Literal["auto"] = "auto"
    path: Path | None = None
    name: Annotated[str, "help"] = ""
    parts: tuple[Part, ...] = ()
    pair: tuple[float, float] = (1.0, 2.0)
    table: Mapping[str, Part] = field(default_factory=dict)
    anything: dict[str, Any] = field(default_factory=dict)
    stride: Literal[8, 16] = 8


FULL = Whole(
    x=math.nan, flag=True, freeze=3, warmup=0.5, path=Path("/a"), name="é", parts=(Part(a=1), Part(a=2, b=3.5)),
    pair=(0.5, math.inf), table={"k": Part(a=4)}, anything={"lr": 1, "tasks": ["gender"]}, stride=16,
)  # fmt: skip


def test_a_document_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "whole.json"
    write_document(file, "form-1", asdict(FULL) | {"path": "/a"})
    content = read_document(file, "form-1", "make one", "make it again")
    read = restored(Whole, content, file, "make it again")
    assert math.isnan(read.x)
    assert math.isnan(read.pair[1])  # JSON has no infinity either
    assert asdict(read) | {"x": 0, "pair": 0} == asdict(FULL) | {"x": 0, "pair": 0}
    assert [path.name for path in tmp_path.iterdir()] == ["whole.json"]


def test_integers_and_null_are_floats_and_nothing_else_is_converted() -> None:
    read = restored(Whole, {"x": 1, "warmup": 2, "pair": [1, 2]}, Path("f"), "again")
    assert repr((read.x, read.warmup, read.pair)) == "(1.0, 2.0, (1.0, 2.0))"


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"x": "1"}, "x must be a number, not '1'"),
        ({"x": True}, "x must be a number, not true"),
        ({"flag": 1}, "flag must be true or false, not 1"),
        ({"freeze": True}, "freeze must be 'none' or 'backbone' or a whole number, not true"),
        ({"freeze": "back"}, "freeze must be 'none' or 'backbone' or a whole number, not 'back'"),
        ({"warmup": "a"}, "warmup must be a number or 'auto', not 'a'"),
        ({"stride": 8.0}, "stride must be 8 or 16, not 8.0"),
        ({"path": 3}, "path must be text in quotes, not 3"),
        ({"name": None}, "name must be text in quotes, not null"),
        ({"parts": "ab"}, "parts must be a list in [ ], each a table, not 'ab'"),
        ({"parts": [{"a": 1}, {"a": 1.5}]}, "parts[1].a must be a whole number, not 1.5"),
        ({"parts": [{"b": 1}]}, "parts[0].a is missing: it must be a whole number"),
        ({"pair": [1, 2, 3]}, "pair must be a list in [ ] of 2, each a number, not [1, 2, 3]"),
        ({"table": [1]}, "table must be a table, not [1]"),
        ({"table": {"k": {"a": 1, "c": 1}}}, "table.k.c is unknown: known: a, b"),
        ({"anything": 3}, "anything must be a table, not 3"),
        ({"nmae": "x"}, "nmae is unknown: did you mean name?"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(value: dict[str, Any], fault: str) -> None:
    with pytest.raises(UserError) as error:
        restored(Whole, {"x": 1, **value}, Path("f.json"), "make it again")
    assert str(error.value) == f"f.json is damaged ({fault}): make it again"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('x = 1\n[table.k]\na = 1\n[table.j]\na = "x"', "line 5: table.j.a must be a whole number, not 'x'"),
        ("x_1 = 0\n", "line 1: x_1 is unknown: ask for help"),
        ('# name = 3\nname_ = 0\n"name" = 3', "line 2: name_ is unknown: did you mean name?"),
        ("\n\ntable = {k = {a = true}}", "line 3: table.k.a must be a whole number, not true"),
        ("stride = 8\nparts = [\n{a = 1},\n{a = 'z'},\n]", "line 3: parts[1].a must be a whole number, not 'z'"),
        ("flag = true\nx = yes", "Invalid value (at line 2, column 5)"),
        ("flag = true\nx = 2\npath = 3", "line 3: path is unknown: did you mean parts?"),
    ],
)
def test_a_fault_in_toml_has_its_line(text: str, fault: str) -> None:
    with pytest.raises(UserError) as error:
        parse_toml(text, "mine.toml").values(Whole, without=("path",), hint="ask for help")
    assert str(error.value).replace("mine.toml, ", "").replace("mine.toml: ", "") == fault


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 200 + "1" + "}" * 200, "[" * 200 + "]" * 200, "1" * 9000])
def test_json_that_no_reader_could_follow_is_damaged(text: str, tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(UserError, match=r"f\.json is damaged \(.*\): again$"):
        read_document(tmp_path / "f.json", "form-1", "make one", "again")


@pytest.mark.parametrize("text", ["a = " + "[" * 50_000, "a = {" * 5000, "a." * 5000 + "b = 1", "a = " + "1" * 9000])
def test_toml_that_no_reader_could_follow_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"^t\.toml: [^\n]+$"):
        parse_toml(text, "t.toml")


def test_what_is_as_deep_as_it_may_be_is_read() -> None:
    assert parse_toml(f"anything.{'a.' * 90}b = 1", "t").values(Whole)["anything"]
    with pytest.raises(UserError, match="t: it is nested more than 100 deep"):
        parse_toml(f"anything.{'a.' * 100}b = 1", "t")


def test_an_integer_that_no_float_can_be_does_not_fit() -> None:
    with pytest.raises(UserError, match=r"^f is damaged \(x must be a number, not 1000.*\): again$"):
        restored(Whole, {"x": 10**400}, Path("f"), "again")


def test_only_what_is_set_has_values() -> None:
    assert parse_toml("x = 1\npair = [1, 2]", "t").values(Whole) == {"x": 1.0, "pair": (1.0, 2.0)}


def test_a_part_of_a_document_needs_all_of_its_fields() -> None:
    content = json.loads(json.dumps({"a": 1, "b": 2, "else": None}))
    assert restored_part(Part, content, Path("f.json"), "again") == Part(a=1, b=2.0)
    with pytest.raises(UserError, match=r"^f\.json has no b: again$"):  # although it has a default
        restored_part(Part, {"a": 1, "else": None}, Path("f.json"), "again")
