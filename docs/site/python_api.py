"""The reference of the Python interface, made of the docstrings of what `import hpcgender` offers."""

from __future__ import annotations

import ast
import re

from docs.site.messages import ROOT

OFFERED = (
    ("hpcgender/predict/model.py", ("load", "Model", "Prediction")),
    ("hpcgender/data/dataset.py", ("open", "SplitDataset", "Sample")),
    ("hpcgender/evaluate/finished.py", ("evaluation", "FinishedEvaluation")),
    ("hpcgender/evaluate/predictions.py", ("Predictions",)),
    ("hpcgender/evaluate/results.py", ("Evaluation", "Gender", "Age", "GroupTable", "Score")),
)
"""Files, and of each the functions and classes: what a program calls, and then what it gets."""
INTERNAL = {
    "Model": ("predictions", "prediction"),
    "SplitDataset": ("image",),
    "Evaluation": ("write",),
    "Predictions": ("rows",),
}
"""Methods that a program does not call."""


def doc(node: ast.ClassDef | ast.FunctionDef) -> str:
    """The docstring, as Markdown: paragraphs, without the indentation of code."""
    return re.sub(r"\n[ \t]*\n", "\n\n", ast.get_docstring(node) or "")


def signature(node: ast.FunctionDef, name: str) -> str:
    """A function's call, without self; an argument on each line where one line would be too long for a page."""
    arguments = node.args
    defaults = [None] * (len(arguments.args) - len(arguments.defaults)) + [*arguments.defaults]
    words = [shown_argument(*pair) for pair in zip(arguments.args, defaults, strict=True) if pair[0].arg != "self"]
    if arguments.kwonlyargs:
        named = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        words += ["*", *(shown_argument(*pair) for pair in named)]
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    one = f"{name}({', '.join(words)}){returned}"
    return one if len(one) <= 90 else "\n".join([f"{name}(", *(f"    {word}," for word in words), f"){returned}"])


def shown_argument(argument: ast.arg, default: ast.expr | None) -> str:
    """An argument with its type and its default."""
    return ast.unparse(argument) + (f" = {ast.unparse(default)}" if default else "")


def is_property(node: ast.FunctionDef) -> bool:
    """Whether a method is read as an attribute."""
    return any(ast.unparse(decorator) in ("property", "cached_property") for decorator in node.decorator_list)


def attributes(node: ast.ClassDef) -> list[str]:
    """A row for each field and property of a class."""
    rows = []
    for place, member in enumerate(node.body):
        if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
            match node.body[place + 1 : place + 2]:
                case [ast.Expr(value=ast.Constant(value=str(words)))]:
                    pass
                case _:
                    words = ""
            rows.append((member.target.id, ast.unparse(member.annotation), words))
        elif isinstance(member, ast.FunctionDef) and is_property(member):
            rows.append((member.name, ast.unparse(member.returns) if member.returns else "", doc(member)))
    if not rows:
        return []
    listed = [
        f"| `{name}` | `{kind.replace('|', chr(92) + '|')}` | {' '.join(words.split())} |" for name, kind, words in rows
    ]
    return ["| attribute | type | what it is |", "|---|---|---|", *listed, ""]


def described(node: ast.ClassDef | ast.FunctionDef) -> list[str]:
    """A function with its signature, or a class with its attributes and methods."""
    if isinstance(node, ast.FunctionDef):
        return [
            f"## hpcgender.{node.name}",
            "",
            "```python",
            signature(node, f"hpcgender.{node.name}"),
            "```",
            "",
            doc(node),
            "",
        ]
    lines = [f"## {node.name}", "", doc(node), "", *attributes(node)]
    for member in node.body:
        if not isinstance(member, ast.FunctionDef) or is_property(member) or member.name in INTERNAL.get(node.name, ()):
            continue
        if (member.name.startswith("_") and member.name != "__getitem__") or not doc(member):
            continue
        lines += ["```python", signature(member, member.name), "```", "", doc(member), ""]
    return lines


def api_page() -> str:
    """All that a program can use, in Markdown."""
    lines = [
        "# Python",
        "",
        "What `import hpcgender` offers. [In Python](../tasks/python.md) has examples. Errors that you can correct are",
        "`shard_tools.base.errors.UserError`, whose text is one line that says what to do.",
        "",
    ]
    for file, names in OFFERED:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        nodes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
        for name in names:
            lines += described(nodes[name])
    return "\n".join(lines)
