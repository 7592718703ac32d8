"""A local server of Azure blobs: Azurite (npm install -g azurite), in a process of its own, with a fresh folder."""

import base64
import contextlib
import hashlib
import hmac
import http.client
import shutil
import socket
import subprocess
import tempfile
import time
from email.utils import formatdate

ACCOUNT = "devstoreaccount1"  # and its key are Azurite's own, and everybody knows them
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
COMMAND = "azurite-blob"


class Azure:
    """The server with an empty container, `bucket`. `settings`: the environment that leads clients there."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.settings = {
            "AZURE_STORAGE_USE_EMULATOR": "true",
            "AZURITE_BLOB_STORAGE_URL": f"http://127.0.0.1:{self.port}",
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
        }
        self.folder = tempfile.mkdtemp(prefix="azurite-")
        how = ("--silent", "--skipApiVersionCheck", "--disableTelemetry", "--blobPort", str(self.port))
        self.process = subprocess.Popen([COMMAND, "--location", self.folder, *how], stdout=subprocess.DEVNULL)
        try:
            self._wait()
            self._make("bucket")
        except BaseException:
            self.stop()
            raise

    def _wait(self):
        for _ in range(3000):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            time.sleep(0.1)
        raise TimeoutError(f"{COMMAND} does not answer")

    def _make(self, container):
        """Put a container there, which obstore cannot; signed as Microsoft's "Authorize with Shared Key" says."""
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        named = "".join(f"{name}:{value}\n" for name, value in headers.items())
        signed = f"PUT{12 * chr(10)}{named}/{ACCOUNT}/{ACCOUNT}/{container}\nrestype:container"
        digest = hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()
        headers |= {"Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}", "Content-Length": "0"}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port)) as connection:
            connection.request("PUT", f"/{ACCOUNT}/{container}?restype=container", headers=headers)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (201, b"")

    def stop(self):
        """End it and forget what it held."""
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
