"""A real headless Chromium, driven through the pipes of its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")

LAYOUT = """
(async () => {
  for (const image of document.images) image.loading = "eager";
  await Promise.all([...document.images].map(image => image.decode().catch(() => {})));
  return {
    across: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    broken: [...document.images].filter(image => !image.naturalWidth).map(image => image.alt),
    images: document.images.length,
    charts: [...document.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect().height),
    cut: [...document.querySelectorAll(".card, .tiles li, figure")].filter(
      box => box.scrollWidth > box.clientWidth + 1).map(box => box.textContent.slice(0, 60)),
    paper: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
    letters: Math.min(...[...document.querySelectorAll("svg text")].map(text => text.getBoundingClientRect().height)),
    text: document.body.innerText,
  };
})()
"""


@dataclass
class Browser:
    """One page of a browser; `complaints` are the console's messages about the last page that was opened."""

    to: int
    of: int
    session: str = ""
    number: int = 0
    buffer: bytes = b""
    complaints: list[str] = field(default_factory=list)
    loaded: bool = False
    asked: list[str] = field(default_factory=list)
    """Addresses that the page wanted from the network or the disk."""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the protocol; what happens meanwhile is noted."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def read(self) -> dict[str, Any]:
        """The next message, noted if it is an event."""
        while b"\0" not in self.buffer:
            block = os.read(self.of, 1 << 20)
            assert block, "the browser went away"
            self.buffer += block
        line, _, self.buffer = self.buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        match message.get("method"):
            case "Log.entryAdded":
                self.complaints.append(message["params"]["entry"]["text"])
            case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled":
                self.complaints.append(str(message["params"]))
            case "Page.loadEventFired":
                self.loaded = True
            case "Network.requestWillBeSent":
                self.asked.append(message["params"]["request"]["url"][:200])
            case "Network.webSocketCreated":
                self.asked.append(message["params"]["url"][:200])
        return message

    def open(self, page: Path, width: int, scheme: Literal["light", "dark"], media: str = "screen") -> dict[str, Any]:
        """Shows a page so many pixels wide and in a colour scheme, and returns its layout; see LAYOUT."""
        self.look(width, scheme, media)
        self.visit(page.absolute().as_uri())
        layout: dict[str, Any] = self.value(LAYOUT)
        return layout

    def look(self, width: int, scheme: Literal["light", "dark"], media: str = "screen") -> None:
        """Shows pages so many pixels wide and in a colour scheme from now on."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call(
            "Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}]
        )

    def visit(self, address: str) -> None:
        """Opens a page and waits until it is loaded."""
        self.complaints, self.asked, self.loaded = [], [], False
        self.call("Page.navigate", url=address)
        while not self.loaded:
            self.read()

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript is, awaited if it is a promise."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression: str, seconds: float = 120) -> None:
        """Waits until an expression of JavaScript is true."""
        end = time.monotonic() + seconds
        while not self.value(f"Boolean({expression})"):
            assert time.monotonic() < end, f"{expression} is not true of: {self.value('document.body.innerText')}"
            time.sleep(0.2)

    def give(self, selector: str, *files: Path) -> None:
        """Chooses files in an `input`."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file.absolute()) for file in files])

    def shoot(self, png: Path) -> None:
        """A picture of the whole page that is open."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        taken = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        png.write_bytes(base64.b64decode(taken["data"]))

    def print(self, pdf: Path) -> None:
        """The page that is open, as it is printed on A4."""
        taken = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=True)
        pdf.write_bytes(base64.b64decode(taken["data"]))


@contextmanager
def chromium(profile: Path, *more: str) -> Iterator[Browser]:
    """A browser, with more options of its own, that reaches no network but 127.0.0.1.

    The test is skipped, with a message, where none is installed."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no {' or '.join(NAMES)} in PATH: install one, as by apt-get install chromium")
    from_us, to_us = os.pipe(), os.pipe()
    # Without a sandbox of its own: root has none, and the page is ours.
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options += ["--remote-debugging-pipe", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    options += [*more, f"--user-data-dir={profile}"]

    # Commands come in file descriptor 3, answers go to 4.
    shell = f'exec "$@" 3<&{from_us[0]} 4>&{to_us[1]} 2>/dev/null'
    started = subprocess.Popen(["bash", "-c", shell, "-", program, *options], pass_fds=(from_us[0], to_us[1]))
    os.close(from_us[0])
    os.close(to_us[1])
    browser = Browser(from_us[1], to_us[0])
    try:
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        browser.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            browser.call(f"{domain}.enable")
        yield browser
        browser.session = ""
        browser.call("Browser.close")
    finally:
        os.close(from_us[1])
        os.close(to_us[0])
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
