"""What a verified copy costs: `verify --copy-to` beside hashing alone and writing alone.

usage: python bench/copying.py --ours BIN [--gigabytes N] [--rounds N] [--folder DIR]

Each round runs the three one after the other, so that what else the machine does meets all. All are
whole processes that begin with the model in the page cache (it is read before each, and the copy
before that is gone), and what is written is on the disk at the end. The figure is the median of the
rounds' ratios, of our time to the slower of the other two. Processor time is that of each process,
without what the kernel's own threads do for it.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHARES = (0.69, 0.31)  # of a model in two shards
COPY = """
import os, shutil, sys, threading
pairs = list(zip(sys.argv[1::2], sys.argv[2::2]))
def copy(source, target):
    with open(source, "rb", 0) as read, open(target, "wb", 0) as write:
        shutil.copyfileobj(read, write, 1 << 20)
        os.fsync(write.fileno())
threads = [threading.Thread(target=copy, args=pair) for pair in pairs]
[one.start() for one in threads]
[one.join() for one in threads]
"""


def seconds(command: list[str], files: list[Path]) -> tuple[float, float]:
    """How long a process takes, and how long it keeps a processor busy, when files are cached."""
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def model(folder: Path, size: int, programs: Path) -> tuple[Path, list[Path]]:
    """A model of random bytes, and its signature and key beside it."""
    root = folder / "model"
    root.mkdir()
    files = [root / f"{number}.safetensors.part" for number in range(len(SHARES))]
    for path, share in zip(files, SHARES, strict=True):
        with path.open("wb") as file:
            for _ in range(int(size * share) >> 20):
                file.write(os.urandom(1 << 20))
    key = folder / "key.pem"
    create = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)]
    subprocess.run(create, check=True)
    public = ["openssl", "ec", "-in", str(key), "-pubout", "-out", str(folder / "key.pub")]
    subprocess.run(public, check=True, stderr=subprocess.DEVNULL)
    sign = [str(programs / "model_signing"), "sign", "key", str(root), "--private-key", str(key)]
    sign += ["--signature", str(folder / "model.sig")]
    subprocess.run(sign, check=True, stdout=subprocess.DEVNULL)
    return root, files


def main() -> None:
    """Prints a line for each round, and the median."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", type=Path, required=True)
    parser.add_argument("--gigabytes", type=float, default=14.4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        root, files = model(folder, int(args.gigabytes * 10**9), args.ours)
        verify = [str(args.ours / "model_signing"), "verify", "key", str(root), "--no-progress"]
        verify += ["--signature", str(folder / "model.sig"), "--copy-to", str(folder / "target")]
        verify += ["--public-key", str(folder / "key.pub")]
        threads = ["sha256", "2", "whole", str(root)]
        hashing = [sys.executable, str(HERE / "plain_threads.py"), *threads]
        ratios = []
        for number in range(args.rounds):
            hashed = seconds(hashing, files)
            target = folder / "target"
            target.mkdir()
            pairs = [word for path in files for word in (str(path), str(target / path.name))]
            copied = seconds([sys.executable, "-c", COPY, *pairs], files)
            shutil.rmtree(target)
            verified = seconds(verify, files)
            shutil.rmtree(target)
            ratios.append(verified[0] / max(hashed[0], copied[0]))
            took = {"hash": hashed, "write": copied, "ours": verified}
            told = (f"{name} {wall:.2f} s ({cpu:.2f})" for name, (wall, cpu) in took.items())
            print(f"round {number} (of a processor): {', '.join(told)}", flush=True)
        print(f"{statistics.median(ratios):.2f} times the slower of hashing and writing")


if __name__ == "__main__":
    main()
