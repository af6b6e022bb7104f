"""`hpcgender app`: loads the models, says where the page is, and serves it on this machine alone until it is ended."""

from __future__ import annotations

import getpass
import secrets
import socket
from pathlib import Path
from typing import Any

from hpcgender.app.answers import MAX_MB
from hpcgender.app.shown import ShownModel, opened
from hpcgender.commands.app import AppConfig
from shard_tools.base.commands import parse_options
from shard_tools.base.errors import UserError
from shard_tools.base.text import printable

LOOPBACK = "127.0.0.1"
COLOURS = {
    "light": ("#f6f5f2", "#ffffff", "#1c1b19", "#3d6b57"),
    "dark": ("#161614", "#21211e", "#eceae4", "#7dbb9e"),
}
"""Of paper, cards, letters and what is chosen, as page.css has them."""
SCRIPT = Path(__file__).with_name("script.py")


def app(config: AppConfig) -> None:
    """Serves the page until SIGINT or SIGTERM; UserError, before it starts, for what cannot work."""
    config.check()
    check_port(config.port)
    models = opened(parse_options(AppConfig, "hpcgender app", words(config)))  # as the script has them: loaded once
    secret = secrets.token_urlsafe(12)
    for model in models:
        print(printable(description(model)))
    print(f"page: http://{LOOPBACK}:{config.port}/{secret}/    (Ctrl-C ends it)")
    print(f"from another machine, first: ssh -L {config.port}:{LOOPBACK}:{config.port} {user()}{socket.gethostname()}")
    print(end="", flush=True)
    serve(config, secret)


def check_port(port: int) -> None:
    """Raises UserError if another program has the port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError as error:
            raise UserError(f"--port {port} of {LOOPBACK}: {error.strerror}; give another one") from None


def description(shown: ShownModel) -> str:
    """What is shown of a model, one line."""
    found = ", ".join(one.directory_name for one in shown.evaluated) or "none of this checkpoint"
    return f"{shown.name}: {shown.checkpoint}; {shown.model.words}; evaluations: {found}"


def user() -> str:
    """The name before the host in ssh's command; empty if it is not known."""
    try:
        return f"{getpass.getuser()}@"
    except (OSError, KeyError):  # a user without an entry, as in containers
        return ""


def serve(config: AppConfig, secret: str) -> None:
    """Runs Streamlit in this process; what users set for Streamlit elsewhere does not change what is set here."""
    from starlette.formparsers import MultiPartParser
    from streamlit.web import bootstrap

    # Larger uploads than this go through a file, and 1 MB is its default.
    MultiPartParser.spool_max_size = 2 * MAX_MB << 20
    flags = {name.replace(".", "_"): value for name, value in options(config.port, secret).items()}
    bootstrap.load_config_options(flags)
    bootstrap.run(str(SCRIPT), False, words(config), flags)


def words(config: AppConfig) -> list[str]:
    """The options as a command line, from which the script has them again."""
    lists = (("--checkpoint", config.checkpoints), ("--evaluation", config.evaluation), ("--cam", config.cam))
    return [word for name, paths in lists if paths for word in (name, *map(str, paths))]


def options(port: int, secret: str) -> dict[str, Any]:
    """Streamlit's options."""
    found: dict[str, Any] = {
        "server.address": LOOPBACK,
        "server.port": port,
        "server.baseUrlPath": secret,
        "server.allowedHosts": [LOOPBACK, "localhost"],
        "server.headless": True,
        "server.maxUploadSize": MAX_MB,
        "server.maxMessageSize": 2 * MAX_MB,
        "server.fileWatcherType": "none",
        "server.enableCORS": True,
        "server.enableXsrfProtection": True,
        "server.enableStaticServing": False,
        "browser.gatherUsageStats": False,
        "browser.serverAddress": LOOPBACK,
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "client.showErrorLinks": False,
        "logger.hideWelcomeMessage": True,
        "logger.level": "warning",
        "global.developmentMode": False,
    }
    for scheme, colours in COLOURS.items():
        names = ("backgroundColor", "secondaryBackgroundColor", "textColor", "primaryColor")
        found |= {f"theme.{scheme}.{name}": colour for name, colour in zip(names, colours, strict=True)}
    return found
