"""Signs with the real services, many at a time, beside the peer: is any signature lost?

usage: python bench/services.py --ours BIN --peer BIN [--count N] [--at-once N]

BIN is the folder of an environment's programs (`actions/setup/environment.py base` and `peer`
print them). Each program is one process with a pool of threads, started before the clock; they
take turns, a batch each, so that what else the machine does meets all. Ours has once a signer,
and so a certificate, for each signature, as the peer has, and once one for a batch. At the
end every signature is verified, and the log has to hold exactly one entry for each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sandbox.checkout import SetupError  # noqa: E402
from sandbox.services.sigstore import RealSigstore  # noqa: E402

PERSON = "developer@example.test"
BATCH = 100

# Runs in either program's Python: a line of JSON in, a line out.
SKELETON = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
{imports}

def batch(job):
    def one(number):
        try:
            work(job, Path(job["folder"], f"{number}.model"), Path(job["folder"], f"{number}.sig"))
        except Exception as error:
            return f"{number}: {error!r}"
    start, processor = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(job["at_once"]) as pool:
        failed = [said for said in pool.map(one, job["numbers"]) if said]
    spent = time.process_time() - processor
    return {"seconds": time.monotonic() - start, "processor": spent, "failed": failed}

for line in sys.stdin:
    print(json.dumps(batch(json.loads(line))), flush=True)
"""
OURS = """
import model_signing as ms
import sigstore.sign

def work(job, model, signature):
    trust = Path(job["trust"])
    if job["token"]:
        how = ms.SigstoreSigning(trust_config=trust, identity_token=job["token"])
        ms.sign(model, signature, ms.sigstore_signer(how))
    else:
        where = ms.SigstoreTrust(trust)
        ms.verify(model, signature, ms.sigstore_verifier(job["who"], job["issuer"], None, where))
"""
# As whoever signs many models does it: one signer, and so one certificate for the whole batch.
ONE_SIGNER = (
    OURS.replace("ms.sigstore_signer(how)", "signer(how)")
    + """
import functools, threading
made, lock = functools.cache(ms.sigstore_signer), threading.Lock()

def signer(how):
    with lock:
        return made(how)
"""
)
PEER = """
from model_signing import signing, verifying

def work(job, model, signature):
    how = {"trust_config": Path(job["trust"])}
    if job["token"]:
        signer = signing.Config().use_sigstore_signer(identity_token=job["token"], **how)
        signer.sign(model, signature)
    else:
        who = {"identity": job["who"], "oidc_issuer": job["issuer"]}
        verifying.Config().use_sigstore_verifier(**who, **how).verify(model, signature)
"""


class Program:
    """One of the two, and what it has signed."""

    def __init__(self, name: str, python: Path, imports: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.seconds = self.processor = 0.0
        self.failed: list[str] = []  # of each signature that was not made, or not verified
        folder.mkdir()
        self._process = subprocess.Popen(
            [python, "-I", "-c", SKELETON.replace("{imports}", imports)],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        pipes = (self._process.stdin, self._process.stdout)
        self._input, self._output = (cast("IO[str]", pipe) for pipe in pipes)

    def run(self, **job: object) -> None:
        """Does a batch; the seconds that it took, its processor time and what failed are added."""
        self._input.write(json.dumps({"folder": str(self.folder), **job}) + "\n")
        self._input.flush()
        answer = json.loads(self._output.readline())
        self.failed += answer["failed"]
        self.seconds += answer["seconds"]
        self.processor += answer["processor"]

    def told(self, doing: str, number: int) -> str:
        """The rate since the last time, and the processor time of each."""
        rate, each = number / self.seconds, 1000 * self.processor / max(number, 1)
        self.seconds = self.processor = 0.0
        return (
            f"  {self.name:16}  {doing} {rate:6.1f} a second, {each:5.1f} ms of processor time each"
        )

    def close(self) -> None:
        """Ends it."""
        self._input.close()
        self._process.wait(60)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the rates; 1 if a signature is lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ours", type=Path, required=True, metavar="BIN")
    parser.add_argument("--peer", type=Path, required=True, metavar="BIN")
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="of each program")
    parser.add_argument("--at-once", type=int, default=20, metavar="N")
    args = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder, RealSigstore() as sigstore:
            programs = [
                Program(name, bin / "python", imports, Path(folder, name))
                for name, bin, imports in (
                    ("ours", args.ours, OURS),
                    ("ours, one signer", args.ours, ONE_SIGNER),
                    ("peer", args.peer, PEER),
                )
            ]
            try:
                return measure(sigstore, programs, args.count, args.at_once, Path(folder))
            finally:
                for program in programs:
                    program.close()
    except SetupError as error:
        print(f"services: {error}", file=sys.stderr)
        return 1


def measure(
    sigstore: RealSigstore, programs: list[Program], count: int, at_once: int, folder: Path
) -> int:
    """Signs, verifies and counts."""
    trust = str(sigstore.write_trust_config(folder / "trust-config.json"))
    job = {"trust": trust, "at_once": at_once, "who": PERSON, "issuer": sigstore.url}
    for program in programs:
        for number in range(count):
            (program.folder / f"{number}.model").write_bytes(f"{program.name} {number}".encode())
    before = entries(sigstore)
    for first in range(0, count, BATCH):
        numbers = list(range(first, min(first + BATCH, count)))
        for program in programs[:: 1 if first % (2 * BATCH) else -1]:
            token = sigstore.oidc.token(PERSON)
            program.run(**job, numbers=numbers, token=token)
        print(f"signed {numbers[-1] + 1} with each", file=sys.stderr, flush=True)
    made = {program.name: sorted(program.folder.glob("*.sig")) for program in programs}
    print(f"{count} signatures with each program, {at_once} at a time:")
    for program in programs:
        number = len(made[program.name])
        lost = count - number
        said = f", such as {program.failed[0]}" if lost else ""
        print(f"{program.told('signs', number)}; {lost} not signed{said}")
    for program in programs:
        program.failed = []
        numbers = [int(path.stem) for path in made[program.name]]
        program.run(**job, numbers=numbers, token=None)
        lost = len(program.failed)
        print(f"{program.told('verifies', len(numbers))}; {lost} not verified")
    indices = {index_of(path) for paths in made.values() for path in paths}
    expected = sum(map(len, made.values()))
    logged = settled(sigstore, before + expected) - before
    print(
        f"  {len(indices)} different entries for {expected} signatures; the log has {logged} more"
    )
    ours = programs[:2]
    whole = all(len(made[one.name]) == count and not one.failed for one in ours)
    return 0 if whole and len(indices) == expected <= logged else 1


def index_of(signature: Path) -> int:
    """The place in the log that a signature names."""
    material = json.loads(signature.read_bytes())["verificationMaterial"]
    return int(material["tlogEntries"][0]["logIndex"])


def entries(sigstore: RealSigstore) -> int:
    """The size of the log, as its checkpoint on disk says; none before the first entry."""
    checkpoint = sigstore.folder / "rekor/log/checkpoint"
    return int(checkpoint.read_text().split("\n")[1]) if checkpoint.exists() else 0


def settled(sigstore: RealSigstore, expected: int) -> int:
    """The size of the log, once it is as expected; or what it is after some seconds."""
    for _ in range(50):
        if entries(sigstore) >= expected:
            break
        time.sleep(0.2)
    return entries(sigstore)


if __name__ == "__main__":
    sys.exit(main())
