"""The sandbox's Sigstore: stock sigstore-python accepts what it should, and nothing else."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import jwt
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from sigstore.errors import VerificationError
from sigstore.models import Bundle, InvalidBundle

from sandbox.sigstore import LocalSigstore
from sandbox.sigstore.errors import RequestError
from sandbox.sigstore.fulcio import certificate_extensions
from sandbox.sigstore.oidc import DEVELOPER, GITHUB_ISSUER
from sandbox.sigstore.rekor import audit_path, leaf_hash, merkle_root
from tests.support.stock import PAYLOAD, sign, verify

SHARED = Path(
    os.environ.get("MODEL_TRANSPARENCY_SHARED") or Path(__file__).resolve().parents[4] / "shared"
)
REAL_PROVENANCE = SHARED / "data/slsa/binary-linux-amd64-push-v14.2.intoto.jsonl"


@pytest.fixture(scope="module")
def bundle(sigstore: LocalSigstore) -> Bundle:
    return sign(sigstore)


@pytest.mark.services
def test_a_person_signs_and_is_verified(sigstore, bundle):
    assert verify(bundle, sigstore.trust_config(), DEVELOPER, sigstore.url) == PAYLOAD


@pytest.mark.services
def test_a_workflow_signs_and_is_verified(sigstore):
    workflow = "octo-org/models/.github/workflows/train.yml@refs/heads/main"
    bundle = sign(sigstore, sigstore.oidc.github_token(job_workflow_ref=workflow))
    verify(bundle, sigstore.trust_config(), f"https://github.com/{workflow}", GITHUB_ISSUER)


@pytest.mark.services
def test_another_identity_is_refused(sigstore, bundle):
    with pytest.raises(VerificationError, match="SANs"):
        verify(bundle, sigstore.trust_config(), "somebody@else.test", sigstore.url)


# What must not be trusted


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("certificateAuthorities", "certificate"),
        ("tlogs", "key"),
        ("timestampAuthorities", "not enough sources of verified time"),
        ("ctlogs", "SCT"),
    ],
)
@pytest.mark.services
def test_a_foreign_part_is_refused(sigstore, foreign_sigstore, bundle, part, message):
    """One part of the trusted root is another Sigstore's."""
    config = sigstore.trust_config()
    config["trustedRoot"][part] = foreign_sigstore.trusted_root()[part]
    with pytest.raises(VerificationError, match=message):
        verify(bundle, config, DEVELOPER, sigstore.url)


def _flip(encoded: str) -> str:
    """Base64 with one bit of its bytes flipped."""
    data = bytearray(base64.b64decode(encoded))
    data[-1] ^= 1
    return base64.b64encode(data).decode()


def _change_payload(document):
    document["dsseEnvelope"]["payload"] = _flip(document["dsseEnvelope"]["payload"])


def _change_signature(document):
    signature = document["dsseEnvelope"]["signatures"][0]
    signature["sig"] = _flip(signature["sig"])


def _proof(document):
    return document["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]


def _change_inclusion_proof(document):
    _proof(document)["hashes"][0] = _flip(_proof(document)["hashes"][0])


def _change_log_index(document):
    _proof(document)["logIndex"] = "0"


def _change_checkpoint_root(document):
    lines = _proof(document)["checkpoint"]["envelope"].split("\n")
    lines[2] = _flip(lines[2])
    _proof(document)["checkpoint"]["envelope"] = "\n".join(lines)


def _change_checkpoint_signature(document):
    text, _, signature = _proof(document)["checkpoint"]["envelope"].rstrip("\n").rpartition(" ")
    _proof(document)["checkpoint"]["envelope"] = f"{text} {_flip(signature)}\n"


def _remove_timestamp(document):
    document["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"] = []


def _change_timestamp(document):
    timestamps = document["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"]
    timestamps[0]["signedTimestamp"] = _flip(timestamps[0]["signedTimestamp"])


@pytest.mark.parametrize(
    "change",
    [
        _change_payload,
        _change_signature,
        _change_inclusion_proof,
        _change_log_index,
        _change_checkpoint_root,
        _change_checkpoint_signature,
        _remove_timestamp,
        _change_timestamp,
    ],
)
@pytest.mark.services
def test_a_changed_bundle_is_refused(sigstore, change):
    sign(sigstore)  # so that the log has two entries, and the proof a hash
    document = json.loads(sign(sigstore).to_json())
    before = copy.deepcopy(document)
    change(document)
    assert document != before
    with pytest.raises((VerificationError, InvalidBundle)):
        verify(
            Bundle.from_json(json.dumps(document)), sigstore.trust_config(), DEVELOPER, sigstore.url
        )


@pytest.mark.services
def test_an_entry_of_another_artifact_is_refused(sigstore, bundle):
    document = json.loads(sign(sigstore).to_json())
    other = json.loads(bundle.to_json())
    document["verificationMaterial"]["tlogEntries"] = other["verificationMaterial"]["tlogEntries"]
    with pytest.raises(VerificationError):
        verify(
            Bundle.from_json(json.dumps(document)), sigstore.trust_config(), DEVELOPER, sigstore.url
        )


def test_a_corrupt_certificate_timestamp_is_refused():
    with LocalSigstore() as sigstore:
        config = sigstore.trust_config()
        honest = sigstore.fulcio.log_key
        sigstore.fulcio.log_key = ec.generate_private_key(ec.SECP256R1())
        bundle = sign(sigstore)
        sigstore.fulcio.log_key = honest
        with pytest.raises(VerificationError, match="SCT"):
            verify(bundle, config, DEVELOPER, sigstore.url)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_timestamp_outside_of_the_certificates_validity_is_refused(hours):
    with LocalSigstore() as sigstore:
        sigstore.tsa.clock = lambda: datetime.now(timezone.utc) + timedelta(hours=hours)
        with pytest.raises(VerificationError):
            verify(sign(sigstore), sigstore.trust_config(), DEVELOPER, sigstore.url)


# Fulcio's refusals


def _signing_request(key=None) -> x509.CertificateSigningRequest:
    key = key or ec.generate_private_key(ec.SECP256R1())
    return x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())


def _ask_fulcio(sigstore, token, pem=None) -> requests.Response:
    pem = pem or _signing_request().public_bytes(serialization.Encoding.PEM)
    return requests.post(
        f"{sigstore.url}/api/v2/signingCert",
        headers={"Authorization": f"Bearer {token}"},
        json={"certificateSigningRequest": base64.b64encode(pem).decode()},
        timeout=10,
    )


FORGER = ec.generate_private_key(ec.SECP256R1())
BAD_TOKENS = {
    "forged": (lambda oidc: oidc.token(key=FORGER), "Signature verification failed"),
    "forged job": (lambda oidc: oidc.github_token(key=FORGER), "Signature verification failed"),
    "a person's key for a job": (
        lambda oidc: oidc.github_token(key=oidc.keys[oidc.url]),
        "Signature verification failed",
    ),
    "expired": (lambda oidc: oidc.token(lifetime=timedelta(seconds=-1)), "has expired"),
    "not valid yet": (lambda oidc: oidc.token(nbf=2**33, exp=2**34), "not valid yet"),
    "wrong audience": (lambda oidc: oidc.token(audience="another"), "Audience doesn't match"),
    "unknown issuer": (lambda oidc: oidc.token(issuer="https://evil.test"), "unknown issuer"),
    "unverified e-mail": (lambda oidc: oidc.token(email_verified=False), "not verified"),
    "e-mail not verified by a word": (
        lambda oidc: oidc.token(email_verified="false"),
        "not verified",
    ),
    "no e-mail": (lambda oidc: oidc.token(email=""), "no e-mail"),
    "unsigned": (
        lambda oidc: jwt.encode(
            jwt.decode(oidc.token(), options={"verify_signature": False}), None, "none"
        ),
        "alg value is not allowed",
    ),
    "not a token": (lambda oidc: "nonsense", "Not enough segments"),
    "empty": (lambda oidc: "", "Not enough segments"),
}


@pytest.mark.parametrize("kind", BAD_TOKENS)
def test_fulcio_refuses_a_bad_token(sigstore, kind):
    """It does not say why; the reason is in the error that it comes of."""
    make, message = BAD_TOKENS[kind]
    token = make(sigstore.oidc)
    reply = _ask_fulcio(sigstore, token)
    assert reply.status_code == 400
    assert reply.json()["message"] == "There was an error processing the identity token"
    pem = _signing_request().public_bytes(serialization.Encoding.PEM)
    request = {"certificateSigningRequest": base64.b64encode(pem).decode()}
    with pytest.raises(RequestError) as refusal:
        sigstore.fulcio.signing_certificate(f"Bearer {token}", request)
    assert message in str(refusal.value.__cause__)


def test_fulcio_refuses_a_key_that_is_not_proven(sigstore):
    data = bytearray(_signing_request().public_bytes(serialization.Encoding.DER))
    data[-1] ^= 1
    pem = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(bytes(data))
    reply = _ask_fulcio(sigstore, sigstore.oidc.token(), pem + b"-----END CERTIFICATE REQUEST-----")
    assert (reply.status_code, "could not be verified" in reply.text) == (400, True)


def test_fulcio_refuses_other_keys_and_junk(sigstore):
    key = rsa.generate_private_key(65537, 2048)
    pem = _signing_request(key).public_bytes(serialization.Encoding.PEM)
    assert "P-256" in _ask_fulcio(sigstore, sigstore.oidc.token(), pem).json()["message"]
    assert "parsed" in _ask_fulcio(sigstore, sigstore.oidc.token(), b"junk").json()["message"]


def test_certificate_extensions_are_those_of_the_real_fulcio():
    """The claims of a real certificate give, byte for byte, that certificate's extensions."""
    if not REAL_PROVENANCE.exists():
        pytest.skip(f"no real provenance at {REAL_PROVENANCE}: not compared with the real Fulcio")
    material = json.loads(REAL_PROVENANCE.read_text())["verificationMaterial"]
    der = base64.b64decode(material["certificate"]["rawBytes"])
    real = {
        int(extension.oid.dotted_string.rpartition(".")[2]): extension.value.value
        for extension in x509.load_der_x509_certificate(der).extensions
        if extension.oid.dotted_string.startswith("1.3.6.1.4.1.57264.1.")
    }
    commit, ref = "4d329c75e7ec1725f7c9ce917a8799d408d06be3", "refs/tags/v14.2"
    path = ".github/workflows/verifier-e2e.all.workflow_dispatch.main.all.slsa3.yml"
    repository = "slsa-framework/example-package"
    generator = "slsa-framework/slsa-github-generator/.github/workflows/generator_generic_slsa3.yml"
    claims = {
        "iss": GITHUB_ISSUER,
        "event_name": "push",
        "sha": commit,
        "workflow": path,
        "repository": repository,
        "ref": ref,
        "job_workflow_ref": f"{generator}@refs/tags/v2.1.0",
        "job_workflow_sha": "f7dd8c54c2067bafc12ca7a55595d5ee9b75204a",
        "runner_environment": "github-hosted",
        "repository_id": "486325809",
        "repository_owner": "slsa-framework",
        "repository_owner_id": "80431187",
        "workflow_ref": f"{repository}/{path}@{ref}",
        "workflow_sha": commit,
        "run_id": "13530999644",
        "run_attempt": "1",
        "repository_visibility": "public",
    }
    assert certificate_extensions(claims) == real


# The log


# Roots of the first n leaves; test vectors of the Certificate Transparency reference code.
LEAVES = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize("size", range(9))
def test_merkle_roots_are_the_known_ones(size):
    hashed = [leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES[:size]]
    assert merkle_root(hashed).hex() == ROOTS[size]


def test_an_audit_path_is_the_known_one():
    """RFC 6962 2.1.3's example: seven leaves, the path of d0."""
    hashed = [leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES[:7]]
    b = hashed[1]
    h = hashlib.sha256(b"\1" + hashed[2] + hashed[3]).digest()
    left = hashlib.sha256(b"\1" + hashed[4] + hashed[5]).digest()
    length = hashlib.sha256(b"\1" + left + hashed[6]).digest()
    assert audit_path(0, hashed) == [b, h, length]


def test_the_log_can_be_read_as_tiles():
    with LocalSigstore() as sigstore:  # its own: a tile has 256 entries, and other tests add some
        sign(sigstore)
        sign(sigstore)
        read_tiles(sigstore)


def read_tiles(sigstore):
    checkpoint = requests.get(f"{sigstore.url}/api/v2/checkpoint", timeout=10).text.split("\n")
    size = int(checkpoint[1])
    tile = requests.get(f"{sigstore.url}/api/v2/tile/0/000.p/{size}", timeout=10).content
    hashed = [tile[start : start + 32] for start in range(0, len(tile), 32)]
    assert base64.b64encode(merkle_root(hashed)).decode() == checkpoint[2]
    entries = requests.get(f"{sigstore.url}/api/v2/tile/entries/000.p/{size}", timeout=10).content
    assert leaf_hash(entries[2 : 2 + int.from_bytes(entries[:2], "big")]) == hashed[0]
    missing = requests.get(f"{sigstore.url}/api/v2/tile/0/000.p/{size + 1}", timeout=10)
    assert missing.status_code == 404


def test_the_log_refuses_a_signature_of_something_else(sigstore, bundle):
    entry = json.loads(bundle.to_json())["verificationMaterial"]["tlogEntries"][0]
    body = json.loads(base64.b64decode(entry["canonicalizedBody"]))["spec"]["hashedRekordV002"]
    url = f"{sigstore.url}/api/v2/log/entries"
    request = {"digest": body["data"]["digest"], "signature": body["signature"]}
    again = requests.post(url, json={"hashedRekordRequestV002": request}, timeout=10)
    assert (again.status_code, "already exists" in again.text) == (409, True)
    request["digest"] = _flip(request["digest"])
    other = requests.post(url, json={"hashedRekordRequestV002": request}, timeout=10)
    assert (other.status_code, "invalid hashedrekord" in other.text) == (400, True)
    assert requests.post(url, json={"dsseRequestV002": {}}, timeout=10).status_code == 400
    assert requests.post(url, data=b"{", timeout=10).status_code == 400


# Identity tokens


def _claims(token):
    return jwt.decode(token, options={"verify_signature": False})


def test_a_job_gets_tokens_of_its_own_claims_until_it_ends(sigstore):
    bearer = sigstore.oidc.request_token_for({"repository": "a/b", "run_id": "42"})
    ask = {"headers": {"Authorization": f"bearer {bearer}"}, "timeout": 10}
    reply = requests.get(f"{sigstore.job_token_url}&audience=sigstore", **ask).json()
    claims = _claims(reply["value"])
    assert claims["iss"] == GITHUB_ISSUER
    assert (claims["aud"], claims["repository"], claims["run_id"]) == ("sigstore", "a/b", "42")
    default = requests.get(sigstore.job_token_url, **ask).json()["value"]
    assert _claims(default)["aud"] == "https://github.com/a"
    sigstore.oidc.revoke(bearer)
    assert requests.get(sigstore.job_token_url, **ask).status_code == 401


@pytest.mark.services
def test_ambient_credentials_are_found(sigstore, monkeypatch):
    """What sigstore-python does in a job with `id-token: write`."""
    from sigstore.oidc import detect_credential

    bearer = sigstore.oidc.request_token_for({"repository": "a/b"})
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", sigstore.job_token_url)
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", bearer)
    assert _claims(detect_credential())["repository"] == "a/b"


def test_a_person_logs_in_out_of_band(sigstore, monkeypatch):
    """What sigstore-python does at a terminal, with the code that the browser shows."""
    from sigstore.oidc import Issuer

    def browser(prompt: str) -> str:
        parameters = {"redirect_uri": "urn:ietf:wg:oauth:2.0:oob"}
        return requests.get(f"{sigstore.url}/authorize", parameters, timeout=10).text

    monkeypatch.setattr("builtins.input", browser)
    token = Issuer(sigstore.url).identity_token(force_oob=True)
    verify(sign(sigstore, str(token)), sigstore.trust_config(), DEVELOPER, sigstore.url)


def test_a_login_code_works_once_and_stays_on_this_machine(sigstore):
    def authorize(redirect):
        parameters = {"redirect_uri": redirect, "state": "s"}
        url = f"{sigstore.url}/authorize"
        return requests.get(url, parameters, timeout=10, allow_redirects=False)

    assert authorize("https://evil.test/").status_code == 400
    location = authorize("http://localhost:1/callback").headers["Location"]
    assert location.startswith("http://localhost:1/callback?code=")
    code = location.partition("code=")[2].partition("&")[0]
    redeem = [
        requests.post(f"{sigstore.url}/token", {"code": code}, timeout=10).status_code
        for _ in range(2)
    ]
    assert redeem == [200, 401]
