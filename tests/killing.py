"""Kill -9 a writer of a report before each thing that it does to files, and print what is found, as JSON.

    python tests/killing.py FOLDER

FOLDER/report holds yesterday's report, and may hold other files. Each time it is restored, a child process that writes
today's is killed at its n-th step, and then another writes it. This process never computes with Polars, so that its
children, which do, can be forked.
"""

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

from reports import SUMMARY, contents

from scanner.files import READY, settle
from scanner.report import formats

STEPS = {"os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.chmod", "os.scandir", "os.listdir", "open",
         "ctypes.dlsym"}  # fmt: skip


def write(folder, text, last=0):
    """In a child: write a report of one caption; before its step `last`, if there is one, it is killed. Steps done."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        done = 0

        def step(event, arguments):
            nonlocal done
            if event in STEPS:
                done += 1
                if done == last:
                    os.kill(os.getpid(), signal.SIGKILL)

        for name, form in formats.FORMATS.items():  # written by Rust, unheard
            formats.FORMATS[name] = lambda *args, form=form: (step("open", ()), form(*args))
        page, summary = contents([text]), replace(SUMMARY, scan_id=text)
        sys.addaudithook(step)
        formats.write(folder / "report", page, summary)
        os.write(writing, str(done).encode())
        os._exit(0)
    os.close(writing)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), status
    with os.fdopen(reading) as pipe:
        return int(pipe.read() or 0)


def held(folder):
    """What is in a folder, by name; folders themselves as None."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def main(folder):
    report, kept = folder / "report", folder.parent / "yesterday"
    write(folder, "yesterday")
    shutil.copytree(folder, kept)
    yesterday = held(folder)
    steps = write(folder, "today")
    today = held(folder)
    found = []
    for last in range(1, steps + 1):
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        assert write(folder, "today", last) == 0
        seen = {name: data for name, data in held(folder).items() if ".partial-" not in name}
        ready = (report / READY).exists()
        settle(report)
        settled = {name: data for name, data in held(folder).items() if ".partial-" not in name}
        write(folder, "today")
        names = {True: "whole"}
        found.append(
            {
                "seen": "yesterday" if seen == yesterday else "today" if seen == today else "mixed",
                "ready": ready,
                "settled": "yesterday" if settled == yesterday else "today" if settled == today else "mixed",
                "next": names.get(held(folder) == today, sorted(held(folder))),
            }
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
