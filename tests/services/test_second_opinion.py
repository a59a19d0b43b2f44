"""What we accept, cosign accepts: mutations of bundle, certificate and trust root, judged by both.

The certificates are of a CA whose keys the test has, so that each is wrong in one thing only.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from model_signing.errors import Error
from model_signing.methods.der import elements, encoded
from model_signing.methods.sigstore import sigstore_verifier
from model_signing.methods.sigstore_trust import SigstoreTrust
from sandbox.sigstore import LocalSigstore
from tests.fuzz.fuzz_bundles import Fuzzer
from tests.services.conftest import Cosign
from tests.support.forgery import PERSON, Issuer, Leaf, ahead, chain, forge, timestamp
from tests.support.material import base64_of, edited, statement

Json = dict[str, Any]
KIND = "https://example.test/predicate/v1"
DIGEST = json.loads(statement())["subject"][0]["digest"]["sha256"]
MATERIAL = "verificationMaterial"
ENTRY = (MATERIAL, "tlogEntries", 0)
PROOF = (*ENTRY, "inclusionProof")
TIMES = (MATERIAL, "timestampVerificationData", "rfc3161Timestamps")


@dataclass
class Case:
    """A bundle and the trusted root that it meets; both good until something is changed."""

    own: LocalSigstore
    foreign: LocalSigstore
    root: Json
    data: bytes

    def sign(self, made: Leaf | None = None, **how: Any) -> None:
        self.data = forge(self.own, made, **how)

    def edit(self, *path: str | int, to: Any) -> None:
        self.data = edited(self.data, *path, to=to)

    def at(self, *path: str | int) -> Any:
        found = json.loads(self.data)
        for step in path:
            found = found[step]
        return found


Change = Callable[[Case], object]


def name(mail: str) -> x509.GeneralName:
    return x509.RFC822Name(mail)


def unknown(critical: bool) -> tuple[x509.ExtensionType, bool]:
    return x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00"), critical


CONSTRAINTS = x509.BasicConstraints
CERTIFICATES: dict[str, Callable[[LocalSigstore, LocalSigstore], Leaf]] = {
    "no extended usage": lambda own, foreign: Leaf(usages=None),
    "a server's usage": lambda own, foreign: Leaf(usages=[ExtendedKeyUsageOID.SERVER_AUTH]),
    "a clock's usage": lambda own, foreign: Leaf(usages=[ExtendedKeyUsageOID.TIME_STAMPING]),
    "any usage": lambda own, foreign: Leaf(usages=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
    "two usages": lambda own, foreign: Leaf(
        usages=[ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CODE_SIGNING]
    ),
    "no key usage": lambda own, foreign: Leaf(key_uses=None),
    "a key for agreement": lambda own, foreign: Leaf(key_uses=["key_agreement"]),
    "a key for certificates": lambda own, foreign: Leaf(key_uses=["key_cert_sign"]),
    "a key for both": lambda own, foreign: Leaf(key_uses=["digital_signature", "key_cert_sign"]),
    "an authority": lambda own, foreign: Leaf(more=[(CONSTRAINTS(True, None), True)]),
    "two identities": lambda own, foreign: Leaf(names=[name(PERSON), name("x@example.test")]),
    "two identities, the other first": lambda own, foreign: Leaf(
        names=[name("x@example.test"), name(PERSON)]
    ),
    "no identity": lambda own, foreign: Leaf(names=[]),
    "the identity as subject": lambda own, foreign: Leaf(
        names=[], subject=x509.Name([x509.NameAttribute(NameOID.EMAIL_ADDRESS, PERSON)])
    ),
    "the identity as a host": lambda own, foreign: Leaf(names=[x509.DNSName(PERSON)]),
    "the identity as a URI": lambda own, foreign: Leaf(
        names=[x509.UniformResourceIdentifier(PERSON)]
    ),
    "an identity that is not critical": lambda own, foreign: Leaf(names_critical=False),
    "another identity": lambda own, foreign: Leaf(names=[name("x@example.test")]),
    "the identity in capitals": lambda own, foreign: Leaf(names=[name(PERSON.upper())]),
    "another issuer": lambda own, foreign: Leaf(issuers=(foreign.url, foreign.url)),
    "another issuer in .1": lambda own, foreign: Leaf(issuers=(foreign.url, "same")),
    "another issuer in .8": lambda own, foreign: Leaf(issuers=("same", foreign.url)),
    "no issuer": lambda own, foreign: Leaf(issuers=(None, None)),
    "an empty issuer": lambda own, foreign: Leaf(issuers=("", "")),
    "no certificate timestamp": lambda own, foreign: Leaf(scts=[]),
    "a foreign certificate timestamp": lambda own, foreign: Leaf(scts=[foreign]),
    "a foreign one beside a good one": lambda own, foreign: Leaf(scts=[foreign, own]),
    "a good one beside a foreign one": lambda own, foreign: Leaf(scts=[own, foreign]),
    "the timestamp of another certificate": lambda own, foreign: Leaf(strayed=True),
    "expired before": lambda own, foreign: Leaf(start=ahead(minutes=-20), end=ahead(minutes=-10)),
    "valid afterwards": lambda own, foreign: Leaf(start=ahead(minutes=10), end=ahead(minutes=20)),
    "an unknown critical extension": lambda own, foreign: Leaf(more=[unknown(critical=True)]),
    "an unknown extension": lambda own, foreign: Leaf(more=[unknown(critical=False)]),
    "a subject": lambda own, foreign: Leaf(
        subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
    ),
    "a year": lambda own, foreign: Leaf(end=ahead(days=365)),
}


def by_certificate(what: str) -> Change:
    return lambda case: case.sign(CERTIFICATES[what](case.own, case.foreign))


def other(case: Case, *path: str | int) -> Any:
    """A part of another good bundle by the same person."""
    found = json.loads(forge(case.own))
    for step in path:
        found = found[step]
    return found


def swap(*path: str | int) -> Change:
    return lambda case: case.edit(*path, to=other(case, *path))


def as_chain(case: Case) -> None:
    chain = {"certificates": [case.at(MATERIAL, "certificate")]}
    material = {**case.at(MATERIAL), "x509CertificateChain": chain}
    del material["certificate"]
    case.edit(MATERIAL, to=material)


def foreign_time(case: Case) -> dict[str, str]:
    signature = json.loads(case.data)["dsseEnvelope"]["signatures"][0]["sig"]
    return {"signedTimestamp": base64_of(timestamp(case.foreign, base64.b64decode(signature)))}


def shifted(**by: float) -> Change:
    """The clock of the timestamp authority is wrong."""

    def change(case: Case) -> None:
        clock = case.own.tsa.clock
        case.own.tsa.clock = lambda: clock() + timedelta(**by)
        try:
            case.sign()
        finally:
            case.own.tsa.clock = clock

    return change


def by_self(case: Case) -> None:
    """Its certificate signs itself, under Fulcio's name."""
    key = ec.generate_private_key(ec.SECP384R1())
    case.sign(authority=replace(case.own.fulcio.authority, key=key))


BUNDLES: dict[str, Change] = {
    "nothing is wrong": lambda case: None,
    "a foreign authority": lambda case: case.sign(authority=case.foreign.fulcio.authority),
    "the authority of timestamps": lambda case: case.sign(authority=case.own.tsa.authority),
    "the authority's name, another key": by_self,
    "a foreign log": lambda case: case.sign(log=case.foreign),
    "a foreign clock": lambda case: case.sign(clock=case.foreign),
    "a timestamp before the certificate": shifted(minutes=-30),
    "a timestamp after the certificate": shifted(minutes=30),
    "no log entry": lambda case: case.edit(MATERIAL, "tlogEntries", to=[]),
    "the log entry twice": lambda case: case.edit(
        MATERIAL, "tlogEntries", to=case.at(MATERIAL, "tlogEntries") * 2
    ),
    "the log entry of another": swap(*ENTRY),
    "the proof of another": swap(*PROOF),
    "the checkpoint of another": swap(*PROOF, "checkpoint"),
    "the body of another": swap(*ENTRY, "canonicalizedBody"),
    "no proof": lambda case: case.edit(*PROOF, to=...),
    "no checkpoint": lambda case: case.edit(*PROOF, "checkpoint", to=...),
    "another index in the proof": lambda case: case.edit(*PROOF, "logIndex", to="0"),
    "another index": lambda case: case.edit(*ENTRY, "logIndex", to="123456"),
    "another size": lambda case: case.edit(*PROOF, "treeSize", to="99999"),
    "another root": lambda case: case.edit(*PROOF, "rootHash", to=base64_of(b"0" * 32)),
    "a hash more": lambda case: case.edit(
        *PROOF, "hashes", to=[*case.at(*PROOF, "hashes"), base64_of(b"0" * 32)]
    ),
    "another log's number": lambda case: case.edit(
        *ENTRY, "logId", "keyId", to=base64_of(case.foreign.rekor.log_id)
    ),
    "another kind of entry": lambda case: case.edit(*ENTRY, "kindVersion", "kind", to="dsse"),
    "another version of entry": lambda case: case.edit(
        *ENTRY, "kindVersion", "version", to="0.0.1"
    ),
    "a claimed time": lambda case: case.edit(*ENTRY, "integratedTime", to="1700000000"),
    "no timestamp": lambda case: case.edit(*TIMES, to=[]),
    "the timestamp of another": swap(*TIMES, 0),
    "the timestamp twice": lambda case: case.edit(*TIMES, to=case.at(*TIMES) * 2),
    "a foreign timestamp beside a good one": lambda case: case.edit(
        *TIMES, to=[foreign_time(case), *case.at(*TIMES)]
    ),
    "junk for a timestamp": lambda case: case.edit(
        *TIMES, 0, "signedTimestamp", to=base64_of(b"junk")
    ),
    "the certificate of another": swap(MATERIAL, "certificate"),
    "the certificate as a chain": as_chain,
    "the signature of another": swap("dsseEnvelope", "signatures"),
    "no signature": lambda case: case.edit("dsseEnvelope", "signatures", to=[]),
    "the signature twice": lambda case: case.edit(
        "dsseEnvelope", "signatures", to=case.at("dsseEnvelope", "signatures") * 2
    ),
    "another payload": lambda case: case.edit(
        "dsseEnvelope", "payload", to=base64_of(statement("another"))
    ),
    "another payload type": lambda case: case.edit(
        "dsseEnvelope", "payloadType", to="application/json"
    ),
    "media type 0.1": lambda case: case.edit(
        "mediaType", to="application/vnd.dev.sigstore.bundle+json;version=0.1"
    ),
    "media type 0.2": lambda case: case.edit(
        "mediaType", to="application/vnd.dev.sigstore.bundle+json;version=0.2"
    ),
    "an unknown media type": lambda case: case.edit(
        "mediaType", to="application/vnd.dev.sigstore.bundle.v0.9+json"
    ),
    "no media type": lambda case: case.edit("mediaType", to=...),
    **{f"certificate: {what}": by_certificate(what) for what in CERTIFICATES},
}


PARTS = ("certificateAuthorities", "ctlogs", "tlogs", "timestampAuthorities")


def when(days: int) -> str:
    return ahead(days=days).strftime("%Y-%m-%dT%H:%M:%SZ")


def window(part: str, **valid: str) -> Change:
    def change(case: Case) -> None:
        one = case.root[part][0]
        one.get("publicKey", one)["validFor"] = valid

    return change


def replaced(part: str, with_ours: bool) -> Change:
    def change(case: Case) -> None:
        foreign = case.foreign.trusted_root()[part]
        case.root[part] = [*foreign, *(case.root[part] if with_ours else [])]

    return change


def cut(part: str, keep: slice) -> Change:
    def change(case: Case) -> None:
        chain = case.root[part][0]["certChain"]
        chain["certificates"] = chain["certificates"][keep]

    return change


def expired_only(part: str) -> Change:
    """The same authority twice: as it ended, and as it is; the first may not speak for it."""

    def change(case: Case) -> None:
        ended = json.loads(json.dumps(case.root[part][0]))
        ended.get("publicKey", ended)["validFor"] = {"start": when(days=-9), "end": when(days=-1)}
        case.root[part].insert(0, ended)

    return change


def field(*path: str | int, to: object) -> Change:
    """A field of the trust root is another, or with `...` is not there."""

    def change(case: Case) -> None:
        case.root = json.loads(edited(json.dumps(case.root).encode(), *path, to=to))

    return change


OTHER = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
ELSEWHERE = x509.NameConstraints(None, [x509.RFC822Name("example.test")])
ISSUERS: dict[str, Callable[[], Issuer]] = {
    "as it is": Issuer,
    "expired": lambda: Issuer(end=ahead(days=-1)),
    "not valid yet": lambda: Issuer(start=ahead(days=1)),
    "no authority": lambda: Issuer(is_ca=False),
    "no constraints": lambda: Issuer(is_ca=None),
    "no key usage": lambda: Issuer(key_uses=None),
    "a key for signatures": lambda: Issuer(key_uses=("digital_signature",)),
    "a server's usage": lambda: Issuer(usages=[ExtendedKeyUsageOID.SERVER_AUTH]),
    "an unknown critical extension": lambda: Issuer(more=[unknown(critical=True)]),
    "an unknown extension": lambda: Issuer(more=[unknown(critical=False)]),
    "no names of ours": lambda: Issuer(more=[(ELSEWHERE, True)]),
    "of another issuer": lambda: Issuer(issuer=OTHER),
    "signed by another key": lambda: Issuer(foreign=True),
}


def by_chain(part: str, which: str, made: Callable[[], Issuer]) -> Change:
    """The same authority, of whose certificates one is wrong."""

    def change(case: Case) -> None:
        ca = part == "certificateAuthorities"
        authority = case.own.fulcio.authority if ca else case.own.tsa.authority
        both = {"intermediate": Issuer(), "root": Issuer(), which: made()}
        listed = case.root[part][0]["certChain"]["certificates"]
        listed[-2:] = [{"rawBytes": base64_of(one)} for one in chain(authority, **both)]

    return change


ROOTS: dict[str, Change] = {
    **{f"{part}: ended": window(part, start=when(days=-9), end=when(days=-1)) for part in PARTS},
    **{f"{part}: starts later": window(part, start=when(days=1)) for part in PARTS},
    **{
        f"{part}: in its window": window(part, start=when(days=-9), end=when(days=1))
        for part in PARTS
    },
    **{f"{part}: foreign": replaced(part, with_ours=False) for part in PARTS},
    **{f"{part}: foreign beside ours": replaced(part, with_ours=True) for part in PARTS},
    **{f"{part}: none": lambda case, part=part: case.root[part].clear() for part in PARTS},
    **{f"{part}: once ended, once not": expired_only(part) for part in PARTS},
    "certificateAuthorities: no root": cut("certificateAuthorities", slice(0, 1)),
    "certificateAuthorities: no intermediate": cut("certificateAuthorities", slice(1, None)),
    "timestampAuthorities: no root": cut("timestampAuthorities", slice(0, 2)),
    "timestampAuthorities: no signer": cut("timestampAuthorities", slice(1, None)),
    "timestampAuthorities: the root alone": cut("timestampAuthorities", slice(2, None)),
    **{
        f"{part}: another hash": field(part, 0, "hashAlgorithm", to="SHA2_512")
        for part in ("tlogs", "ctlogs")
    },
}
# What `make test-services` alone has time for.
MORE_ROOTS: dict[str, Change] = {
    **{
        f"{part}: {of}": change
        for part in ("tlogs", "ctlogs")
        for of, change in {
            "no hash": field(part, 0, "hashAlgorithm", to=...),
            "no dates": field(part, 0, "publicKey", "validFor", to=...),
            "another name": field(part, 0, "baseUrl", to="https://log.example.test"),
            "another number": field(part, 0, "logId", "keyId", to=base64_of(b"0" * 32)),
        }.items()
    },
    **{
        f"{part}: {which}: {what}": by_chain(part, which, made)
        for part in ("certificateAuthorities", "timestampAuthorities")
        for which, issuers in {
            "intermediate": ISSUERS,
            "root": {**ISSUERS, "room for no intermediate": lambda: Issuer(path_length=0)},
        }.items()
        for what, made in issuers.items()
    },
}

# What we accept and cosign refuses, with the reason: names of keys, of which none decides here.
DATES = "a key without dates is always valid: they are optional (protobuf-specs, PublicKey)"
ACCEPTED_HERE_ONLY = {
    "tlogs: no dates": DATES,
    "ctlogs: no dates": DATES,
    "tlogs: another name": "the log's key is looked for in the checkpoint, not its host's name",
    "ctlogs: another number": "a log has the number of its key (RFC 6962 3.2); no copy is read",
}
# At random: of what cosign says, what we do not mind, with the reason.
READ_HERE_ONLY = {
    "unknown field": "a trust root of tomorrow is read, its unknown fields named in a warning",
    "missing public key validity period": DATES,
}
# What cosign accepts and we refuse: a refusal deceives nobody; here so that it is known.
LOGGED_ANEW = "cosign reads the checkpoint, and makes the entry of the signature itself"
PROFILE = "cosign does not ask what the certificate may be used for beside its chain"
NAMES = "cosign looks for one identity and one issuer that fit, not for others beside them"
WINDOW = "cosign asks a log without a clock for no time"
CHAINS = "cosign takes a timestamp's certificate from the token, and any trusted one above it"
REFUSED_HERE_ONLY = {
    "the body of another": LOGGED_ANEW,
    "another index in the proof": LOGGED_ANEW,
    "another size": LOGGED_ANEW,
    "another root": LOGGED_ANEW,
    "another kind of entry": LOGGED_ANEW,
    "another version of entry": LOGGED_ANEW,
    "the timestamp twice": "cosign counts the same authority once, and does not mind",
    "media type 0.2": "sigstore-python takes it with a promise of the log only",
    "certificate: no extended usage": PROFILE,
    "certificate: any usage": PROFILE,
    "certificate: no key usage": PROFILE,
    "certificate: a key for agreement": PROFILE,
    "certificate: a key for certificates": PROFILE,
    "certificate: a key for both": PROFILE,
    "certificate: an authority": PROFILE,
    "certificate: an identity that is not critical": PROFILE,
    "certificate: a subject": PROFILE,
    "certificate: two identities": NAMES,
    "certificate: another issuer in .1": NAMES,
    "certificate: a foreign one beside a good one": "cosign wants one good certificate timestamp",
    "certificate: a good one beside a foreign one": "cosign wants one good certificate timestamp",
    "tlogs: ended": WINDOW,
    "tlogs: starts later": WINDOW,
    "certificateAuthorities: intermediate: no key usage": "cosign takes its silence for a yes",
    "timestampAuthorities: root: of another issuer": "cosign asks a root for no signature at all",
    "timestampAuthorities: no root": CHAINS,
    "timestampAuthorities: no signer": CHAINS,
    "timestampAuthorities: the root alone": CHAINS,
}


class Court:
    """Both judges, and the same question to each."""

    def __init__(self, cosign: Cosign, issuer: str, folder: Path) -> None:
        self.cosign, self.issuer = cosign, issuer
        self.bundle, self.root = folder / "bundle.json", folder / "root.json"

    def ours(self, data: bytes, root: bytes) -> str:
        """Empty, or why it is refused. Anything but an `Error` is a defect."""
        self.root.write_bytes(root)
        try:
            trust = SigstoreTrust(self.root)
            found = sigstore_verifier(PERSON, self.issuer, None, trust)(data)
        except Error as error:
            assert error.message
            return str(error)
        assert found.payload == statement()
        return ""

    def theirs(self, data: bytes, root: bytes) -> str:
        self.root.write_bytes(root)
        self.bundle.write_bytes(data)
        code, said = self.cosign(
            "verify-blob-attestation",
            *("--bundle", self.bundle, "--trusted-root", self.root, "--use-signed-timestamps"),
            *("--type", KIND, "--digest", DIGEST, "--digestAlg", "sha256"),
            *("--certificate-identity", PERSON, "--certificate-oidc-issuer", self.issuer),
        )
        return "" if code == 0 else said.strip() or "?"


@pytest.fixture(scope="module")
def instances() -> Iterator[tuple[LocalSigstore, LocalSigstore]]:
    """Stand-ins, whose keys the test has: nobody is asked, both judge what is there."""
    with LocalSigstore() as own, LocalSigstore() as foreign:
        for _ in range(3):
            forge(own)  # so that proofs have hashes
        yield own, foreign


@pytest.fixture
def court(cosign: Cosign, instances: tuple[LocalSigstore, LocalSigstore], tmp_path: Path) -> Court:
    return Court(cosign, instances[0].url, tmp_path)


@pytest.mark.parametrize(
    "what",
    [*BUNDLES, *ROOTS, *(pytest.param(what, marks=pytest.mark.full) for what in MORE_ROOTS)],
)
def test_by_name(what: str, court: Court, instances: tuple[LocalSigstore, LocalSigstore]) -> None:
    own, foreign = instances
    case = Case(own, foreign, own.trusted_root(), forge(own))
    {**BUNDLES, **ROOTS, **MORE_ROOTS}[what](case)
    root = json.dumps(case.root).encode()
    ours, theirs = court.ours(case.data, root), court.theirs(case.data, root)
    here, there = not ours and bool(theirs), bool(ours) and not theirs
    assert here == (what in ACCEPTED_HERE_ONLY), f"we accept; cosign: {theirs}"
    assert there == (what in REFUSED_HERE_ONLY), f"cosign accepts; we: {ours}"


def places(data: bytes, at: int = 0) -> Iterator[tuple[int, int]]:
    """A bit to change of each byte that begins or ends an element's content, in a certificate."""
    start = at
    for tag, content in elements(data):
        start += len(encoded(tag, content)) - len(content)
        if content and tag & 0x20:  # constructed (X.690 8.1.2.5)
            yield from places(content, start)
        elif content:
            yield start, 0x01
            yield start + len(content) - 1, 0x20  # in a text, a capital for a small letter
        start += len(content)


@pytest.mark.full
@pytest.mark.parametrize(
    ("part", "which"),
    [
        *(("certificateAuthorities", which) for which in range(2)),
        *(("timestampAuthorities", which) for which in range(3)),
    ],
)
def test_each_element_of_a_certificate(
    part: str, which: int, court: Court, instances: tuple[LocalSigstore, LocalSigstore]
) -> None:
    """Of the trust root's: what we accept of it, changed, cosign accepts, too."""
    own, _ = instances
    case = Case(own, own, own.trusted_root(), forge(own))
    at = (part, 0, "certChain", "certificates", which, "rawBytes")
    document = json.dumps(case.root).encode()
    raw = base64.b64decode(case.root[part][0]["certChain"]["certificates"][which]["rawBytes"])
    judged: Counter[bool] = Counter()
    for place, bit in places(raw):
        changed = bytearray(raw)
        changed[place] ^= bit
        root = edited(document, *at, to=base64_of(bytes(changed)))
        accepted = not court.ours(case.data, root)
        judged[accepted] += 1
        assert not (accepted and court.theirs(case.data, root)), f"byte {place} ^ {bit}"
    assert judged[False] > judged[True]


def with_names_of_logs(root: bytes, own: LocalSigstore) -> bytes:
    """A trust root that calls its logs what cosign calls them; here their keys decide.

    Certificate logs have the identifier of their key (RFC 6962 3.2), of which the copy is not read
    here. Of a transparency log cosign takes the host of the address for its name in checkpoints.
    """
    document = json.loads(root)
    for log in document["ctlogs"]:
        key = base64.b64decode(log["publicKey"]["rawBytes"])
        log["logId"] = {"keyId": base64_of(hashlib.sha256(key).digest())}
    for log in document["tlogs"]:
        log["baseUrl"] = own.trusted_root()["tlogs"][0]["baseUrl"]
    return json.dumps(document).encode()


@pytest.mark.full
def test_at_random(
    court: Court, instances: tuple[LocalSigstore, LocalSigstore], tmp_path: Path
) -> None:
    """A thousand, each judged by both."""
    own, _ = instances
    fuzzer = Fuzzer(tmp_path / "fuzz", 0, own)
    outcomes: Counter[str] = Counter()
    against: list[tuple[int, str]] = []
    for number in range(1000):
        data, root = forge(own), json.dumps(own.trusted_root()).encode()
        if number % 4:
            data = fuzzer.mutated(data)
        else:
            root = fuzzer.mutated(root)
        ours = court.ours(data, root)
        theirs = court.theirs(data, root)
        known = any(words in theirs for words in READ_HERE_ONLY)
        if not ours and theirs and not known and court.theirs(data, with_names_of_logs(root, own)):
            against.append((number, theirs))
        here, there = ("refused" if said else "accepted" for said in (ours, theirs))
        outcomes[f"{here} here, {there} there"] += 1
    print(dict(outcomes))
    assert not against
    assert outcomes["accepted here, accepted there"] > 0
    assert outcomes["refused here, refused there"] > 0
