"""The structure of the code: imports run one way, and what is known of a scheduler stands in its room."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import LONGEST

ROOT = Path(__file__).parents[1]
PACKAGES = ("shard_tools", "jobs", "hpcgender")


def modules() -> dict[str, Path]:
    """Every module of the three packages by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the project that a module imports anywhere: also within functions and for types alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name if path.name == "__init__.py" else name.rpartition(".")[0]
                for _ in range(node.level - 1):
                    package = package.rpartition(".")[0]
                base = f"{package}.{base}" if base else package
            for alias in node.names:
                if f"{base}.{alias.name}" in known:
                    yield f"{base}.{alias.name}"
                elif base in known:
                    yield base


def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: set(imports(name, path, known)) - {name} for name, path in known.items()}


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Sets of modules that import each other, directly or through others (Tarjan's strongly connected components)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for other in arrows[name]:
            if other not in number:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], number[other])
        if low[name] == number[name]:
            place = stack.index(name)
            component = stack[place:]
            del stack[place:]
            if len(component) > 1:
                found.append(sorted(component))

    for name in arrows:
        if name not in number:
            visit(name)
    return found


def test_no_module_imports_itself_through_others() -> None:
    assert circles(graph()) == []


def test_imports_between_packages_run_one_way() -> None:
    wrong = [
        f"{name} -> {other}"
        for name, others in graph().items()
        for other in others
        if (name.startswith("shard_tools") and not other.startswith("shard_tools"))
        or (name.startswith("jobs") and other.startswith("hpcgender"))
        or (name.startswith("jobs") and other.startswith("shard_tools") and not other.startswith("shard_tools.base"))
        or (name.startswith("shard_tools.base") and not other.startswith("shard_tools.base"))
        or (other.startswith("jobs") and name.startswith("hpcgender") and not name.startswith(ABOVE_JOBS))
    ]
    assert wrong == []


ABOVE_JOBS = (
    "hpcgender.launch",
    "hpcgender.status",
    "hpcgender.commands",
    "hpcgender.report",
    "hpcgender.doctor",
    "hpcgender.plan",
    "hpcgender.study",
)
"""What knows both training and jobs."""


def test_a_schedulers_name_is_compared_in_its_room_alone() -> None:
    listed = subprocess.run(
        ["git", "grep", "-nE", "[\"'](slurm|sge|local)[\"']", "--", "hpcgender", "jobs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    allowed = re.compile(
        r"^(jobs/(slurm|sge)/|jobs/local\.py:|jobs/sites/[\w-]+\.toml:|hpcgender/commands/launch\.py:)"
    )
    assert [line for line in listed.splitlines() if not allowed.match(line)] == []


def test_no_file_is_past_400_lines() -> None:
    paths = [path for folder in (*PACKAGES, "tests", "docs") for path in (ROOT / folder).rglob("*.py")]
    lines = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in paths}
    assert {path: count for path, count in lines.items() if count > 400} == {}


def test_the_longest_tests_are_where_they_are_said_to_be() -> None:
    assert [path for path in LONGEST if not (ROOT / path).exists()] == []
