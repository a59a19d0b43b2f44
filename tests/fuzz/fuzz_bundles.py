"""Mutates signed bundles and manifests: none may be accepted, none may crash.

usage: python -m tests.fuzz.fuzz_bundles [--cases N] [--seed N]

Each case takes a valid bundle and model and changes one thing or several: bytes of the file, the
structure of its JSON, or the structure of the statement in it, which is then signed again. Then:

- a change that no signature covers any more must raise `model_signing.errors.Error`;
- a statement signed again must either raise it or still describe exactly the model on disk.

Anything else (another exception, an acceptance, memory beyond the limit) fails the run and prints
the seed and number of the case. One case in twenty is a Sigstore bundle, verified in full against
the sandbox.
"""

from __future__ import annotations

import argparse
import base64
import copy
import hashlib
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

import model_signing
from model_signing import HashOptions
from model_signing.errors import Error
from model_signing.methods import Signer, Verifier, certificate
from sandbox.sigstore import LocalSigstore
from tests.support import material

MAX_GROWTH = 200_000  # kB of memory that a whole run may add
ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**63, 10**30, 0.5, 1e300, -0.0, "", " ", ".", "..", "/", "a",
    "../a", "/a", "./a", "a//b", "*", "\x00", "\ud7ff", "é", "A" * 5000, [], {}, [[]], [{}],
    {"a": []}, "sha256", "blake3", "md5", "files", "shards", "aa" * 32, "AA" * 32, "AAAA", "====",
    "https://model_signing/Digests/v0.1", "https://slsa.dev/provenance/v1", "a:0:10", "a:10:0",
]  # fmt: skip
ODD_KEYS = ["", "name", "digest", "shard_size", "sha256", "publicKey", "certificate", "x", "keyid"]
ODD_BYTES = [b"", b"{", b"}", b"[", b'"', b"\\", b"\x00", b"\xff", b"\\ud800", b"NaN", b"1e999"]
BASE64 = re.compile("(?:[A-Za-z0-9+/]{4}){8,}(?:[A-Za-z0-9+/]{2,3}={0,2})?|[A-Za-z0-9+/]{30,}=*")


@dataclass(frozen=True)
class Sample:
    """A model, a bundle that is valid for it, and who signs and verifies such bundles."""

    model: Path
    data: bytes
    signer: Signer
    verifier: Verifier


class Fuzzer:
    """The same seed makes the same choices, on keys and signatures that are always fresh."""

    def __init__(self, folder: Path, seed: int, sigstore: LocalSigstore) -> None:
        self.random = random.Random(seed)
        self.signature = folder / "model.sig"
        self.outcomes: Counter[str] = Counter()
        key = material.new_key()
        root = material.authority()
        holder = material.leaf(root)
        plain, certified = (material.private_pem(k) for k in (key, holder.key))
        by_key = (
            model_signing.key_signer(plain),
            model_signing.key_verifier(material.public_pem(key)),
        )
        by_certificate = (
            certificate.certificate_signer(certified, material.pem(holder.certificate)),
            certificate.certificate_verifier([material.pem(root.certificate)]),
        )
        self.samples = [
            *self._samples(folder / "by-key", *by_key),
            *self._samples(folder / "by-certificate", *by_certificate),
        ]
        # Verifying with Sigstore takes ten times as long: a share of the cases, chosen apart.
        config = sigstore.write_trust_config(folder / "trust-config.json")
        person, issuer = "dev@example.test", sigstore.url
        token = sigstore.oidc.token(person)
        keyless = (
            model_signing.sigstore_signer(
                model_signing.SigstoreSigning(trust_config=config, identity_token=token)
            ),
            model_signing.sigstore_verifier(
                person, issuer, None, model_signing.SigstoreTrust(config)
            ),
        )
        self.keyless = self._samples(folder / "keyless", *keyless)

    def _samples(self, folder: Path, signer: Signer, verifier: Verifier) -> list[Sample]:
        model = folder / "model"
        (model / "sub").mkdir(parents=True)
        for name, size in (("a", 25), ("b:0:10", 10), ("sub/c", 31), ("sub/d.bin", 1)):
            (model / name).write_bytes(name.encode() * size)
        samples = []
        for target in (model, model / "a"):
            for options in (
                HashOptions(),
                HashOptions(method="shards", shard_size=10),
                HashOptions(algorithm="blake3", ignore_paths=("cache",)),
                HashOptions(method="shards", algorithm="blake2b", shard_size=7),
            ):
                model_signing.sign(target, self.signature, signer, options)
                samples.append(Sample(target, self.signature.read_bytes(), signer, verifier))
        return samples

    def case(self) -> None:
        """One mutation, verified."""
        if self.random.random() < 0.05:
            sample = self.random.choice(self.keyless)
            mutate = self.random.choice([self._bytes, self._encoded, self._envelope])
        else:
            sample = self.random.choice(self.samples)
            mutate = self.random.choice(
                [self._bytes, self._encoded, self._envelope, self._statement, self._resources]
            )
        data, signed = mutate(sample)
        if data == sample.data:
            self.outcomes["unchanged"] += 1
            return
        self.signature.write_bytes(data)
        try:
            verified = model_signing.verify(sample.model, self.signature, sample.verifier)
        except Error as error:
            if not str(error).strip() or not error.message:
                raise AssertionError("an empty message") from error
            self.outcomes[type(error).__name__] += 1
            return
        if signed:
            check_against_disk(sample.model, verified)
            self.outcomes["signed again, still true"] += 1
            return
        # White space, key ids and the like may differ: nothing that OMS or DSSE gives a meaning.
        truth, found = vars(sample.verifier(sample.data)), vars(verified.authenticated)
        false = {name: found[name] for name in truth if found[name] != truth[name]}
        if false:
            raise AssertionError(f"accepted: {false}")
        self.outcomes["unsigned detail without meaning"] += 1

    def mutated(self, data: bytes) -> bytes:
        """Any JSON document with base64 in it, damaged in one way or several."""
        sample = replace(self.keyless[0], data=data)
        return self.random.choice([self._bytes, self._encoded, self._envelope])(sample)[0]

    # Each returns the mutated bundle, and whether its statement was signed again.

    def _bytes(self, sample: Sample) -> tuple[bytes, bool]:
        return self._damaged(sample.data), False

    def _encoded(self, sample: Sample) -> tuple[bytes, bool]:
        """Damages what is in base64: certificates, signatures, timestamps, proofs, the payload."""
        document = json.loads(sample.data)
        places = [
            (container, key)
            for container in containers(document)
            for key in (container if isinstance(container, dict) else range(len(container)))
            if isinstance(container[key], str) and BASE64.fullmatch(container[key])
        ]
        container, key = self.random.choice(places)
        container[key] = material.base64_of(self._damaged(base64.b64decode(container[key])))
        return self._dump(document), False

    def _damaged(self, data: bytes) -> bytes:
        damaged = bytearray(data)
        for _ in range(self.random.randint(1, 4)):
            start = self.random.randrange(len(damaged) + 1)
            end = min(len(damaged), start + self.random.choice([0, 1, 1, 2, 8, 64, 1000]))
            choice = self.random.randrange(5)
            if choice == 0 and start < len(damaged):
                damaged[start] ^= 1 << self.random.randrange(8)
            elif choice == 1:
                del damaged[start:end]
            elif choice == 2:
                damaged[start:end] = self.random.choice(ODD_BYTES)
            elif choice == 3:
                damaged[start:start] = damaged[start:end] * self.random.choice([1, 2, 50])
            else:
                del damaged[self.random.randrange(len(damaged) + 1) :]
        return bytes(damaged)

    def _envelope(self, sample: Sample) -> tuple[bytes, bool]:
        document = json.loads(sample.data)
        for _ in range(self.random.randint(1, 3)):
            self._change(document)
        return self._dump(document), False

    def _statement(self, sample: Sample) -> tuple[bytes, bool]:
        statement = statement_in(sample.data)
        for _ in range(self.random.randint(1, 3)):
            self._change(statement)
        if self.random.random() < 0.5:
            correct_root_digest(statement)
        return sample.signer(self._dump(statement)), True

    def _resources(self, sample: Sample) -> tuple[bytes, bool]:
        """Changes that leave the statement plausible: only the content is evil."""
        statement = statement_in(sample.data)
        resources = statement["predicate"]["resources"]
        for _ in range(self.random.randint(1, 2)):
            one, other = (self.random.choice(resources) for _ in range(2))
            index = self.random.randrange(len(resources) + 1)
            actions: list[Callable[[], object]] = [
                lambda one=one: resources.remove(one) if one in resources else None,
                lambda one=one, index=index: resources.insert(index, copy.deepcopy(one)),
                lambda one=one, other=other: one.update(name=other["name"]),
                lambda one=one, other=other: one.update(digest=other["digest"]),
                lambda one=one: one.update(name=self._odd_name(one["name"])),
                lambda: self.random.shuffle(resources),
                lambda: resources.sort(key=lambda resource: str(resource["name"])),
                lambda: statement["predicate"]["serialization"].update(
                    self.random.choice(
                        [
                            {"shard_size": self.random.choice([1, 5, 10, 10.0, 20, 10**18])},
                            {"method": self.random.choice(["files", "shards"])},
                            {"allow_symlinks": True},
                            {"ignore_paths": [self.random.choice(["a", "sub", "b:0:10", "."])]},
                        ]
                    )
                ),
            ]
            self.random.choice(actions)()
            if not resources:
                break
        if self.random.random() < 0.8:
            correct_root_digest(statement)
        return sample.signer(self._dump(statement)), True

    def _odd_name(self, name: str) -> str:
        parts = ["./", "../", "/", "//", ".", "..", "\n", ":0:10", "a", "sub/", "\u0301", "x/../"]
        place = self.random.randrange(len(name) + 1)
        return name[:place] + self.random.choice(parts) + name[place:]

    def _change(self, document: Any) -> None:
        """One structural change somewhere in a JSON document."""
        places = list(containers(document))
        container = self.random.choice(places)
        odd = copy.deepcopy(self.random.choice(ODD_VALUES))
        if isinstance(container, list):
            index = self.random.randrange(len(container) + 1)
            if index < len(container) and self.random.random() < 0.5:
                container[index] = odd
            elif index < len(container) and self.random.random() < 0.5:
                del container[index]
            else:
                elsewhere = self.random.choice([odd, *container])
                container.insert(index, copy.deepcopy(elsewhere))
            return
        key = self.random.choice([*container, *ODD_KEYS])
        choice = self.random.randrange(4)
        if choice == 0:
            container.pop(key, None)
        elif choice == 1:
            container[key] = odd
        elif choice == 2:
            container[key] = copy.deepcopy(self.random.choice(places))
        else:
            container[self.random.choice(ODD_KEYS)] = container.pop(key, odd)

    def _dump(self, document: Any) -> bytes:
        data = json.dumps(document, ensure_ascii=self.random.random() < 0.5)
        if self.random.random() < 0.03:  # JSON that no document of Python's can express
            deep = self.random.choice(["[", '{"a":']) * self.random.choice([500, 100_000])
            number = "9" * self.random.choice([50, 5000])
            twice = '"a":1,"a":2'
            data = data.replace("{", self.random.choice([deep, "{" + twice, number]), 1)
        return data.encode("utf-8", "surrogatepass")


def containers(document: Any) -> Any:
    """All lists and objects inside a document."""
    if isinstance(document, dict | list):
        yield document
        for value in document.values() if isinstance(document, dict) else document:
            yield from containers(value)


def statement_in(data: bytes) -> Any:
    return json.loads(base64.b64decode(json.loads(data)["dsseEnvelope"]["payload"]))


def correct_root_digest(statement: Any) -> None:
    """OMS 6.5.1, where the statement still has the shape for it."""
    try:
        raw = b"".join(bytes.fromhex(r["digest"]) for r in statement["predicate"]["resources"])
        statement["subject"][0]["digest"]["sha256"] = hashlib.sha256(raw).hexdigest()
    except (TypeError, KeyError, ValueError, IndexError, AttributeError):
        pass


def check_against_disk(model: Path, verified: model_signing.Verified) -> None:
    """Hashes the model in the plainest way and compares every resource."""
    paths = [model] if model.is_file() else [p for p in model.rglob("*") if p.is_file()]
    base = model.parent if model.is_file() else model
    how = verified.manifest.serialization
    names = {path.relative_to(base).as_posix() for path in paths}
    unlisted = names - verified.manifest.files.keys()
    excused = tuple(f"{path}/" for path in how.ignore_paths)
    if verified.manifest.files.keys() - names:
        raise AssertionError("accepted a file that is not there")
    if not all(f"{name}/".startswith(excused) for name in unlisted):
        raise AssertionError("accepted a file that nobody signed or excused")
    for resource, digest in verified.manifest.digests.items():
        name, bounds = resource, slice(None)
        if how.method == "shards":
            name, start, end = resource.rsplit(":", 2)
            bounds = slice(int(start), int(end))
        content = (base / name).read_bytes()[bounds]
        if how.hash_type == "blake3":
            from blake3 import blake3

            found = blake3(content).hexdigest()
        else:
            found = hashlib.new(how.hash_type, content).hexdigest()
        if found != digest:
            raise AssertionError("accepted other content")


def memory() -> int:
    """Peak resident memory of this process, kB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def fuzz(cases: int, seed: int) -> Counter[str]:
    """Runs `cases` cases; returns how each ended.

    Raises:
        AssertionError: A case was accepted, crashed or took too much memory.
    """
    with tempfile.TemporaryDirectory() as folder, LocalSigstore() as sigstore:
        fuzzer = Fuzzer(Path(folder), seed, sigstore)
        before = memory()
        for number in range(cases):
            try:
                fuzzer.case()
            except Exception as error:  # noqa: PERF203 - the number of the case is what counts
                raise AssertionError(f"seed {seed}, case {number}: {error!r}") from error
        if memory() - before > MAX_GROWTH:
            raise AssertionError(f"memory grew by {memory() - before} kB")
        return fuzzer.outcomes


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cases", type=int, default=100_000, help="default: 100,000")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    args = parser.parse_args(arguments)
    start = time.monotonic()
    outcomes = fuzz(args.cases, args.seed)
    for outcome, count in outcomes.most_common():
        print(f"{count:>9,}  {outcome}")
    seconds = time.monotonic() - start
    print(f"{args.cases:>9,}  cases, seed {args.seed}: none accepted that should not be, none ")
    print(f"           crashed; {seconds:.0f} s, {memory() / 1000:.0f} MB at most")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
