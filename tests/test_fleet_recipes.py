"""The recipes of fleets, run as their schedulers run them: what they leave is what one process leaves."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small import BUNDLE, first
from stores import by_id
from test_cli import run

from scanner.cli.shard import scheduled
from scanner.objects import Folder

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "recipes"
CAPTION = first(60)
ON_CPU = {"cuda": "cpu", "--backend=cuda": "--backend=cpu"}


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Captions, and `overscan` on the PATH."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/overscan").write_text(f"#!{sys.executable}\nfrom scanner.cli import main\nmain()\n")
    (tmp_path / "bin/overscan").chmod(0o755)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/captions.txt").write_text("\n".join(CAPTION))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def alone(site):
    """What one process leaves of the same captions."""
    _, err, code = run("scan", site / "data", "--model", BUNDLE, "--store", site / "alone", "--backend", "cpu")
    assert code == 0, err
    return by_id(site / "alone")


def slurm(task, **more):
    """The environment of a task of an array of three."""
    array = {"ID": task, "COUNT": 3, "MIN": 1, "MAX": 3} | more
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in array.items()}


def sbatch(site, environment, **more):
    """A task of the script, as Slurm starts it."""
    asked = {"INPUTS": str(site / "data"), "MODEL": str(BUNDLE), "STORE": str(site / "store"), "BACKEND": "cpu"}
    return subprocess.Popen([RECIPES / "slurm.sh"], env=os.environ | asked | environment | more, stderr=subprocess.PIPE)


def test_a_slurm_array_is_the_scan(site):
    tasks = [sbatch(site, slurm(task)) for task in (1, 2, 3)]
    assert [task.communicate()[1] and task.returncode for task in tasks] == [0, 0, 0]
    assert by_id(site / "store").equals(alone(site))
    again = sbatch(site, slurm(2, COUNT=1, MIN=2, MAX=2), SHARDS="3")
    said = again.communicate()[1].decode()
    assert (again.returncode, "shard           2/3 of the prompts" in said) == (0, True)
    lost = sbatch(site, slurm(2, COUNT=1, MIN=2, MAX=2))
    said = lost.communicate()[1].decode()
    assert (lost.returncode, "needed an array such as 1-8, or name the shard itself" in said) == (2, True)


def test_what_the_slurm_script_asks_of_slurm():
    text = (RECIPES / "slurm.sh").read_text()
    asked = dict(line.removeprefix("#SBATCH --").split("=", 1) for line in text.splitlines() if "#SBATCH --" in line)
    first, last = map(int, asked["array"].split("-"))
    array = {"ID": last, "COUNT": last - first + 1, "MIN": first, "MAX": last}
    assert str(scheduled(slurm(1, **array), None)) == f"{last}/{last}"
    assert f"SHARDS={last} recipes/slurm.sh" in text  # of those that are sent again
    assert asked["signal"] == "B:TERM@120"


@pytest.mark.slow
def test_the_signal_before_the_end_of_a_slurm_task_is_the_scans(site):
    (site / "data/captions.txt").write_text("\n".join(f"{i} red cars" for i in range(6000)))
    task = sbatch(site, slurm(1, COUNT=1, MAX=1), SHARDS="1")
    while not (site / "store/runs/_delta_log/00000000000000000001.json").exists():  # the record that it has begun
        assert task.poll() is None, task.communicate()[1].decode()
        time.sleep(0.05)
    task.send_signal(signal.SIGTERM)
    said = task.communicate()[1].decode()
    assert (task.returncode, "what was computed is committed" in said) == (3, True), said


def test_a_kubernetes_job_is_the_scan(s3, site, monkeypatch):
    (job,) = yaml.safe_load_all((RECIPES / "kubernetes-job.yaml").read_text())
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert (job["kind"], spec["completionMode"], spec["parallelism"]) == ("Job", "Indexed", spec["completions"])
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # which its failure policy needs
    (wrong,) = [rule["onExitCodes"] for rule in spec["podFailurePolicy"]["rules"] if rule["action"] == "FailJob"]
    assert (wrong["containerName"], wrong["operator"], wrong["values"]) == (container["name"], "In", [2])
    shard = f"--shard=auto/{spec['completions']}"
    assert shard in container["args"]
    for file in BUNDLE.iterdir():
        Folder("s3://bucket/bundle").put(file.name, file)
    Folder("s3://bucket/data").put("captions.txt", site / "data/captions.txt")
    replaced = ON_CPU | {shard: "--shard=auto/3"}
    for index in (2, 0, 1):
        monkeypatch.setenv("JOB_COMPLETION_INDEX", str(index))
        _, err, code = run(*(replaced.get(argument, argument) for argument in container["args"]), "--batch-size", 16)
        assert code == 0, err
        assert f"shard           {index + 1}/3 of the prompts" in err
    _, err, code = run("scan", "none", *(replaced.get(argument, argument) for argument in container["args"][2:]))
    assert code == 2, err  # of wrong inputs, after which the Job ends
    monkeypatch.delenv("JOB_COMPLETION_INDEX")
    expected = alone(site)
    assert by_id("s3://bucket/store").equals(expected)
    text = (RECIPES / "kubernetes-job.yaml").read_text()
    overrides = json.loads(re.sub(r"\n# +", " ", re.search(r"--overrides='(.*?)'\n", text, re.DOTALL)[1]))
    (report,) = overrides["spec"]["containers"]
    out, err, code = run(*report["args"], "--json")
    assert (code, json.loads(out)["prompts"], "UNFINISHED" in out) == (0, 60, False), err
    assert Folder("s3://bucket/report").read("report.html")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")
def test_a_rayjob_is_the_scan(s3, site):
    pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    spec = yaml.safe_load((RECIPES / "kuberay-rayjob.yaml").read_text())["spec"]
    words = shlex.split(spec["entrypoint"])
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    (node,) = group["template"]["spec"]["containers"]
    asked = {
        name: float(words[words.index(f"--{name}") + 1]) for name in ("workers", "cpus-per-worker", "gpus-per-worker")
    }
    limits = node["resources"]["limits"]
    gpus = asked["workers"] * asked["gpus-per-worker"] + spec["entrypointNumGpus"]
    cpus = asked["workers"] * asked["cpus-per-worker"] + spec["entrypointNumCpus"]
    assert (gpus, cpus) == (group["replicas"] * limits["nvidia.com/gpu"], group["replicas"] * int(limits["cpu"]))
    head = spec["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"] == {"num-cpus": "0"}
    for container in (node, head["template"]["spec"]["containers"][0]):
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]
    for file in BUNDLE.iterdir():
        Folder("s3://bucket/bundle").put(file.name, file)
    Folder("s3://bucket/data").put("captions.txt", site / "data/captions.txt")
    here = {"cuda": "cpu", "63": "2", "4": "1"}
    command = [here.get(word, word) for word in words]
    command[command.index("--gpus-per-worker") + 1] = "0"
    memory = {"object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **memory})
    try:
        cluster.add_node(num_cpus=2, **memory)
        environment = os.environ | {"RAY_ADDRESS": cluster.address}
        done = subprocess.run([*command, "--batch-size", "16"], env=environment, capture_output=True, text=True)
    finally:
        cluster.shutdown()
    assert done.returncode == 0, done.stderr
    assert by_id("s3://bucket/store").equals(alone(site))
