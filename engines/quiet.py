"""No runtime talks to anybody: each is told so before its first import, here and nowhere else.

ONNX Runtime's official builds queue an event with processor, system and the path of Python; OpenVINO and NNCF send
their import and every conversion through the package `openvino_telemetry`, and do without where it cannot be imported.
Hub libraries add who asks to what they fetch, and draw progress bars into whatever log there is. A Ray cluster sends
what it runs on, every hour.

What does not look at the network of itself, tried with strace: polars, deltalake, tokenizers, torch.
"""

import os
import sys

VARIABLES = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
PACKAGES = ("openvino_telemetry",)  # are not to be had


def silence() -> None:
    """Tell all of them, child processes too. What was imported before has spoken already."""
    os.environ.update(VARIABLES)
    for name in PACKAGES:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # Python's own way to say so


def spoken() -> list[str]:
    """What was imported before `silence` and may talk."""
    return [name for name in PACKAGES if sys.modules.get(name) is not None]
