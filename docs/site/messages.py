"""The messages of errors, as they stand in the source: their words, with … for what differs, and what they advise."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeGuard

from shard_tools.base.extras import pip_install

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("shard_tools", "jobs", "hpcgender")
VARIES = "…"
SAID = "[what to do]"
"""For advice that differs from case to case, as the names of what holds it say."""
ERRORS = re.compile(r"(User|Storage|Unusable\w*|Scheduler|Image|Tar|Record|Unlabelled|Meaningless|Unreadable)Error$")
"""The exceptions whose words reach people: alone, or within a list of what was left out."""
OTHERS = {"fault": -1, "unknown": 0, "yellow": 1, "red": 1}
"""Functions that make messages, and which argument has the words: a fault in a TOML file, a name that is not known,
what `hpcgender doctor` finds."""
VERBS = (
    *("add", "ask", "attach", "be", "cancel", "change", "choose", "close", "compare", "compute", "copy", "correct"),
    *("create", "did you mean", "do as", "download", "end", "evaluate", "examine", "export", "find", "fit", "free"),
    *("freeze", "get", "give", "have", "install", "keep", "leave", "load", "log in", "look", "make", "mend", "mount"),
    *("move", "name", "omit", "pack", "put", "raise", "rebuild", "remove", "rename", "renew", "repair", "request"),
    *("restore", "resume", "run", "save", "say", "see", "set", "start", "state", "submit", "take", "train larger"),
    *("try", "unpack", "unset", "use", "wait", "when", "write"),
)
COMMANDS = ("hpcgender", "shard-tools", "pip", r"\.venv", "bash", "qconf", "known", "same command", "on a machine")
QUESTIONS = ("which is it", "are male", "is it", "on a CPU")
ADVISES = re.compile(
    rf"(?:\(|or |and |then |first |perhaps )?(?:the |it )?(?:{'|'.join([*VERBS, *COMMANDS, *QUESTIONS])})\b",
    re.IGNORECASE,
)
"""How advice begins, after a colon or a semicolon."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message, or several with the same words."""

    module: str
    """Where it is made, such as hpcgender/train/loop.py."""
    kind: str
    """The exception or the function."""
    words: str
    """The whole message."""

    @property
    def parts(self) -> tuple[str, str]:
        """What is wrong, and the advice in the words; that is empty if there is none."""
        for found in re.finditer(r"[:;] ", self.words):
            advice = self.words[found.end() :]
            if advice.startswith(SAID) or ADVISES.match(advice):
                return self.words[: found.start()], advice
        return self.words, ""


@dataclass
class Source:
    """One file, and the texts that its names stand for."""

    path: Path
    tree: ast.Module
    texts: dict[str, ast.expr] = field(default_factory=dict)
    imported: dict[str, str] = field(default_factory=dict)
    """Module by the name that is imported from it."""


@cache
def sources() -> Mapping[str, Source]:
    """All files of the three packages by the names of their modules."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            source = Source(path, tree)
            for statement in tree.body:
                match statement:
                    case ast.Assign(targets=[ast.Name(id=name)], value=value):
                        source.texts[name] = value
                    case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                        source.texts |= {n.id: v for n, v in zip(names, values, strict=True) if isinstance(n, ast.Name)}
                    case ast.ImportFrom(module=str(module), names=names):
                        source.imported |= {alias.asname or alias.name: module for alias in names}
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[module] = source
    return found


def lookup(name: str, source: Source, local: Mapping[str, ast.expr]) -> tuple[ast.expr, Source] | None:
    """What a name stands for: in its function, its file, or the file that it is imported from."""
    if name in local:
        return local[name], source
    if name in source.texts:
        return source.texts[name], source
    other = sources().get(source.imported.get(name, ""))
    return (other.texts[name], other) if other and name in other.texts else None


def text(node: ast.expr, source: Source, local: Mapping[str, ast.expr], depth: int = 0) -> str:
    """The words of an expression, with … for what only a run knows."""
    match node:
        case ast.Constant(value=value):
            return str(value)
        case ast.JoinedStr(values=values):
            return "".join(text(value, source, local, depth) for value in values)
        case ast.FormattedValue(value=value):
            return text(value, source, local, depth)
        case ast.BinOp(op=ast.Add(), left=ast.Constant(value=int())) | ast.BinOp(right=ast.Constant(value=int())):
            return VARIES  # a number
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return text(left, source, local, depth) + text(right, source, local, depth)
        case ast.Name(id=name) if depth < 3 and (found := lookup(name, source, local)):
            value, where = found
            return text(value, where, local if where is source else {}, depth + 1)
        case ast.Call(func=ast.Name(id="plural"), args=[_, *forms]):  # of several
            return f"{VARIES} {text(forms[-1], source, local, depth)}{'s' * (len(forms) == 1)}"
        case ast.Name(id="again" | "advice" | "remedy"):
            return SAID
        case ast.Call(func=ast.Name(id="pip_install"), args=[extra]):
            return pip_install(text(extra, source, local, depth))
    return VARIES


def assigned(function: ast.AST) -> dict[str, ast.expr]:
    """The names that a function gives a value once, with it."""
    values: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                values.setdefault(name, []).append(value)
            case ast.For(target=target) | ast.comprehension(target=target) | ast.NamedExpr(target=target):
                for part in ast.walk(target):
                    if isinstance(part, ast.Name):
                        values.setdefault(part.id, []).extend([target, target])
    return {name: found[0] for name, found in values.items() if len(found) == 1}


def calls(node: ast.AST, local: Mapping[str, ast.expr]) -> Iterator[tuple[ast.Call, Mapping[str, ast.expr]]]:
    """All calls below a node, with the values of the names of the functions around them."""
    for child in ast.iter_child_nodes(node):
        inner = local
        if isinstance(child, ast.FunctionDef):
            arguments = {argument.arg for argument in ast.walk(child.args) if isinstance(argument, ast.arg)}
            inner = {n: v for n, v in (*local.items(), *assigned(child).items()) if n not in arguments}
        if isinstance(child, ast.Call):
            yield child, local
        yield from calls(child, inner)


def variants(node: ast.expr, source: Source, local: Mapping[str, ast.expr]) -> Iterator[str]:
    """The words of an argument: of a choice between two, those of both."""
    if isinstance(node, ast.IfExp):
        yield from variants(node.body, source, local)
        yield from variants(node.orelse, source, local)
    else:
        yield text(node, source, local)


def wording(call: ast.Call, source: Source, local: Mapping[str, ast.expr]) -> Iterator[tuple[str, str]]:
    """The kind and the words of each message that a call makes; none if it makes none."""
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            pass
        case _:
            return
    stderr = any(ast.unparse(option.value) == "sys.stderr" for option in call.keywords)
    if name in ("_print", "print") and (stderr or name == "_print") and call.args:
        for words in variants(call.args[0], source, local):
            yield "print", words
    if ERRORS.search(name) and call.args:
        for words in variants(call.args[0], source, local):
            yield name, words
    elif name == "append" and ast.unparse(call.func) == "warnings.append":
        for words in variants(call.args[0], source, local):
            yield "warning", f"WARNING: {words}"
    elif name in OTHERS and len(call.args) > 2 - (name == "fault" and len(call.args) == 2):
        wanted = call.args[OTHERS[name]]
        for words in variants(wanted, source, local):
            if name == "fault":
                yield name, f"{VARIES}, line {VARIES}: {words}"
            elif name == "unknown":
                yield name, f"unknown {words} {VARIES}: did you mean {VARIES}?"
            else:
                for advice in variants(call.args[2], source, local):
                    yield name, f"{words}: {advice}"


def is_warning(node: ast.AST) -> TypeGuard[ast.JoinedStr]:
    """Whether a text in the source is a warning."""
    match node:
        case ast.JoinedStr(values=[ast.Constant(value=str(begin)), *_]):
            return begin.startswith("WARNING: ")
    return False


@cache
def messages() -> tuple[Message, ...]:
    """All messages of the source, each once in a file."""
    found: dict[tuple[str, str], Message] = {}
    for source in sources().values():
        if source.path.name == "progress.py" and source.path.parent.name == "base":
            continue  # says how far the work is
        module = str(source.path.relative_to(ROOT))
        made: list[tuple[str, str]] = []
        for call, local in calls(source.tree, {}):
            made += wording(call, source, local)
        made += [("warning", text(node, source, {})) for node in ast.walk(source.tree) if is_warning(node)]
        for kind, words in made:
            plain = re.sub(rf"{VARIES}(?:[\s,]*{VARIES})+", VARIES, " ".join(words.split()))
            if re.search(r"[a-z]{2}", plain):
                found.setdefault((module, plain), Message(module=module, kind=kind, words=plain))
    for words in shell_messages():
        found[INSTALLER, words] = Message(module=INSTALLER, kind="stop", words=words)
    return tuple(found.values())


INSTALLER = "jobs/install.sh"


def shell_messages() -> Iterator[str]:
    """The messages with which the installer stops."""
    script = (ROOT / INSTALLER).read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r'\bstop (".*?")(?:$|;;|\n)', script, re.MULTILINE):
        words = re.sub(r'"\s+"', " ", line).strip('" ')
        words = re.sub(r"\$again\b", "bash jobs/install.sh", words)
        yield re.sub(rf"(?:{VARIES})+", VARIES, re.sub(r"\$\{.*?\}|\$\(.*?\)|\$\w+", VARIES, words))
