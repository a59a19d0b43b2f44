"""Measures signing and verifying: ours beside the peer and the machine's limits.

usage: python bench/speed.py --ours BIN --peer BIN [--go PROGRAM] [--large]
                             [--json FILE [--page FILE] [--readme FILE]]

BIN is the folder of an environment's programs (`actions/setup/environment.py base` and `peer`
print them); PROGRAM is the `model-signing` of the Go port. Models are generated once, in `--cache`.
What is measured:

- whole processes, start-up included, and their peak memory, as the kernel reports both (wait4);
- side by side: each round runs the peer, the Go port, ours and the limit one after the other, so
  that what else the machine does meets all; the table shows medians of the rounds;
- warm, that is from the page cache, unless a row says "cold".

The limit is what hashing alone costs here, also as a whole process: `sha256 x2` is
`plain_threads.py` with two threads that have half of the bytes each; a file with more than half of
them has a thread to itself, where it cannot be hashed in parts.

This process must stay small: a child's peak memory starts at its parent's. So whatever needs
packages (the sandbox, the plot) runs in processes of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))

import plain_threads

ROOT = Path(__file__).resolve().parents[1]
MB, GB = 10**6, 10**9
SHARE = (0.36, 0.27, 0.18, 0.12, 0.07)  # of a model in five files

# The models by which this field is compared, with the files that we know them to have (not fetched:
# the bytes are random). The sizes in their names are those of the published table: what `du` says.
ROBERTA = "roberta-base-11 (8 KB)"  # one file
YOLOP = "hustvl/YOLOP (215 MB)"  # a checkpoint with its optimizer, three of ONNX, pictures
BERTSEQ2SEQ = "bertseq2seq (2.8 GB)"  # a SavedModel: all variables are one file
BERT = "bert-base-uncased (3.3 GB)"  # the same weights for seven frameworks
FALCON = "tiiuae/falcon-7b (14.4 GB)"  # two shards of a checkpoint
NAMED = (ROBERTA, YOLOP, BERTSEQ2SEQ, BERT, FALCON)
EQUAL = "3.3 GB in 5 equal files"

MODELS: dict[str, list[int]] = {  # name -> sizes of its files in bytes
    ROBERTA: [8 * 1024],
    "1 MB in 5 files": [int(MB * share) for share in SHARE],
    "30 MB in 5 files": [int(30 * MB * share) for share in SHARE],
    YOLOP: [
        *(95_300_000, 34_300_000, 32_100_000, 31_600_000),
        *[4_600_000] * 4,
        *[200_000] * 14,
        *[8_000] * 60,
    ],
    "1 GB in 5 files": [int(GB * share) for share in SHARE],
    BERTSEQ2SEQ: [2_950_000_000, 19_000_000, 900_000, 60_000],
    BERT: [
        *(536_063_208, 534_240_408, 532_175_104, 532_091_246),
        *(440_473_133, 440_449_768, 438_064_459),
        *(466_062, 231_508, 164_911, 11_358, 10_537, 570, 48),
    ],
    EQUAL: [660 * MB] * 5,
    FALCON: [
        *(9_951_028_193, 4_483_421_659),
        *(2_734_130, 56_900, 16_900, 9_830, 7_160, 1_240, 1_050, 287, 281, 117),
    ],
    "2,000 files of 1 KB": [1024] * 2_000,
    "20,000 files of 1 KB": [1024] * 20_000,
    "200,000 files of 1 KB": [1024] * 200_000,
}
ACTIONS, WHO = ("sign", "verify"), ("peer", "go", "ours")
CORES, MEMORY_RATE, NVME_RATE = 48, 100 * GB, 7 * GB  # of the machine that is estimated
PLOTTED = [name for name in MODELS if "files of" not in name]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        model: Which of `MODELS`.
        option: "", or what is asked for beyond the defaults: "blake3", "shards".
        limit: The hash and number of threads that set the limit: ("sha256", 2).
        faster: The least ratio of the peer's time to ours, signing and verifying; 0: not set.
        within: The greatest ratio of our time to the limit; 0: not set.
        memory: The greatest peak in MiB; 0: not set.
        cold: Whether the files are dropped from the page cache before each run.
        slow: Measured in fewer rounds.
        alone: Measured without the peer, which needs minutes.
    """

    model: str
    option: str = ""
    limit: tuple[str, int] = ("sha256", 2)
    faster: tuple[float, float] = (0, 0)
    within: float = 0
    memory: float = 0
    cold: bool = False
    slow: bool = False
    alone: bool = False


ROWS = [
    Row(ROBERTA, faster=(5, 5), memory=80),
    Row("1 MB in 5 files"),
    Row("30 MB in 5 files"),
    Row(YOLOP, faster=(2.5, 2.5), memory=80),
    Row("1 GB in 5 files", faster=(1, 1)),
    Row(BERTSEQ2SEQ, faster=(1, 1), within=1.1, memory=80),
    Row(BERT, faster=(1, 1), within=1.1, memory=80),
    Row(EQUAL, faster=(1, 1), within=1.1, memory=80),
    Row(BERT, "blake3", ("blake3", 2), memory=80),
    Row(BERT, cold=True, slow=True),
    Row(FALCON, slow=True, faster=(1, 1), within=1.1, memory=80),
    Row(FALCON, "shards", slow=True, faster=(1, 1), memory=80),
    Row(FALCON, "blake3", ("blake3", 2), slow=True, memory=80),
    Row("2,000 files of 1 KB"),
    Row("20,000 files of 1 KB", faster=(8, 8), memory=110),
    Row("200,000 files of 1 KB", slow=True, alone=True),
]

PEER_API = """
import sys, model_signing
from model_signing import hashing, signing, verifying
action, option, model, signature, key = sys.argv[1:]
config = hashing.Config()
if option == "shards":
    config.use_shard_serialization()
else:
    config.use_file_serialization(hashing_algorithm=option)
if action == "sign":
    signer = signing.Config().use_elliptic_key_signer(private_key=key)
    signer.set_hashing_config(config).sign(model, signature)
else:
    verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
    verifier.set_hashing_config(config).verify(model, signature)
"""
SIGSTORE = """
import sys
from pathlib import Path
from sandbox.sigstore import LocalSigstore
folder = Path(sys.argv[1])
with LocalSigstore() as sigstore:
    sigstore.write_trust_config(folder / "trust-config.json")
    (folder / "token").write_text(sigstore.oidc.token("dev@example.test"))
    print(sigstore.url, flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class Run:
    """One process: wall-clock and processor seconds, peak memory in MiB."""

    seconds: float
    processor: float
    memory: float


class Bench:
    """Where everything lies, and how often it is measured."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.ours: Path = args.ours
        self.peer: Path = args.peer
        self.go: Path | None = args.go
        self.cache: Path = args.cache
        self.rounds: int = args.rounds
        self.slow_rounds = max(1, args.rounds * 2 // 3)
        self.cache.mkdir(parents=True, exist_ok=True)
        # Compiled modules are kept, as an installation leaves them.
        self.env = {name: os.environ[name] for name in os.environ if not name.startswith("PYTHON")}
        self.key = self.cache / "key.pem"
        self.public = self.cache / "key.pub"
        if not self.public.exists():
            ec = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
            subprocess.run(["openssl", "genpkey", *ec, "-out", self.key], check=True)
            command = ["openssl", "pkey", "-in", self.key, "-pubout", "-out", self.public]
            subprocess.run(command, check=True)

    def model(self, name: str) -> Path:
        """The model of that name, generated if it is not there yet."""
        folder = self.cache / "models" / re.sub(r"\W+", "-", name).strip("-")
        done = folder.with_suffix(".done")
        if not done.exists():
            print(f"generating {name}", file=sys.stderr)
            block = os.urandom(16 * MB)
            for index, size in enumerate(MODELS[name]):
                path = folder / f"part-{index // 1000:03}" / f"{index:06}.bin"
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    while size > 0:  # no two blocks of a model are alike
                        start = (index + size) % (len(block) - 1)
                        size -= file.write(memoryview(block)[start : start + size])
            done.touch()
        return folder

    def files(self, name: str) -> list[Path]:
        """The model's files, the largest first."""
        paths = [path for path in self.model(name).rglob("*") if path.is_file()]
        return sorted(paths, key=lambda path: -path.stat().st_size)

    def command(self, who: str, action: str, option: str, model: Path) -> list[str]:
        """The command line that signs or verifies."""
        signature = self.cache / f"{who}-{model.name}-{option or 'default'}.sig"
        key = self.key if action == "sign" else self.public
        common = [action, "key", str(model), "--signature", str(signature)]
        if who == "ours":
            options = {"": [], "blake3": ["--hash-algorithm", "blake3"]}
            options["shards"] = ["--shard-size", str(GB)]
            kind = "--private-key" if action == "sign" else "--public-key"
            extra = options[option] if action == "sign" else []
            return [*program(self.ours), *common, kind, str(key), *extra]
        if who == "go":
            kind = "--private-key" if action == "sign" else "--public-key"
            return [str(self.go), *common, kind, str(key)]
        if option:  # the peer's command line has neither
            script = [str(self.peer / "python"), "-c", PEER_API, action, option]
            return [*script, str(model), str(signature), str(key)]
        kind = "--private_key" if action == "sign" else "--public_key"
        return [*program(self.peer), *common, kind, str(key)]

    def who(self, row: Row) -> list[str]:
        """Whose programs can do this row's work in time."""
        others = {"peer": not row.alone, "go": self.go is not None and not row.option}
        return [who for who in WHO if others.get(who, True)]

    def limit(self, row: Row) -> list[str]:
        """The command line of hashing alone, in our environment's interpreter."""
        algorithm, threads = row.limit
        script = str(Path(plain_threads.__file__).resolve())
        model = str(self.model(row.model))
        kind = "parts" if row.option else "whole"  # of a file
        return [str(self.ours / "python"), "-I", script, algorithm, str(threads), kind, model]

    def run(self, command: Sequence[str]) -> Run | None:
        """Runs a process to its end; None if the peer fails, the end of the bench if we do."""
        start = time.perf_counter()
        errors = self.cache / "stderr.txt"
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                command, cwd=self.cache, stdout=subprocess.DEVNULL, stderr=stderr, env=self.env
            )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            message = f"{' '.join(map(str, command))}\n{errors.read_text()[-500:]}"
            if str(self.ours) in str(command[0]):
                sys.exit(message)
            print(message, file=sys.stderr)
            return None
        return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def program(programs: Path) -> list[str]:
    """`model_signing` of an environment, begun by its interpreter, as installers write launchers.

    Ours and the peer's environment can be moved: there it is a shell script, which takes 4 ms.
    """
    return [str(programs / "python"), str(programs / "model_signing")]


def hash_limit(paths: Sequence[Path], algorithm: str, threads: int) -> float:
    """Seconds that the cores need for these bytes, without start-up."""
    files = [(str(path), path.stat().st_size) for path in paths]
    began = time.perf_counter()
    shares = plain_threads.share(files, threads, whole=False)
    plain_threads.hash_all(shares, lambda: new_hash(algorithm))
    return time.perf_counter() - began


def new_hash(algorithm: str) -> Any:  # noqa: ANN401 - hashlib's type is private
    """As in hashlib; BLAKE3 on one thread; and "read", which hashes nothing."""
    if algorithm == "blake3":
        from blake3 import blake3

        return blake3()
    if algorithm == "read":
        return argparse.Namespace(update=len, digest=bytes)
    return hashlib.new(algorithm)


def drop(paths: Sequence[Path]) -> None:
    """Lets the kernel forget the files' pages."""
    os.sync()  # only clean pages can be dropped
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def warm(paths: Sequence[Path]) -> None:
    """Reads the files into the page cache."""
    buffer = bytearray(1 << 20)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def measure(bench: Bench, row: Row) -> dict[str, Any]:
    """One row: all times, their medians, and how they compare."""
    model, paths = bench.model(row.model), bench.files(row.model)
    small = sum(MODELS[row.model]) < GB and len(MODELS[row.model]) < 10_000
    rounds = bench.slow_rounds if row.slow else bench.rounds * (3 if small else 1)
    runs: dict[str, list[Run | None]] = {}
    limits: list[Run | None] = []
    warm(paths)
    if row is ROWS[0]:
        for action in ACTIONS:
            for who in bench.who(row):
                bench.run(bench.command(who, action, "", model))  # compiles modules
    for _ in range(rounds):
        for action in ACTIONS:
            for who in bench.who(row):
                if row.cold:
                    drop(paths)
                command = bench.command(who, action, row.option, model)
                runs.setdefault(f"{who} {action}", []).append(bench.run(command))
        if row.cold:
            drop(paths)
        limits.append(bench.run(bench.limit(row)))
    found: dict[str, Any] = {
        "model": row.model,
        "option": row.option,
        "cold": row.cold,
        "bytes": sum(MODELS[row.model]),
        "files": len(MODELS[row.model]),
        "limit": f"{row.limit[0]} x{row.limit[1]}",
        "limit seconds": statistics.median(run.seconds for run in limits if run is not None),
        "seconds": {},
        "processor seconds": {},
        "MiB": {},
        "all seconds": {},
    }
    for name, each in runs.items():
        done = [run for run in each if run is not None]
        found["all seconds"][name] = [round(run.seconds, 4) for run in done]
        for what, value in (
            ("seconds", [run.seconds for run in done]),
            ("processor seconds", [run.processor for run in done]),
        ):
            found[what][name] = statistics.median(value) if done else None
        found["MiB"][name] = max(run.memory for run in done) if done else None
    judge(row, found)
    return found


def judge(row: Row, found: dict[str, Any]) -> None:
    """Adds the ratios, and whether each target is reached."""
    targets: dict[str, bool] = {}
    ratios: dict[str, float] = {}
    for action, faster in zip(ACTIONS, row.faster, strict=True):
        peer, ours = (found["seconds"].get(f"{who} {action}") for who in ("peer", "ours"))
        if ours and peer:
            ratios[f"peer / ours, {action}"] = peer / ours
            if faster:
                targets[f"{action} at least {faster:g} times faster"] = peer / ours >= faster
        if ours:
            ratio = ratios[f"ours / limit, {action}"] = ours / found["limit seconds"]
            if row.within:
                targets[f"{action} within {row.within:g} of the limit"] = ratio <= row.within
    if row.memory:
        peak = max(found["MiB"]["ours sign"], found["MiB"]["ours verify"])
        targets[f"at most {row.memory:g} MiB"] = peak <= row.memory
    found["ratios"], found["targets"] = ratios, targets


@contextmanager
def local_sigstore(bench: Bench) -> Iterator[str]:
    """The sandbox's Sigstore in a process of its own; its people's issuer."""
    process = subprocess.Popen(
        [sys.executable, "-c", SIGSTORE, bench.cache],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process.stdout.readline().strip() if process.stdout else ""
    finally:
        process.communicate()


def measure_keyless(bench: Bench) -> dict[str, Any]:
    """Sigstore beside the key method: hashing should hide the imports and the network."""
    name = BERT
    model = bench.model(name)
    signature = str(bench.cache / "keyless.sig")
    config = ["--trust-config", str(bench.cache / "trust-config.json")]
    ours = program(bench.ours)
    times: dict[str, list[float]] = {"key sign": [], "sign": [], "key verify": [], "verify": []}
    with local_sigstore(bench) as issuer:
        whom = ["--identity", "dev@example.test", "--identity-provider", issuer]
        token = ["--identity-token", (bench.cache / "token").read_text()]
        common = [str(model), "--signature", signature, *config]
        warm(bench.files(name))
        for _ in range(bench.rounds):
            for kind, command in (
                ("key sign", bench.command("ours", "sign", "", model)),
                ("sign", [*ours, "sign", "sigstore", *common, *token]),
                ("key verify", bench.command("ours", "verify", "", model)),
                ("verify", [*ours, "verify", "sigstore", *common, *whom]),
            ):
                run = bench.run(command)
                if run is not None:
                    times[kind].append(run.seconds)
    medians = {kind: statistics.median(each) for kind, each in times.items() if each}
    return {
        "model": name,
        "seconds": medians,
        "targets": {
            f"{action} at most 1.1 of the key method + 0.5 s": medians[action]
            <= 1.1 * medians[f"key {action}"] + 0.5
            for action in ACTIONS
            if action in medians
        },
    }


def measure_startup(bench: Bench) -> dict[str, Any]:
    """`--help` beside a bare interpreter of the same environment."""
    commands = {
        "python -c pass": [str(bench.ours / "python"), "-c", "pass"],
        "model_signing --help": [*program(bench.ours), "--help"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    bench.run(commands["model_signing --help"])
    for _ in range(4 * bench.rounds):
        for name, command in commands.items():
            run = bench.run(command)
            if run is not None:
                times[name].append(run.seconds)
    medians = {name: statistics.median(each) for name, each in times.items()}
    ratio = medians["model_signing --help"] / medians["python -c pass"]
    targets = {"--help within 3 of a bare interpreter": ratio <= 3}
    return {"seconds": medians, "ratio": ratio, "targets": targets}


def machine(bench: Bench) -> dict[str, Any]:
    """What the figures were taken on."""
    model = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")
    return {
        "processor": model or platform.processor(),
        "cores": os.cpu_count(),
        "memory GB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB),
        "system": platform.system(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "load before": os.getloadavg()[0],
        "rounds": bench.rounds,
        "rounds of slow rows": bench.slow_rounds,
    }


def estimate(rates: dict[str, float], startup: float) -> list[dict[str, Any]]:
    """What models too large for this machine would take on a large one. Computed, not measured.

    Args:
        rates: Bytes per second that one of *this* machine's cores hashes, and "read": copies.
        startup: Seconds.
    """
    rows = []
    for size, largest in ((14.4 * GB, 9.9 * GB), (140 * GB, 5 * GB), (1000 * GB, 5 * GB)):
        for way, algorithm, longest in (
            ("files, SHA-256", "sha256", largest),
            ("shards of 1 GB, SHA-256", "sha256", 1 * GB),
            # One file may use every core, but one thread reads it.
            ("files, BLAKE3", "blake3", largest * rates["blake3"] / rates["read"]),
        ):
            rate = rates[algorithm]
            cores = max(size / (CORES * rate), longest / rate)
            rows.append(
                {
                    "bytes": size,
                    "largest file": largest,
                    "way": way,
                    "from memory": startup + max(cores, size / MEMORY_RATE),
                    "from NVMe": startup + max(cores, size / NVME_RATE),
                }
            )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Measured rows as a Markdown table."""
    who = [one for one in WHO if any(f"{one} sign" in found["seconds"] for found in rows)]
    times = " | ".join(f"{one}, sign / verify (s)" for one in who)
    lines = [
        f"| Work | {times} | peer ÷ ours | limit (s) | ours ÷ limit "
        f"| peak MiB, {' / '.join(who)} | target |",
        "|---" * (len(who) + 6) + "|",
    ]
    for found in rows:
        ratios = found["ratios"]
        missed = [name for name, reached in found["targets"].items() if not reached]
        cells = [
            _title(found),
            *(_both(found["seconds"].get(f"{one} {a}") for a in ACTIONS) for one in who),
            _both(ratios.get(f"peer / ours, {action}") for action in ACTIONS),
            f"{_number(found['limit seconds'])} ({found['limit']})",
            _both(ratios.get(f"ours / limit, {action}") for action in ACTIONS),
            " / ".join(_peak(found, one) for one in who),
            "missed: " + "; ".join(missed) if missed else "reached" if found["targets"] else "–",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def summary(results: dict[str, Any]) -> str:
    """The README's table: the models by which this field is compared, and the hardest others."""
    shown = [*NAMED, "20,000 files of 1 KB"]
    rows = [row for row in results["rows"] if row["model"] in shown and not row["cold"]]
    rows.sort(key=lambda row: (shown.index(row["model"]), row["option"] != ""))
    names = {"peer": "model-signing 1.1.1", "go": "Go port", "ours": "ours"}
    who = [one for one in WHO if any(f"{one} sign" in row["seconds"] for row in rows)]
    lines = [
        f"| Model | {' | '.join(names[one] for one in who)} | hashing alone |",
        "|---|" + "--:|" * (len(who) + 1),
    ]
    for row in rows:
        times = [_both(row["seconds"].get(f"{one} {action}") for action in ACTIONS) for one in who]
        lines.append(f"| {' | '.join([_title(row), *times, _number(row['limit seconds'])])} |")
    return "\n".join(lines)


def _title(found: dict[str, Any]) -> str:
    return ", ".join(filter(None, [found["model"], found["option"], "cold" * found["cold"]]))


def _peak(found: dict[str, Any], who: str) -> str:
    peaks = [found["MiB"].get(f"{who} {action}") for action in ACTIONS]
    return f"{max(filter(None, peaks)):.0f}" if any(peaks) else "–"


def _both(values: Iterable[float | None]) -> str:
    return " / ".join(map(_number, values))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def document(results: dict[str, Any]) -> str:
    """All results as Markdown, for docs/speed.md."""
    on, startup, keyless = (results[part] for part in ("machine", "startup", "keyless"))
    times, keyed = startup["seconds"], keyless["seconds"]
    lines = [
        f"Taken on {on['date']}: {on['processor']}, {on['cores']} cores, {on['memory GB']} GB, "
        f"{on['system']}, Python {on['python']}; load average before: {on['load before']:.1f}; "
        f"medians of {on['rounds']} rounds ({3 * on['rounds']} below 1 GB, "
        f"{on['rounds of slow rows']} for 14.4 GB, for 200,000 files and for cold files).",
        "",
        table(results["rows"]),
        "",
        f"`model_signing --help` takes {1000 * times['model_signing --help']:.0f} ms, a bare "
        f"`python -c pass` {1000 * times['python -c pass']:.0f} ms: {startup['ratio']:.1f} times.",
        "",
        f"Sigstore (the sandbox's, on the same machine), {keyless['model']}: sign "
        f"{keyed['sign']:.2f} s and verify {keyed['verify']:.2f} s, beside "
        f"{keyed['key sign']:.2f} s and {keyed['key verify']:.2f} s with a key in the same rounds.",
        "",
        "### Estimates, not measurements",
        "",
        f"For {CORES} cores as fast as this machine's "
        f"({results['rates']['sha256'] / GB:.2f} GB/s SHA-256 and "
        f"{results['rates']['blake3'] / GB:.2f} GB/s BLAKE3 each, "
        f"{results['rates']['read'] / GB:.1f} GB/s for one thread that reads), memory that gives "
        f"{MEMORY_RATE // GB} GB/s and NVMe that gives {NVME_RATE // GB} GB/s:",
        "",
        "| Model | largest file | hashed as | from memory (s) | from NVMe (s) |",
        "|---|---|---|---|---|",
    ]
    lines.extend(
        f"| {row['bytes'] / GB:g} GB | {row['largest file'] / GB:g} GB | {row['way']} "
        f"| {row['from memory']:.1f} | {row['from NVMe']:.1f} |"
        for row in results["estimates, not measured"]
    )
    return "\n".join(lines)


def replace_figures(page: Path, figures: str) -> None:
    """Puts the figures between the page's two marks."""
    begin, end = "<!-- figures: written by `make bench` -->", "<!-- end of figures -->"
    before, _, rest = page.read_text().partition(begin)
    page.write_text(f"{before}{begin}\n{figures}\n{end}{rest.partition(end)[2]}")


PLOT = """
import json, sys
import matplotlib
matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "speed"
from matplotlib import pyplot
results = json.load(open(sys.argv[1]))
figure, axes = pyplot.subplots(figsize=(7.5, 4.5))
rows = [row for row in results["rows"]
        if row["model"] in sys.argv[3:] and not row["option"] and not row["cold"]]
rows.sort(key=lambda row: row["bytes"])
sizes = [row["bytes"] for row in rows]
for label, key, style in (("peer, sign", "peer sign", "o-"), ("ours, sign", "ours sign", "s-"),
                          ("ours, verify", "ours verify", "^--")):
    axes.plot(sizes, [row["seconds"][key] for row in rows], style, label=label)
axes.plot(sizes, [row["limit seconds"] for row in rows], "k:", label="limit: hashing alone")
axes.set(xscale="log", yscale="log", xlabel="bytes of the model", ylabel="seconds",
         title="Signing and verifying with a key, whole process, warm")
axes.grid(True, which="major", alpha=0.3)
axes.legend()
figure.tight_layout()
figure.savefig(sys.argv[2], metadata={"Date": None})
"""


def main(arguments: Sequence[str]) -> int:
    """The command line; 1 if a target is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cache = Path(os.environ.get("MODEL_TRANSPARENCY_CACHE", "~/.cache/model-transparency"))
    parser.add_argument("--ours", type=Path, required=True, metavar="BIN")
    parser.add_argument("--peer", type=Path, required=True, metavar="BIN")
    parser.add_argument("--go", type=Path, metavar="PROGRAM", help="the Go port's model-signing")
    parser.add_argument("--cache", type=Path, default=cache.expanduser() / "bench", metavar="DIR")
    parser.add_argument("--rounds", type=int, default=5, help="per row; default 5")
    parser.add_argument(
        "--large", action="store_true", help="also falcon-7b: needs 14.4 GB of disk and page cache"
    )
    parser.add_argument("--only", metavar="TEXT", help="only rows whose model contains TEXT")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="write the figures into this page, with a plot"
    )
    parser.add_argument(
        "--readme", type=Path, metavar="FILE", help="write the table of named models into this page"
    )
    args = parser.parse_args(arguments)
    if (args.page or args.readme) and not args.json:
        parser.error("--page and --readme need --json")
    bench = Bench(args)
    results: dict[str, Any] = {"machine": machine(bench), "rows": []}
    results["startup"] = measure_startup(bench)
    for row in ROWS:
        if (args.large or row.model != FALCON) and (args.only or "") in row.model:
            results["rows"].append(measure(bench, row))
            drop(bench.files(row.model))  # the next row is not to fight for memory with this one
            print(table(results["rows"][-1:]).splitlines()[-1], flush=True)
    if not args.only or args.only == "keyless":
        results["keyless"] = measure_keyless(bench)
        one = bench.files("1 GB in 5 files")[:1]
        results["rates"] = {
            name: one[0].stat().st_size / min(hash_limit(one, name, 1) for _ in range(7))
            for name in ("sha256", "blake3", "read")
        }
        startup = measure(bench, ROWS[0])["seconds"]["ours verify"]
        results["estimates, not measured"] = estimate(results["rates"], startup)
        print(document(results))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    if args.page:
        replace_figures(args.page, document(results))
        plot = args.page.with_suffix(".svg")
        command = [sys.executable, "-c", PLOT, args.json, plot, *PLOTTED]
        subprocess.run(command, check=True)
    if args.readme:
        replace_figures(args.readme, summary(results))
    parts = [*results["rows"], results["startup"], results.get("keyless", {"targets": {}})]
    return 0 if all(reached for part in parts for reached in part["targets"].values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
