"""Method `certificate`: the chain, its extensions and its time (OMS 8.2, RFC 5280)."""

from __future__ import annotations

import hashlib
import random
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from model_signing.errors import (
    BundleError,
    CertificateError,
    FileError,
    LogError,
    SignatureError,
    UsageError,
)
from model_signing.methods import Authenticated
from model_signing.methods.certificate import certificate_signer, certificate_verifier
from model_signing.methods.timestamps import timestamp
from model_signing.oms import bundle
from sandbox.sigstore import LocalSigstore
from tests.support.material import (
    CA,
    CODE_SIGNING,
    DAY,
    NOT_CA,
    NOW,
    TLS_ONLY,
    Holder,
    authority,
    base64_of,
    certificate_bundle,
    certify,
    der,
    edited,
    key_bundle,
    key_usage,
    leaf,
    new_key,
    pem,
    private_pem,
    shared,
    sign_raw,
    statement,
)

ROOT = authority("root")
INTERMEDIATE = authority("intermediate", ROOT)
SIGNER = leaf(INTERMEDIATE)


def verify(
    data: bytes, *roots: Holder, tsa: tuple[bytes, ...] = (), now: datetime | None = None
) -> Authenticated:
    trusted = [pem(holder.certificate) for holder in roots or (ROOT,)]
    return certificate_verifier(trusted, tsa, now=now)(data)


def test_signed_by_a_certificate_of_a_trusted_root() -> None:
    signer = certificate_signer(
        private_pem(SIGNER.key), pem(SIGNER.certificate), [pem(INTERMEDIATE.certificate)]
    )
    authenticated = verify(signer(statement()))
    assert authenticated.payload == statement()
    assert (authenticated.identity, authenticated.issuer) == ("CN=signer", "CN=intermediate")
    assert authenticated.certificate == der(SIGNER.certificate)
    assert authenticated.signed_at is None


@pytest.mark.parametrize("curve", ["P-256", "P-384", "P-521"])
def test_every_curve(curve: str) -> None:
    holder = leaf(ROOT, key=new_key(curve))
    data = certificate_signer(private_pem(holder.key), pem(holder.certificate))(statement())
    assert verify(data).method == "certificate"


def test_a_root_with_an_rsa_key() -> None:
    root = certify("rsa", None, [CA], key=rsa.generate_private_key(65537, 2048))
    assert verify(certificate_bundle(leaf(root)), root)


def test_the_leaf_itself_may_be_what_is_trusted() -> None:
    alone = certify("alone", None, [CA, key_usage("digital_signature"), CODE_SIGNING])
    assert verify(certificate_bundle(alone), alone)


def test_the_conformance_suites_leaves_with_ca_true_are_accepted() -> None:
    odd = leaf(INTERMEDIATE, extensions=[CA, key_usage("digital_signature"), CODE_SIGNING])
    assert verify(certificate_bundle(odd, [INTERMEDIATE.certificate]))


def test_a_certificate_without_a_subject_is_known_by_its_alternative_name() -> None:
    names = x509.SubjectAlternativeName([x509.RFC822Name("dev@example.test")])
    nameless = certify("", ROOT, [NOT_CA, key_usage("digital_signature"), names])
    assert verify(certificate_bundle(nameless)).identity == "dev@example.test"


def test_a_missing_intermediate_is_named() -> None:
    with pytest.raises(CertificateError, match="trusted root") as refusal:
        verify(certificate_bundle(SIGNER))
    assert "CN=intermediate" in (refusal.value.found or "")


def test_another_root_of_the_same_name_is_refused() -> None:
    with pytest.raises(CertificateError, match="trusted root"):
        verify(certificate_bundle(SIGNER, [INTERMEDIATE.certificate]), authority("root"))


def test_a_root_that_the_bundle_brings_along_is_not_trusted() -> None:
    theirs = authority("root")
    forged = certificate_bundle(leaf(theirs), [theirs.certificate])
    with pytest.raises(CertificateError, match="trusted root"):
        verify(forged)
    assert verify(forged, theirs)


def test_a_copied_certificate_does_not_verify_another_keys_signature() -> None:
    thief = Holder(new_key(), SIGNER.certificate)
    with pytest.raises(SignatureError, match="does not match"):
        verify(certificate_bundle(thief, [INTERMEDIATE.certificate]))


def test_a_certificate_after_the_trusted_leaf_is_not_the_signer() -> None:
    thief = leaf(authority("elsewhere"))
    with pytest.raises(CertificateError, match="trusted root"):
        verify(certificate_bundle(thief, [SIGNER.certificate, INTERMEDIATE.certificate]))


# What is wrong with the leaf -> its extensions, words of the refusal.
WRONG_LEAVES = {
    "TLS only": ([NOT_CA, key_usage("digital_signature"), TLS_ONLY], "not for code signing"),
    "key agreement only": ([NOT_CA, key_usage("key_agreement"), CODE_SIGNING], "digitalSignature"),
    "for anything": (
        [NOT_CA, x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])],
        "not for code signing",
    ),
    "for nothing in particular": ([NOT_CA], "does not say"),
}


@pytest.mark.parametrize("name", WRONG_LEAVES)
def test_leaves_that_are_not_for_signing_are_refused(name: str) -> None:
    extensions, words = WRONG_LEAVES[name]
    wrong = leaf(ROOT, extensions=extensions)
    with pytest.raises(CertificateError, match=words):
        verify(certificate_bundle(wrong))
    with pytest.raises(CertificateError, match=words):  # and nobody signs with it by mistake
        certificate_signer(private_pem(wrong.key), pem(wrong.certificate))


# What is wrong with the issuer -> its extensions.
WRONG_ISSUERS = {
    "no basicConstraints": [key_usage("key_cert_sign")],
    "CA:FALSE": [NOT_CA, key_usage("key_cert_sign")],
    "may not sign certificates": [CA, key_usage("digital_signature")],
    "path length of the root exceeded": [CA, key_usage("key_cert_sign")],
    "for servers only": [CA, key_usage("key_cert_sign"), TLS_ONLY],
}


@pytest.mark.parametrize("name", WRONG_ISSUERS)
def test_issuers_that_are_no_authorities_are_refused(name: str) -> None:
    depth = 0 if "path length" in name else None
    root = certify("root", None, [x509.BasicConstraints(True, depth), key_usage("key_cert_sign")])
    middle = certify("middle", root, WRONG_ISSUERS[name])
    with pytest.raises(CertificateError, match="trusted root"):
        verify(certificate_bundle(leaf(middle), [middle.certificate]), root)


def test_an_issuer_without_key_usage_is_an_authority() -> None:  # RFC 5280 6.1.4 (n)
    root = certify("root", None, [CA])
    assert verify(certificate_bundle(leaf(root)), root)


@pytest.mark.parametrize("purpose", ["CODE_SIGNING", "ANY_EXTENDED_KEY_USAGE"])
def test_an_issuer_for_these_purposes_certifies_signers(purpose: str) -> None:
    purposes = x509.ExtendedKeyUsage([getattr(ExtendedKeyUsageOID, purpose)])
    middle = certify("middle", ROOT, [CA, key_usage("key_cert_sign"), purposes])
    assert verify(certificate_bundle(leaf(middle), [middle.certificate]))


def test_a_leaf_does_not_issue_leaves() -> None:
    with pytest.raises(CertificateError, match="trusted root"):
        verify(certificate_bundle(leaf(SIGNER), [SIGNER.certificate, INTERMEDIATE.certificate]))


def test_weak_keys_and_unknown_critical_extensions_are_refused() -> None:
    weak = certify("weak", None, [CA], key=rsa.generate_private_key(65537, 1024))
    with pytest.raises(CertificateError, match="trusted root"):
        verify(certificate_bundle(leaf(weak)), weak)
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")
    builder = (
        x509.CertificateBuilder()
        .subject_name(SIGNER.certificate.subject)
        .issuer_name(ROOT.certificate.subject)
        .public_key(SIGNER.key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(key_usage("digital_signature"), True)
        .add_extension(unknown, True)
    )
    odd = Holder(SIGNER.key, builder.sign(ROOT.key, hashes.SHA256()))
    with pytest.raises(CertificateError, match="trusted root"):
        verify(certificate_bundle(odd))


def test_a_leaf_on_another_curve_is_refused() -> None:
    odd = leaf(ROOT, key=ec.generate_private_key(ec.SECP256K1()))
    payload = statement()
    signature = odd.key.sign(bundle.pae(bundle.PAYLOAD_TYPE, payload), ec.ECDSA(hashes.SHA256()))
    data = bundle.encode(payload, signature, certificates=[der(odd.certificate)])
    with pytest.raises((FileError, CertificateError)):
        verify(data)


class TestTime:
    """OMS 8.2: the leaf must be within its validity period; at a trusted time, or now."""

    def test_expired(self) -> None:
        expired = leaf(ROOT, start=NOW - 9 * DAY, end=NOW - 8 * DAY)
        with pytest.raises(CertificateError, match="has expired") as refusal:
            verify(certificate_bundle(expired))
        assert "--timestamp-url" in (refusal.value.fix or "")
        with pytest.raises(CertificateError, match="has expired"):
            certificate_signer(private_pem(expired.key), pem(expired.certificate))

    def test_not_yet_valid(self) -> None:
        early = leaf(ROOT, start=NOW + DAY, end=NOW + 2 * DAY)
        with pytest.raises(CertificateError, match="not valid yet") as refusal:
            verify(certificate_bundle(early))
        assert "clock right?" in (refusal.value.fix or "")
        with pytest.raises(CertificateError, match="not valid yet") as refusal:
            verify(certificate_bundle(early), now=NOW - DAY)  # by no clock of this machine
        assert refusal.value.fix is None
        assert verify(certificate_bundle(early), now=NOW + DAY)

    def test_to_the_second(self) -> None:
        data = certificate_bundle(leaf(ROOT, end=NOW))
        assert verify(data, now=NOW)
        with pytest.raises(CertificateError, match="has expired"):
            verify(data, now=NOW + timedelta(seconds=1))

    @pytest.mark.parametrize("span", [(-9, -8), (8, 9)])
    def test_an_authority_out_of_its_time(self, span: tuple[int, int]) -> None:
        start, end = (NOW + days * DAY for days in span)
        for root, middle in (
            (authority("root", start=start, end=end), None),
            (ROOT, authority("middle", ROOT, start=start, end=end)),
        ):
            others = [middle.certificate] if middle else []
            with pytest.raises(CertificateError, match="trusted root") as refusal:
                verify(certificate_bundle(leaf(middle or root), others), root)
            assert "not valid at validation time" in (refusal.value.found or "")
            assert ("clock right?" in (refusal.value.fix or "")) == (start > NOW)


class TestTimestamps:
    """RFC 3161 timestamps decide the time, if their authority is trusted."""

    @staticmethod
    def stamped(signer: Holder, sigstore: LocalSigstore) -> bytes:
        plain = certificate_bundle(signer)
        url = sigstore.trust_config()["signingConfig"]["tsaUrls"][0]["url"]
        stamp = timestamp(bundle.parse(plain).signature, url)
        timestamps = {"rfc3161Timestamps": [{"signedTimestamp": base64_of(stamp)}]}
        return edited(plain, "verificationMaterial", "timestampVerificationData", to=timestamps)

    def test_an_expired_leaf_that_signed_in_time(self, sigstore: LocalSigstore) -> None:
        tsa = (pem(sigstore.tsa.authority.root),)
        data = self.stamped(leaf(ROOT, end=NOW + timedelta(hours=1)), sigstore)
        later = NOW + 30 * DAY
        authenticated = verify(data, tsa=tsa, now=later)
        assert authenticated.time_source == "timestamp authority"
        assert authenticated.signed_at is not None
        assert authenticated.signed_at < later - DAY
        with pytest.raises(CertificateError, match="has expired") as refusal:
            verify(data, now=later)  # nobody said whom to believe the time
        assert "--tsa-certificate-chain" in (refusal.value.fix or "")

    def test_the_signers_own_option(self, sigstore: LocalSigstore) -> None:
        url = sigstore.trust_config()["signingConfig"]["tsaUrls"][0]["url"]
        holder = leaf(ROOT)
        signer = certificate_signer(
            private_pem(holder.key), pem(holder.certificate), timestamp_url=url
        )
        tsa = (pem(sigstore.tsa.authority.root),)
        assert verify(signer(statement()), tsa=tsa).signed_at

    def test_a_timestamp_outside_the_validity(self, sigstore: LocalSigstore) -> None:
        tsa = (pem(sigstore.tsa.authority.root),)
        data = self.stamped(leaf(ROOT, start=NOW - 9 * DAY, end=NOW - 8 * DAY), sigstore)
        with pytest.raises(CertificateError, match="has expired"):
            verify(data, tsa=tsa, now=NOW - 8 * DAY)

    def test_a_timestamp_of_an_untrusted_authority(self, sigstore: LocalSigstore) -> None:
        with LocalSigstore() as other:
            data = self.stamped(SIGNER, other)
        with pytest.raises(LogError, match="trusted authority"):
            verify(data, tsa=(pem(sigstore.tsa.authority.root),))

    def test_an_authority_for_certificates_makes_no_timestamps(
        self, sigstore: LocalSigstore
    ) -> None:
        data = self.stamped(leaf(ROOT), sigstore)
        with pytest.raises(LogError, match="trusted authority"):
            verify(data, tsa=(pem(ROOT.certificate),))


def test_bundles_of_other_methods_are_refused() -> None:
    with pytest.raises(BundleError, match="another method"):
        verify(key_bundle(new_key()))


def test_a_certificate_that_is_none_is_refused() -> None:
    junk = edited(
        certificate_bundle(SIGNER),
        "verificationMaterial",
        "x509CertificateChain",
        to={"certificates": [{"rawBytes": base64_of(b"junk")}]},
    )
    with pytest.raises(CertificateError, match="malformed"):
        verify(junk)
    with pytest.raises(UsageError, match="no trusted certificate"):
        certificate_verifier([])
    with pytest.raises(FileError, match="not a certificate"):
        certificate_verifier([b"junk"])
    with pytest.raises(FileError, match="not a certificate"):
        certificate_signer(private_pem(SIGNER.key), b"junk")


def test_the_certificate_must_be_of_the_key() -> None:
    with pytest.raises(CertificateError, match="not of this private key"):
        certificate_signer(private_pem(new_key()), pem(SIGNER.certificate))


def test_fingerprints_are_those_of_openssl(tmp_path: Path) -> None:
    lines: list[str] = []
    certificate_verifier([pem(ROOT.certificate)], log_fingerprints=lines.append)(
        certificate_bundle(leaf(ROOT))
    )
    path = tmp_path / "root.pem"
    path.write_bytes(pem(ROOT.certificate))
    command = ["openssl", "x509", "-in", str(path), "-noout", "-fingerprint", "-sha256"]
    expected = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout
    assert len(lines) == 2
    assert lines[0].split()[-1] == expected.strip().split("=")[1]
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    key = ROOT.certificate.public_key().public_bytes(serialization.Encoding.DER, info)
    assert f"key sha256:{hashlib.sha256(key).hexdigest()}," in lines[0]


def test_an_expired_certificate_of_the_public_suite() -> None:
    case = shared("oms", "test-cases", "verify", "negative", "certificate-expired_fail")
    root = shared("oms", "assets", "keys", "certificate", "ca-cert.pem").read_bytes()
    with pytest.raises(CertificateError, match="has expired") as refusal:
        certificate_verifier([root])((case / "bundle.sig").read_bytes())
    assert "2020-01-02" in (refusal.value.expected or "")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # cryptography's remarks
def test_mutated_certificates_are_refused() -> None:
    """Bits of leaf and intermediate flipped, 3,000 of about 5,300."""
    chance = random.Random(7)
    good = [der(SIGNER.certificate), der(INTERMEDIATE.certificate)]
    verifier = certificate_verifier([pem(ROOT.certificate)])
    payload = statement()
    signature = sign_raw(SIGNER.key, payload)
    assert verifier(bundle.encode(payload, signature, certificates=good))
    everywhere = [(n, at, bit) for n in (0, 1) for at in range(len(good[n])) for bit in range(8)]
    for n, at, bit in chance.sample(everywhere, 3000):
        mutated = [bytearray(one) for one in good]
        mutated[n][at] ^= 1 << bit
        data = bundle.encode(payload, signature, certificates=[bytes(one) for one in mutated])
        with pytest.raises(CertificateError) as refusal:
            verifier(data)
        assert refusal.value.message


def test_odd_certificates_are_refused() -> None:
    versions = der(SIGNER.certificate).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x12")
    data = bundle.encode(b"{}", b"0", certificates=[versions])
    with pytest.raises(CertificateError, match="malformed"):
        verify(data)
