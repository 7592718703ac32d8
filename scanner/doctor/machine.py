"""Processor, memory, disks and text encodings."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from engines.cache import cache_folder
from engines.cores import usable_cores
from scanner.doctor.finding import Asked, Finding
from scanner.places import is_url

CPUINFO, CPU_QUOTA = Path("/proc/cpuinfo"), Path("/sys/fs/cgroup/cpu.max")
# instructions that the runtimes use, as Linux names them
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
THREADS = "OMP_NUM_THREADS"
LITTLE, NONE_LEFT = 2**30, 2**24  # bytes


def processor(asked: Asked) -> Iterator[Finding]:
    """The instructions that decide the CPU's speed."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.is_file() else []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    held = [name for name in INSTRUCTIONS if name in flags]
    found = f"{model or platform.processor() or platform.machine()}: {', '.join(held) or 'no instructions named'}"
    if flags and "avx2" not in flags:
        yield Finding("processor", "note", found, "expect it to be slow: the runtimes are tuned for AVX2 and newer")
    else:
        yield Finding("processor", "ok", found)


def threads(asked: Asked) -> Iterator[Finding]:
    """Cores that this process may use, against what limits its threads."""
    usable = usable_cores()
    found = f"{usable} of {os.cpu_count()} cores may be used"
    quota, asked_for = _quota(), os.environ.get(THREADS)
    if quota is not None and quota < usable:
        remedy = "give the container whole cores, or pin it to as many as it may use (taskset, --cpuset-cpus)"
        yield Finding("threads", "note", f"{found}, for {quota:g} cores' time", remedy)
    elif asked_for is not None and asked_for != str(usable):
        remedy = f"unset {THREADS}, unless it is meant: the torch and ONNX Runtime backends may heed it"
        yield Finding("threads", "note", f"{found}, {THREADS}={asked_for}", remedy)
    else:
        yield Finding("threads", "ok", found)


def _quota() -> float | None:
    """Cores' time that a container may use; None without a limit."""
    if not CPU_QUOTA.is_file():
        return None
    most, _, period = CPU_QUOTA.read_text(encoding="utf-8").partition(" ")
    return int(most) / int(period) if most.isdigit() and period.strip().isdigit() else None


def gpu(asked: Asked) -> Iterator[Finding]:
    """NVIDIA's driver and what it sees."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    if shutil.which(command[0]) is None:
        yield Finding("gpu", "ok", "no nvidia-smi, so no NVIDIA GPU: the CPU is used")
        return
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    lines = [line.strip() for line in (done.stdout if done.returncode == 0 else "").splitlines() if line.strip()]
    if lines:
        yield Finding("gpu", "ok", "; ".join(lines))
    else:
        said = (done.stderr or done.stdout).strip().splitlines()
        found = f"nvidia-smi is there and shows none ({said[-1] if said else f'exit code {done.returncode}'})"
        yield Finding("gpu", "note", found, "look at the driver, or give the container the GPU (docker run --gpus all)")


def disk(asked: Asked) -> Iterator[Finding]:
    """Room where a scan writes."""
    places = {
        "store": (asked.store, "name another --store"),
        "cache": (cache_folder(), "set XDG_CACHE_HOME"),
        "temporary files": (Path(tempfile.gettempdir()), "set TMPDIR"),
    }
    for name, (folder, way_out) in places.items():
        if folder is None or is_url(folder):
            continue
        free = shutil.disk_usage(_existing(Path(folder))).free
        found = f"{free / 1e9:.1f} GB free for {folder}"
        if free < NONE_LEFT:
            yield Finding(f"disk, {name}", "problem", found, f"no scan fits: make room, or {way_out}")
        elif free < LITTLE:
            yield Finding(f"disk, {name}", "note", found, f"make room, or {way_out}")
        else:
            yield Finding(f"disk, {name}", "ok", found)


def cache(asked: Asked) -> Iterator[Finding]:
    """Whether the cache folder can be written."""
    folder = cache_folder()
    if writable(folder):
        yield Finding("cache", "ok", f"{folder} can be written")
    else:
        remedy = "set XDG_CACHE_HOME to a folder of yours: every start computes the model's prior anew otherwise"
        yield Finding("cache", "note", f"{folder} cannot be written", remedy)


def text(asked: Asked) -> Iterator[Finding]:
    """Encodings of file names and of what is printed: captions are Unicode."""
    encodings = {"file names": sys.getfilesystemencoding(), "output": getattr(sys.stdout, "encoding", None) or "utf-8"}
    found = ", ".join(f"{name} {encoding}" for name, encoding in encodings.items())
    if all(encoding.lower().replace("-", "") == "utf8" for encoding in encodings.values()):
        yield Finding("text", "ok", found)
    else:
        yield Finding("text", "note", found, "set PYTHONUTF8=1, or a locale such as LANG=C.UTF-8")


def writable(folder: Path) -> bool:
    """Whether a file can be made in the folder, or the folder itself, tried and not guessed. Leaves nothing behind."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return True
    except OSError:
        return False


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that there is."""
    return next((path for path in (folder, *folder.absolute().parents) if path.is_dir()), Path("/"))
