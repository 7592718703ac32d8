"""A headless Chromium driven over the DevTools protocol's pipe: no driver, no package, no open port."""

import base64
import json
import os
import shutil
import time
from itertools import count

CANDIDATES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome")
TIMEOUT = 15.0  # seconds
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--disable-dev-shm-usage")


def installed():
    """Path of a Chromium on this machine, or None."""
    return next(filter(None, map(shutil.which, CANDIDATES)), None)


class Browser:
    """One browser with one tab. `events`: what the page requested, logged and threw since it was opened."""

    def __init__(self, executable, profile):
        read_by_browser, self._out = os.pipe()
        self._in, written_by_browser = os.pipe()
        command = [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        descriptors = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
        # the protocol speaks on 3 and 4, whatever numbers the pipes have here
        descriptors += [(os.POSIX_SPAWN_DUP2, read_by_browser, 3), (os.POSIX_SPAWN_DUP2, written_by_browser, 4)]
        self._process = os.posix_spawn(executable, command, os.environ, file_actions=descriptors)
        os.close(read_by_browser)
        os.close(written_by_browser)
        self._numbers, self._buffer, self._session, self.events = count(1), b"", None, []
        pages = self.call("Target.getTargets")["targetInfos"]
        target = next(page["targetId"] for page in pages if page["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """One command of the protocol; returns its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != number:
            pass
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def open(self, path, width=1200, height=900, **media):
        """Load a local file and wait until its table is ready; `media`: features like prefers_color_scheme="dark"."""
        self.events.clear()
        self.resize(width, height)
        self.emulate(**media)
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.readyState === 'complete'")

    def emulate(self, media="", **features):
        """Emulate a medium ("print") and its features."""
        listed = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", media=media, features=listed)

    def resize(self, width, height):
        """Size of the window in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def run(self, expression):
        """Value of a JavaScript expression in the page (a promise is awaited)."""
        given = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", **given)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression):
        """Poll until the expression is true."""
        end = time.monotonic() + TIMEOUT
        while not self.run(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.01)

    def settle(self):
        """Wait until what was asked is drawn."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def click(self, selector):
        """Click with the mouse on the middle of the first element that matches."""
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        self.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'nearest'}})")
        x, y = self.run(f"(box => [box.x + box.width / 2, box.y + box.height / 2])({box})")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def press(self, key, text=""):
        """Press and release one key."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **({"text": text} if kind == "keyDown" else {}))
        self.settle()

    def type(self, text):
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)
        self.settle()

    def picture(self, path):
        """Write a PNG of the window."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def pdf(self):
        """The page as printed, in bytes."""
        return base64.b64decode(self.call("Page.printToPDF")["data"])

    def requests(self):
        """URLs that the page asked for since it was opened, itself included."""
        return [event["params"]["request"]["url"] for event in self._of("Network.requestWillBeSent")]

    def complaints(self):
        """Errors, warnings and console lines of the page since it was opened."""
        return [e["params"] for e in self._of("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")]

    def close(self):
        """Close the browser."""
        self.call("Browser.close")
        os.waitpid(self._process, 0)
        os.close(self._in)
        os.close(self._out)

    def _of(self, *methods):
        return [event for event in self.events if event.get("method") in methods]

    def _next(self):
        while b"\0" not in self._buffer:
            piece = os.read(self._in, 1 << 16)
            assert piece, "the browser ended"
            self._buffer += piece
        line, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(line)
        self.events.append(message)
        return message
