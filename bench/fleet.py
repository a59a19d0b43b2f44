"""Measures a fleet: many models in one command, very many files, a service, a cluster.

usage: python bench/fleet.py --ours BIN [--peer BIN] [--dask BIN]
                             [--only many|files|service|cluster]
                             [--models N] [--files N] [--verifications N] [--gigabytes N]

BIN is the folder of an environment's programs, as for `speed.py`; that of `--dask` has the extra of
that name, and `cluster` is measured with it only. Whatever is compared runs in
turns, in each round: what else the machine does meets all. The memory of a process is the kernel's
figure (wait4), of one that goes on what /proc says.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROUNDS = 3
SAMPLE = 20  # single commands in each round
PEER_LOOP = """
import sys, model_signing
from model_signing import hashing, verifying
key, *models = sys.argv[1:]
for model in models:
    config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[model + "/model.sig"]))
    config.verify(model, model + "/model.sig")
"""
AUTHENTICATE = """
import gc, sys, time
import model_signing
from model_signing.oms import statement
from model_signing.safe_files import read_bounded
from pathlib import Path
gc.disable()
verifier = model_signing.key_verifier(sys.argv[1])
start = time.process_time()
statement.decode(verifier(read_bounded(Path(sys.argv[2]))).payload)
print(time.process_time() - start)
"""
SERVICE = """
import concurrent.futures, os, sys, time
from pathlib import Path
import model_signing
verifier, models = model_signing.key_verifier(sys.argv[1]), sys.argv[3:]
number = int(sys.argv[2])

def verify(index):
    model = models[index % len(models)]
    return model_signing.verify(model, model + "/model.sig", verifier, jobs=1).files

def report(done):
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    memory = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    descriptors = len(os.listdir("/proc/self/fd")) - 1
    threads = len(os.listdir("/proc/self/task"))
    print(f"{done:>9,} {memory:>8.1f} MB {descriptors:>4} descriptors {threads:>3} threads "
          f"{done / (time.perf_counter() - start):>7.0f}/s", flush=True)

with concurrent.futures.ThreadPoolExecutor(4) as pool:
    sum(pool.map(verify, range(len(models))))
    start = time.perf_counter()
    for begin in range(0, number, number // 10):
        sum(pool.map(verify, range(begin, begin + number // 10)))
        report(begin + number // 10)
"""


CLUSTER = """
import os, subprocess, sys, time, json, statistics
from pathlib import Path
import model_signing
from model_signing import executors
folder, model = Path(sys.argv[1]), sys.argv[2]
scheduler = folder / "scheduler.json"
main = "import sys; from distributed.cli.dask_%s import main; main()"
common = ["--scheduler-file", str(scheduler), "--no-dashboard", "--host", "127.0.0.1"]
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
start = lambda kind, *more: subprocess.Popen(
    [sys.executable, "-c", main % kind, *common, *more], cwd=folder, **quiet)
started = [start("scheduler", "--port", "0")]

def spent():
    ticks = 0
    for one in started:
        fields = Path(f"/proc/{one.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")

try:
    while not scheduler.exists() or not scheduler.read_text():
        time.sleep(0.1)
    started += [start("worker", "--nthreads", "1", "--no-nanny") for _ in range(2)]
    address = json.loads(scheduler.read_text())["address"]
    from distributed import Client
    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    began = time.perf_counter()
    with executors.opened(f"dask:{address}") as executor:
        opened = time.perf_counter() - began
        times, digests = {"here": [], "cluster": []}, set()
        worked = {"here": [], "cluster": []}
        for _ in range(5):
            for name, pool in (("here", None), ("cluster", executor)):
                began, processor = time.perf_counter(), spent()
                options = model_signing.HashOptions(jobs=2)
                digests.add(model_signing.digest(model, options, executor=pool))
                times[name].append(time.perf_counter() - began)
                worked[name].append(spent() - processor)
    assert len(digests) == 1
    medians = [{k: statistics.median(v) for k, v in found.items()} for found in (times, worked)]
    print(json.dumps({"opened": opened, "times": medians[0], "worked": medians[1]}))
finally:
    for process in started:
        process.kill()
"""


def run(command: Sequence[object]) -> tuple[float, float, int]:
    """Seconds by the clock and of the processor, and the peak memory in bytes."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    start = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, env=env)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"failed: {' '.join(map(str, command[:6]))} ...")
    processor = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - start, processor, usage.ru_maxrss * 1024


def corpus(folder: Path, count: int) -> list[Path]:
    """Small models: a folder with a file of configuration and one of weights."""
    models = [folder / f"model-{index:05}" for index in range(count)]
    for index, model in enumerate(models):
        model.mkdir(parents=True)
        (model / "config.json").write_text(f'{{"index": {index}}}')
        (model / "weights.bin").write_bytes(index.to_bytes(8, "big") * 128)
    return models


def many(args: argparse.Namespace, folder: Path) -> bool:
    """One command, as many commands, and the peer's API in a loop."""
    models = corpus(folder, args.models)
    program, public = args.ours / "model_signing", folder / "key.pub"
    run([program, "sign", "key", *models, "--private-key", folder / "key.pem", "--quiet"])
    verify = ("--public-key", public, "--quiet")
    found: dict[str, list[float]] = {"one command": [], "commands": [], "peer's API": []}
    processor: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(ROUNDS):
        seconds, cpu, _ = run([program, "verify", "key", *models, *verify])
        found["one command"].append(seconds)
        processor["one command"].append(cpu)
        some = [run([program, "verify", "key", model, *verify]) for model in models[:SAMPLE]]
        found["commands"].append(statistics.mean(one[0] for one in some) * len(models))
        processor["commands"].append(statistics.mean(one[1] for one in some) * len(models))
        if args.peer:
            seconds, cpu, _ = run([args.peer / "python", "-I", "-c", PEER_LOOP, public, *models])
            found["peer's API"].append(seconds)
            processor["peer's API"].append(cpu)
    reached = True
    print(f"{args.models:,} models of 2 files and 1 KB, verified; medians of {ROUNDS} rounds")
    ours = statistics.median(found["one command"])
    for name, least in (("one command", 1), ("commands", 10), ("peer's API", 5)):
        if found[name]:
            seconds, cpu = map(statistics.median, (found[name], processor[name]))
            ratio = seconds / ours
            print(f"  {name:<12} {seconds:>8.2f} s  {cpu:>8.2f} s of processor  {ratio:>6.1f}")
            reached = reached and ratio >= least
    return reached


def files(args: argparse.Namespace, folder: Path) -> bool:
    """A model of very many files: memory for each, and whether time grows with their number."""
    program, reached = args.ours / "model_signing", True
    for count in (args.files // 10, args.files):
        model, signature = folder / f"files-{count}", folder / f"{count}.sig"
        for index in range(count):
            if index % 1000 == 0:
                (part := model / f"part-{index // 1000:04}").mkdir(parents=True)
            descriptor = os.open(f"{part}/{index:07}.bin", os.O_CREAT | os.O_WRONLY)
            os.write(descriptor, b"%07d" % index)
            os.close(descriptor)
        key, public = folder / "key.pem", folder / "key.pub"
        print(f"{count:,} files")
        for name, line in (
            ("sign", ("sign", "key", model, "--signature", signature, "--private-key", key)),
            ("verify", ("verify", "key", model, "--signature", signature, "--public-key", public)),
            ("inspect", ("inspect", signature, "--format", "json")),
        ):
            seconds, cpu, peak = run([program, *line])
            each = peak / count
            print(f"  {name:<8} {seconds:>7.2f} s  {cpu:>7.2f} s of processor  {each:>5.0f} B/file")
            reached = reached and (count < args.files or each <= 700)
        script = [args.ours / "python", "-I", "-c", AUTHENTICATE, public, signature]
        said = subprocess.run(script, capture_output=True, text=True, check=True).stdout
        size = signature.stat().st_size / 1e6
        print(
            f"  signature of {size:.0f} MB authenticated in {float(said):.2f} s of processor",
            flush=True,
        )
        reached = reached and float(said) <= 15
    return reached


def service(args: argparse.Namespace, folder: Path) -> bool:
    """One process that verifies in four threads: its memory, descriptors and threads."""
    models = corpus(folder, 100)
    key, public = folder / "key.pem", folder / "key.pub"
    run([args.ours / "model_signing", "sign", "key", *models, "--private-key", key, "--quiet"])
    script = [args.ours / "python", "-I", "-c", SERVICE, public, args.verifications, *models]
    said = subprocess.run(
        list(map(str, script)), stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    print(f"{args.verifications:,} verifications in one process\n{said}")
    rows = [line.split() for line in said.splitlines()]
    first, last = rows[0], rows[-1]
    return float(last[1]) <= float(first[1]) * 1.05 + 2 and first[3:7:2] == last[3:7:2]


def cluster(args: argparse.Namespace, folder: Path) -> bool:
    """One model of ten equal files: two threads here, and two workers of a cluster."""
    model = folder / "model"
    model.mkdir()
    for index in range(10):
        with (model / f"part-{index}").open("wb") as file:
            file.write(bytes([index]))
            file.truncate(args.gigabytes * 10**8)  # sparse, and read as any other
    script = [args.dask / "python", "-c", CLUSTER, folder, model]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    said = subprocess.run(script, stdout=subprocess.PIPE, text=True, check=True, env=env).stdout
    found = json.loads(said)
    times, worked = found["times"], found["worked"]
    ratio = times["cluster"] / times["here"]
    print(
        f"{args.gigabytes} GB in 10 files, medians of 5 rounds; {found['opened']:.2f} s to connect"
    )
    for name, place in (("here", "two threads"), ("cluster", "two workers")):
        print(f"  {place} {times[name]:>6.2f} s {worked[name]:>6.2f} s of processor")
    print(f"  {ratio:.2f} times as long")
    return bool(ratio <= 1.15)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ours", type=Path, required=True, metavar="BIN")
    parser.add_argument("--peer", type=Path, metavar="BIN")
    parser.add_argument("--dask", type=Path, metavar="BIN")
    parser.add_argument("--only", choices=("many", "files", "service", "cluster"))
    parser.add_argument("--models", type=int, default=1000, metavar="N")
    parser.add_argument("--files", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--verifications", type=int, default=100_000, metavar="N")
    parser.add_argument("--gigabytes", type=int, default=15, metavar="N")
    args = parser.parse_args(argv)
    reached = True
    for part in (many, service, cluster, files):
        if args.only in (None, part.__name__) and (args.dask or part is not cluster):
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                key = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
                subprocess.run(["openssl", "genpkey", *key, "-out", folder / "key.pem"], check=True)
                public = ["-in", folder / "key.pem", "-pubout", "-out", folder / "key.pub"]
                subprocess.run(["openssl", "pkey", *public], check=True)
                if not part(args, folder):
                    print(f"  missed: {part.__name__}")
                    reached = False
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
