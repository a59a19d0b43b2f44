"""The stand-ins measured against the real services, which run with the same keys.

What a client can see is compared: the certificate for the same token, field by field; the log's
entry and checkpoint; the timestamp; and the answer to each kind of bad request. What differs stands
in a table here, with its reason; a difference that is gone has to leave the table.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from sandbox.sigstore import LocalSigstore
from sandbox.sigstore.oidc import Oidc

Description = dict[str, Any]
Pair = tuple[LocalSigstore, LocalSigstore]
"""The stand-ins and the real services: one identity provider, the same keys."""


@pytest.fixture(scope="module")
def pair(sigstore: LocalSigstore) -> Iterator[Pair]:
    with LocalSigstore(sigstore.oidc) as stand_in:
        for service in ("fulcio", "rekor", "tsa"):
            setattr(stand_in, service, getattr(sigstore, service))
        yield stand_in, sigstore


def differences(pair: Pair, describe: Callable[[LocalSigstore], Description]) -> set[str]:
    """The fields in which the two differ, each with both values."""
    stand_in, real = (describe(one) for one in pair)
    return {
        f"{name}: stand-in {stand_in.get(name)}, real {real.get(name)}"
        for name in {*stand_in, *real}
        if stand_in.get(name) != real.get(name)
    }


# Certificates


def signing_request(key: Any) -> str:
    made = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())
    return base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()


def ask_fulcio(sigstore: LocalSigstore, token: str, request: object) -> requests.Response:
    return requests.post(
        f"{sigstore.addresses.fulcio}/api/v2/signingCert",
        headers={"Authorization": f"Bearer {token}"},
        json=request,
        timeout=30,
    )


def describe_certificate(answer: requests.Response) -> Description:
    document = answer.json()
    chain = document["signedCertificateEmbeddedSct"]["chain"]["certificates"]
    certificates = [x509.load_pem_x509_certificate(pem.encode()) for pem in chain]
    leaf = certificates[0]
    found: Description = {
        "status": answer.status_code,
        "content type": answer.headers["content-type"],
        "keys": sorted(document),
        "the chain above": [one.fingerprint(hashes.SHA256()).hex() for one in certificates[1:]],
        "version": leaf.version,
        "subject": leaf.subject.rfc4514_string(),
        "issuer": leaf.issuer.rfc4514_string(),
        "signature": leaf.signature_algorithm_oid.dotted_string,
        "lasts": leaf.not_valid_after_utc - leaf.not_valid_before_utc,
        "serial number of 16 bytes or more": leaf.serial_number.bit_length() > 100,
        "order": [one.oid.dotted_string for one in leaf.extensions],
    }
    for one in leaf.extensions:
        value = one.value.public_bytes()
        if isinstance(one.value, x509.PrecertificateSignedCertificateTimestamps):
            value = describe_timestamps(one.value)
        found[f"extension {one.oid.dotted_string}"] = (one.critical, value)
    return found


def describe_timestamps(found: x509.PrecertificateSignedCertificateTimestamps) -> list[Any]:
    return [
        (one.version, one.log_id, one.entry_type, one.signature_algorithm, one.extension_bytes)
        for one in found
    ]


TOKENS: dict[str, Callable[[Oidc], str]] = {
    "a person": lambda oidc: oidc.token(),
    "a workflow": lambda oidc: oidc.github_token(),
    "a reusable workflow": lambda oidc: oidc.github_token(
        job_workflow_ref="other/flow/.github/workflows/sign.yml@refs/tags/v1",
        job_workflow_sha="b" * 40,
    ),
    "a workflow in an environment": lambda oidc: oidc.github_token(environment="pypi"),
    "a cluster": lambda oidc: oidc.service_account_token(
        "https://container.googleapis.com/v1/projects/p/locations/l/clusters/c", "models", "signer"
    ),
}
# Of every certificate.
CERTIFICATE_DIFFERENCES = {
    "order": "extensions have none that means anything (RFC 5280 4.1)",
    "extension 1.3.6.1.4.1.11129.2.4.2": "a log of tiles puts the leaf's index into its timestamp; "
    "no verifier here reads it, and each accepts both",
}


@pytest.mark.parametrize("who", TOKENS)
def test_the_certificate_for_the_same_token(who: str, pair: Pair) -> None:
    token = TOKENS[who](pair[0].oidc)
    key = ec.generate_private_key(ec.SECP256R1())
    request = {"certificateSigningRequest": signing_request(key)}
    found = differences(pair, lambda at: describe_certificate(ask_fulcio(at, token, request)))
    assert {one.partition(":")[0] for one in found} == set(CERTIFICATE_DIFFERENCES), found


# The log


def signed_entry() -> Description:
    key = ec.generate_private_key(ec.SECP256R1())
    digest = hashlib.sha256(b"payload").digest()
    signature = key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256())))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody")])
    from datetime import datetime, timezone

    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    encode = base64.b64encode
    raw = encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
    return {
        "hashedRekordRequestV002": {
            "digest": encode(digest).decode(),
            "signature": {
                "content": encode(signature).decode(),
                "verifier": {
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "x509Certificate": {"rawBytes": raw},
                },
            },
        }
    }


def ask_log(sigstore: LocalSigstore, request: object) -> requests.Response:
    return requests.post(f"{sigstore.addresses.rekor}/api/v2/log/entries", json=request, timeout=30)


def describe_entry(answer: requests.Response) -> Description:
    entry = answer.json()
    proof = entry["inclusionProof"]
    checkpoint = proof["checkpoint"]["envelope"].split("\n")
    return {
        "status": answer.status_code,
        "content type": answer.headers["content-type"],
        "keys": sorted(entry),
        "keys of the proof": sorted(proof),
        "log": entry["logId"],
        "kind": entry["kindVersion"],
        "body": base64.b64decode(entry["canonicalizedBody"]),
        "time": entry.get("integratedTime"),
        "promise": entry.get("inclusionPromise"),
        "index in both": entry["logIndex"] == proof["logIndex"],
        "lines of the checkpoint": len(checkpoint),
        "origin": checkpoint[0],
        "size in both": checkpoint[1] == proof["treeSize"],
        "root in both": checkpoint[2] == proof["rootHash"],
        "who signed the checkpoint": [line.rpartition(" ")[0] for line in checkpoint[4:]],
        "key of the checkpoint": [
            base64.b64decode(line.rpartition(" ")[2])[:4] for line in checkpoint[4:] if line
        ],
    }


def test_the_entry_and_checkpoint_of_the_log(pair: Pair) -> None:
    request = signed_entry()
    assert not differences(pair, lambda at: describe_entry(ask_log(at, request)))
    again = [told(ask_log(at, request)) for at in pair]
    assert [status for status, _ in again] == [409, 409]
    assert all("an equivalent entry already exists" in str(body) for _, body in again)


# Timestamps


def timestamp_query(folder: Path, *options: str) -> bytes:
    query, data = folder / "query", folder / "data"
    data.write_bytes(b"signature")
    subprocess.run(
        ["openssl", "ts", "-query", "-data", data, "-out", query, *options],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return query.read_bytes()


def ask_authority(sigstore: LocalSigstore, query: bytes) -> requests.Response:
    return requests.post(
        sigstore.addresses.timestamps,
        query,
        headers={"Content-Type": "application/timestamp-query"},
        timeout=30,
    )


def describe_timestamp(answer: requests.Response) -> Description:
    from rfc3161_client import decode_timestamp_response

    found = decode_timestamp_response(answer.content)
    info = found.tst_info
    return {
        "status": answer.status_code,
        "content type": answer.headers["content-type"],
        "granted": found.status,
        "version": info.version,
        "policy": info.policy.dotted_string,
        "imprint": (info.message_imprint.hash_algorithm, info.message_imprint.message),
        "nonce": info.nonce,
        "accuracy": info.accuracy and (info.accuracy.seconds, info.accuracy.millis),
        "whole seconds": info.gen_time.microsecond == 0,
        "name": info.name,
        "version of the signed data": found.signed_data.version,
        "digest algorithms": len(found.signed_data.digest_algorithms),
        "certificates": len(found.signed_data.certificates),
        "version of the signer": [one.version for one in found.signed_data.signer_infos],
    }


# With `--include-chain-in-response` the real one sends all three, in an order that is no DER.
TIMESTAMP_DIFFERENCES = {
    "certificates": "the stand-in sends its intermediate, too, as others do: OpenSSL and "
    "signatures by certificate trust a root alone",
}


@pytest.mark.parametrize("certificates", [True, False])
def test_the_timestamp(certificates: bool, pair: Pair, tmp_path: Path) -> None:
    query = timestamp_query(tmp_path, "-sha256", *(["-cert"] if certificates else []))
    found = differences(pair, lambda at: describe_timestamp(ask_authority(at, query)))
    expected = set(TIMESTAMP_DIFFERENCES) if certificates else set()
    assert {one.partition(":")[0] for one in found} == expected, found


# Bad requests


def told(answer: requests.Response) -> tuple[int, object]:
    """Status and body; of a JSON object its fields."""
    try:
        return answer.status_code, answer.json()
    except ValueError:
        return answer.status_code, answer.text


FORGER = ec.generate_private_key(ec.SECP256R1())
GOOD = signing_request(FORGER)
BAD_TOKENS: dict[str, Callable[[Oidc], str]] = {
    "forged": lambda oidc: oidc.token(key=FORGER),
    "forged by a person": lambda oidc: oidc.github_token(key=oidc.keys[oidc.url]),
    "expired": lambda oidc: oidc.token(lifetime=timedelta(seconds=-10)),
    "not valid yet": lambda oidc: oidc.token(nbf=2**33, exp=2**34),
    "another audience": lambda oidc: oidc.token(audience="another"),
    "unknown issuer": lambda oidc: oidc.token(issuer="https://evil.example.test"),
    "unverified e-mail": lambda oidc: oidc.token(email_verified=False),
    "e-mail not verified by a word": lambda oidc: oidc.token(email_verified="false"),
    "no e-mail": lambda oidc: oidc.token(email=""),
    "not a token": lambda oidc: "nonsense",
    "empty": lambda oidc: "",
}
BAD_SIGNING_REQUESTS: Mapping[str, object] = {
    "no request": {},
    "no base64": {"certificateSigningRequest": "%"},
    "no PEM": {"certificateSigningRequest": base64.b64encode(b"junk").decode()},
    "RSA of 1024 bits": {
        "certificateSigningRequest": signing_request(rsa.generate_private_key(65537, 1024))
    },
    "a list": [],
}
BAD_ENTRIES: Mapping[str, Callable[[], object]] = {
    "nothing": dict,
    "a list": list,
    "no signature": lambda: {"hashedRekordRequestV002": {"digest": "AAAA"}},
    "another digest": lambda: changed(signed_entry(), digest="AAAA" * 10 + "AAA="),
    "a short digest": lambda: changed(signed_entry(), digest="AAAA"),
    "no base64": lambda: changed(signed_entry(), digest="%"),
    "no DSSE": lambda: {"dsseRequestV002": {}},
}


def changed(request: Description, **fields: object) -> Description:
    return {"hashedRekordRequestV002": {**request["hashedRekordRequestV002"], **fields}}


BAD_QUERIES: Mapping[str, Callable[[Path], bytes]] = {
    "nothing": lambda folder: b"",
    "junk": lambda folder: b"junk",
    "SHA-1": lambda folder: timestamp_query(folder, "-sha1"),
    "cut off": lambda folder: timestamp_query(folder, "-sha256")[:-3],
}
PARSER = "the words of Go's parser for JSON of protocol buffers"
# Which request gets an answer with other words, and why. The status is the same everywhere.
OTHER_WORDS = {
    ("signing request", "a list"): PARSER,
    ("signing request", "no base64"): PARSER,
    ("signing request", "RSA of 1024 bits"): "the stand-in certifies P-256 keys only, and says so",
    ("entry", "a list"): PARSER,
    ("entry", "no base64"): PARSER,
}


def test_the_answers_to_bad_requests(pair: Pair, tmp_path: Path) -> None:
    oidc = pair[0].oidc
    requests_of = {
        "token": {name: make(oidc) for name, make in BAD_TOKENS.items()},
        "signing request": BAD_SIGNING_REQUESTS,
        "entry": {name: make() for name, make in BAD_ENTRIES.items()},
        "timestamp": {name: make(tmp_path) for name, make in BAD_QUERIES.items()},
    }
    ask: dict[str, Callable[[LocalSigstore, Any], requests.Response]] = {
        "token": lambda at, it: ask_fulcio(at, it, {"certificateSigningRequest": GOOD}),
        "signing request": lambda at, it: ask_fulcio(at, oidc.token(), it),
        "entry": ask_log,
        "timestamp": ask_authority,
    }
    found = {}
    for kind, named in requests_of.items():
        for name, request in named.items():
            stand_in, real = (told(ask[kind](at, request)) for at in pair)
            assert 400 <= stand_in[0] == real[0] < 500, (kind, name, stand_in, real)
            if stand_in != real:
                found[kind, name] = (stand_in, real)
    assert found.keys() == OTHER_WORDS.keys(), "\n".join(map(str, found.items()))
