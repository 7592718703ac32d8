"""Bad arguments, settings files and environment variables."""

from collections.abc import Callable
from pathlib import Path

from tools.bad_inputs.case import Case


def file(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


REPORT = "report --store store --out out"
ARGUMENTS = [
    Case("unknown command", "scna captions.txt"),
    Case("unknown option", "scan captions.txt ... --seed 2"),
    Case("no input", "scan ..."),
    Case("no model", "scan captions.txt --store store"),
    Case("no seed", "scan captions.txt ... --seeds 0"),
    Case("seeds in words", "scan captions.txt ... --seeds two"),
    Case("guidance below none", "scan captions.txt ... --guidance-scale 0.5"),
    Case("guidance not a number", "scan captions.txt ... --guidance-scale nan"),
    Case("endless guidance", "scan captions.txt ... --guidance-scale inf"),
    Case("more steps than the sampler has", "scan captions.txt ... --first-steps 51"),
    Case("no batch", "scan captions.txt ... --batch-size 0"),
    Case("no row", "scan captions.txt ... --limit 0"),
    Case("unknown backend", "scan captions.txt ... --backend abacus"),
    Case("unknown words for a dialect", "scan captions.txt ... --dialect quotes=none"),
    Case("no such column", "scan titles.csv ... --column title", file("titles.csv", "caption\na cat\n")),
    Case("no such reference", "scan captions.txt ... --reference none.txt"),
    Case("reference of one caption", "scan captions.txt ... --reference one.txt", file("one.txt", "a cat\n")),
    Case("no such base model", "scan captions.txt ... --base-model none"),
    Case("no null captions", "calibrate ... --out new.parquet"),
    Case("unknown score", f"{REPORT} --score norm"),
    Case("score that the scan could not compute", f"{REPORT} --score overestimation_ref_v1"),
    Case("two rules at once", f"{REPORT} --top 1 --quantile 0.5"),
    Case("top of nothing", f"{REPORT} --top 0"),
    Case("quantile above 1", f"{REPORT} --quantile 2"),
    Case("quantile not a number", f"{REPORT} --quantile nan"),
    Case("threshold not a number", f"{REPORT} --threshold nan"),
    Case("false discovery rate without calibration", f"{REPORT} --fdr 0.05"),
    Case("false discovery rate 0", f"{REPORT} --calibration calibration.parquet --fdr 0"),
    Case("false positive rate 1", f"{REPORT} --calibration calibration.parquet --fpr 1"),
    Case("unknown policy", f"{REPORT} --fail-on sometimes"),
    Case("policy that always fails", f"{REPORT} --fail-on 0"),
    Case("report over somebody's files", "report --store store --out .", file("flagged.csv", "mine\n")),
    Case("report into a file", "report --store store --out captions.txt"),
    Case("labels of unknown format", "evaluate captions.txt --model bundle --out out"),
    Case("labels without prompts", "evaluate a.csv --model bundle --out out", file("a.csv", "text,label\na,true\n")),
    Case("no such labels", "evaluate none.csv --model bundle --out out"),
    Case(
        "labels of one prompt twice", "evaluate a.csv --model bundle --out out", file("a.csv", "prompt,label\na,1\na,0")
    ),
    Case("settings of an unknown command", "config show scna"),
    Case("no such bundle", "scan captions.txt --model none --store store"),
    Case("checkpoint that is nearly called so", "export bundl out"),
    Case("bundle for a checkpoint", "export bundle out"),
    Case("folder of something else for a checkpoint", "export report out"),
    Case("export over what is there", "export bundle report"),
    Case("hub id without a network", "export owner/name out", environment={"HF_HUB_OFFLINE": "1"}),
    Case("file for a bundle", "scan captions.txt --model captions.txt --store store"),
    Case("folder of something else for a bundle", "scan captions.txt --model report --store store"),
    Case("URL for a store", "scan captions.txt --model bundle --store https://host/store"),
    Case("URL for a report", "report --store store --out https://host/report"),
    Case("URL for a baseline", f"{REPORT} --write-baseline https://host/baseline.json"),
    Case("URL for a calibration", "calibrate benign.txt ... --out file:///calibration.parquet"),
]
SETTINGS = [
    Case("no such settings file", "--config none.toml status"),
    Case("broken TOML", "status", settings="store = \n"),
    Case("settings not UTF-8", "status", lambda folder: (folder / "overscan.toml").write_bytes(b'store = "caf\xe9"\n')),
    Case("unknown key", "status", settings='sotre = "store"\n'),
    Case("unknown key of a command", "status", settings="[scan]\nseed = 4\n"),
    Case("unknown command's settings", "status", settings="[scna]\nseeds = 4\n"),
    Case("a command's settings that are none", "status", settings='scan = "store"\n'),
    Case("word for a number", "scan captions.txt ...", settings='[scan]\nseeds = "two"\n'),
    Case("number out of range", "scan captions.txt ...", settings="[scan]\nseeds = 0\n"),
    Case("fraction for a whole number", "scan captions.txt ...", settings="[scan]\nseeds = 2.5\n"),
    Case("list for one path", "scan captions.txt --model bundle", settings='[scan]\nstore = ["store", "other"]\n'),
    Case("table for a value", "scan captions.txt --model bundle", settings='[scan.store]\npath = "store"\n'),
    Case("text for a list of inputs", "scan ...", settings='[scan]\ninputs = "captions.txt"\n'),
    Case("number for a path", "scan captions.txt --model bundle", settings="[scan]\nstore = 3\n"),
    Case("number for a switch", "scan captions.txt ...", settings="[scan]\nstrict = 1\n"),
    Case("switch for a number", "scan captions.txt ...", settings="[scan]\nseeds = true\n"),
    Case("word for a switch", "scan captions.txt ...", settings='[scan]\nstrict = "perhaps"\n'),
    Case("report outside, by a file that was found", "report --store store", settings='[report]\nout = "../out"\n'),
    Case("baseline outside, by a file that was found", REPORT, settings='[report]\nwrite_baseline = "/etc/passwd"\n'),
    Case("broken pyproject.toml", "status", file("pyproject.toml", "[tool.overscan\n")),
]
ENVIRONMENT = [
    Case("word for a number", "scan captions.txt ...", environment={"OVERSCAN_SCAN_SEEDS": "two"}),
    Case("number out of range", "scan captions.txt ...", environment={"OVERSCAN_SCAN_LIMIT": "0"}),
    Case("unknown score", REPORT, environment={"OVERSCAN_REPORT_SCORE": "norm"}),
    Case("word for a switch", "scan captions.txt ...", environment={"OVERSCAN_SCAN_STRICT": "perhaps"}),
    Case("unknown variable", "status", environment={"OVERSCAN_SCAN_SEED": "4"}),
    Case("no such settings file", "status", environment={"OVERSCAN_CONFIG": "none.toml"}),
]
