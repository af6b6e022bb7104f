"""Tests run where NVIDIA DALI is not installed: those that need it are skipped, and none stops the others."""

from __future__ import annotations

import ast
import sys

import pytest

from tests import forked
from tests.conftest import REPOSITORY
from tests.forked import import_libraries


def imported(tree: ast.Module) -> list[str]:
    """The modules that a file imports when it is imported itself."""
    names = []
    for statement in tree.body:
        if isinstance(statement, ast.Import):
            names += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            names.append(statement.module)
    return names


def test_no_test_needs_dali_to_be_collected() -> None:
    needs = ("nvidia", "hpcgender.data.decoders.dali")
    found = {}
    for path in sorted((REPOSITORY / "tests").rglob("*.py")):
        names = [name for name in imported(ast.parse(path.read_text())) if name.startswith(needs)]
        if names:
            found[str(path.relative_to(REPOSITORY))] = names
    assert found == {}


def test_commands_are_forked_without_dali(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("nvidia.dali.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)  # as Python notes that there is none
    dali = tuple(library for library in forked.LIBRARIES if library.startswith(forked.OPTIONAL))
    assert dali
    monkeypatch.setattr(forked, "LIBRARIES", (*dali, "json"))
    import_libraries()
    monkeypatch.setattr(forked, "LIBRARIES", (*dali, "no_such_library"))
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        import_libraries()
