"""Pages: one HTML file from a jinja2 template. It loads no other file and runs no script."""

from __future__ import annotations

import base64

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from shard_tools.base.colours import NAMES, accent


def render(package: str, template: str, **content: object) -> str:
    """The page of `template`, a file in the directory `templates` of a package.

    Templates extend `page.html` and use the macros of `parts.html`, which lie beside this module. Text in `content` is
    escaped; `markupsafe.Markup` is not. A name that `content` lacks raises `jinja2.UndefinedError`.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("shard_tools.base")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["colours"] = NAMES
    environment.filters["accent"] = accent
    environment.filters["base64"] = in_base64
    return environment.get_template(template).render(content)


def in_base64(content: bytes) -> str:
    """Bytes as a data: URI has them."""
    return base64.b64encode(content).decode()
