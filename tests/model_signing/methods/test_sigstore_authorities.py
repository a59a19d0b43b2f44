"""What the trust root says of an authority's time is obeyed, whichever authority it is."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from model_signing.errors import CertificateError, Error, LogError, SigningError
from model_signing.methods.sigstore import (
    SigstoreSigning,
    authenticate_sigstore,
    sigstore_signer,
)
from model_signing.methods.sigstore_trust import SigstoreTrust
from sandbox.sigstore import LocalSigstore
from sandbox.sigstore.authority import certificate_name
from tests.support import stock
from tests.support.forgery import Issuer, ahead
from tests.support.forgery import chain as issuers
from tests.support.material import base64_of, edited, statement

Json = dict[str, Any]
NAMES = {
    "certificateAuthorities": "certificate authority",
    "ctlogs": "certificate log",
    "tlogs": "transparency log",
    "timestampAuthorities": "timestamp authority",
}


CHAINS = ("certificateAuthorities", "timestampAuthorities")
# What no certificate of a chain may be that issues others.
ISSUERS: dict[str, Callable[[], Issuer]] = {
    "expired": lambda: Issuer(end=ahead(minutes=-1)),
    "no authority": lambda: Issuer(is_ca=None),
    "a server's": lambda: Issuer(usages=[ExtendedKeyUsageOID.SERVER_AUTH]),
    "signed by another key": lambda: Issuer(foreign=True),
    "by another name": lambda: Issuer(issuer=certificate_name("somebody")),
}
OF_ROOTS = ("a server's", "no authority")
OF_INTERMEDIATES = ("a server's", "signed by another key", "by another name")


@pytest.fixture(scope="module")
def signed(sigstore: LocalSigstore, trust_config: Path) -> bytes:
    options = SigstoreSigning(trust_config, identity_token=sigstore.oidc.token())
    return sigstore_signer(options)(statement())


@pytest.fixture(params=NAMES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def at(**ahead: float) -> str:
    return (datetime.now(timezone.utc) + timedelta(**ahead)).strftime("%Y-%m-%dT%H:%M:%SZ")


def window(authority: Json, **valid: str) -> None:
    """Says when an entry of a trust root is valid."""
    authority.get("publicKey", authority)["validFor"] = valid


def accepted(config: Json, data: bytes, folder: Path) -> datetime | None:
    path = folder / "trust.json"
    path.write_text(json.dumps(config))
    return authenticate_sigstore(data, SigstoreTrust(path)).signed_at


class TestVerifying:
    @pytest.fixture(autouse=True)
    def _here(self, sigstore: LocalSigstore, signed: bytes, tmp_path: Path) -> None:
        self.config, self.signed, self.folder = sigstore.trust_config(), signed, tmp_path

    def authorities(self, kind: str) -> list[Json]:
        found: list[Json] = self.config["trustedRoot"][kind]
        return found

    def refused(self, kind: str) -> Error:
        with pytest.raises(Error) as refusal:
            accepted(self.config, self.signed, self.folder)
        assert type(refusal.value) is (
            CertificateError if kind == "certificateAuthorities" else LogError
        )
        assert NAMES[kind] in refusal.value.message
        assert kind in (refusal.value.where or "")
        return refusal.value

    def test_ended_before(self, kind: str) -> None:
        start, end = at(days=-9), at(days=-1)
        window(self.authorities(kind)[0], start=start, end=end)
        refusal = self.refused(kind)
        assert "had ended" in refusal.message
        for time in (start, end):
            assert time.replace("T", " ") in (refusal.expected or "")
        assert at()[:10] in (refusal.found or "")
        assert "sign again" in (refusal.fix or "")

    def test_not_valid_yet(self, kind: str) -> None:
        window(self.authorities(kind)[0], start=at(hours=1))
        assert "not valid yet" in self.refused(kind).message

    def test_ends_later_or_never(self, kind: str) -> None:
        for end in ({"end": at(hours=1)}, {}):
            window(self.authorities(kind)[0], start=at(days=-9), **end)
            assert accepted(self.config, self.signed, self.folder)

    def test_the_same_key_or_subject_with_two_windows(self, kind: str) -> None:
        # Whichever comes first, the one whose window has the time vouches.
        for turn in (1, -1):
            first = self.authorities(kind)[0]
            other = copy.deepcopy(first)
            window(first, start=at(days=-9), end=at(days=-1))
            window(other, start=at(days=-1))
            self.config["trustedRoot"][kind] = [first, other][::turn]
            assert accepted(self.config, self.signed, self.folder)
        for entry in self.authorities(kind):
            window(entry, start=at(days=-9), end=at(days=-1))
        assert "had ended" in self.refused(kind).message

    def test_another_that_is_valid_does_not_vouch_for_it(self, kind: str) -> None:
        window(self.authorities(kind)[0], start=at(days=-9), end=at(days=-1))
        with LocalSigstore() as other:
            self.authorities(kind).append(other.trusted_root()[kind][0])
        assert "had ended" in self.refused(kind).message

    @pytest.mark.parametrize(
        ("part", "number"),
        [*(("timestampAuthorities", number) for number in range(3)), ("certificateAuthorities", 1)],
    )
    def test_a_certificate_that_openssl_cannot_read(
        self, part: str, number: int, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Of a clock rfc3161-client panics on it, which is no `Exception` (PyO3).

        The root above Fulcio's own authority nobody needs; cosign refuses it, too.
        """
        one = self.authorities(part)[0]["certChain"]["certificates"][number]
        data = base64.b64decode(one["rawBytes"])
        organization = b"\x0c\x0csigstore.dev"  # a UTF8String, as of another class
        assert data.count(organization) == 2
        one["rawBytes"] = base64_of(data.replace(organization, b"\x8c" + organization[1:]))
        with pytest.raises(Error) as refusal:
            accepted(self.config, self.signed, self.folder)
        assert "malformed" in refusal.value.message
        assert "panicked" not in capfd.readouterr().err

    @pytest.mark.parametrize(
        ("part", "which", "what"),
        [
            *(("certificateAuthorities", "intermediate", what) for what in OF_INTERMEDIATES),
            *(("certificateAuthorities", "root", what) for what in ("expired", *OF_ROOTS)),
            *((CHAINS[1], which, OF_ROOTS[0]) for which in ("intermediate", "root")),
            ("timestampAuthorities", "root", "no authority"),
        ],
    )
    def test_a_chain_has_to_hold_up_to_its_root(
        self, part: str, which: str, what: str, sigstore: LocalSigstore
    ) -> None:
        """Nothing of this is seen by sigstore-python; more, by both: `tests/services`."""
        ca = part == "certificateAuthorities"
        authority = (sigstore.fulcio if ca else sigstore.tsa).authority
        chain = self.authorities(part)[0]["certChain"]["certificates"]
        for wrong in ({}, {which: ISSUERS[what]()}):
            both = {"intermediate": Issuer(), "root": Issuer(), **wrong}
            chain[-2:] = [{"rawBytes": base64_of(one)} for one in issuers(authority, **both)]
            if not wrong:
                assert accepted(self.config, self.signed, self.folder)
        refusal = self.refused(part)
        assert "does not chain" in refusal.message
        assert "trust configuration" in (refusal.fix or "")

    @pytest.mark.parametrize("part", CHAINS)
    def test_a_certificate_is_as_rfc_5280_has_it(self, part: str) -> None:
        listed = self.authorities(part)[0]["certChain"]["certificates"][-1]
        sha384, sha256 = (bytes.fromhex(f"2a8648ce3d0403{last}") for last in ("03", "02"))
        good = base64.b64decode(listed["rawBytes"])
        before, _, after = good.rpartition(sha384)
        # 4.1.1.2: twice the same algorithm; 4.1.2.2: after the version, a serial number above zero.
        version, length, number = good.partition(b"\xa0\x03\x02\x01\x02\x02")
        for bad in (
            before + sha256 + after,
            version + length + number[:1] + b"\xff" + number[2:],
        ):
            listed["rawBytes"] = base64_of(bad)
            with pytest.raises(CertificateError, match="malformed") as refusal:
                accepted(self.config, self.signed, self.folder)
            assert part in (refusal.value.where or "")

    def test_an_entry_counts_for_the_log_that_it_names(self) -> None:
        with LocalSigstore() as other:
            root = other.trusted_root()
        self.authorities("tlogs").append(root["tlogs"][0])
        entry = ("verificationMaterial", "tlogEntries", 0, "logId")
        lying = edited(self.signed, *entry, to=root["tlogs"][0]["logId"])
        with pytest.raises(LogError):
            accepted(self.config, lying, self.folder)


def test_what_was_signed_in_time_stays_good(tmp_path: Path) -> None:
    ago = timedelta(days=30)
    with LocalSigstore() as instance:
        instance.fulcio.lifetime = timedelta(days=60)  # sigstore-python signs with a valid one only
        clocks = [(service, service.clock) for service in (instance.fulcio, instance.tsa)]
        for service, clock in clocks:
            service.clock = lambda clock=clock: clock() - ago
        config = instance.trust_config()
        data = stock.sign(instance, payload=statement()).to_json().encode()
        for kind in NAMES:
            window(config["trustedRoot"][kind][0], start=at(days=-40), end=at(days=-20))
        when = accepted(config, data, tmp_path)
        assert when is not None
        assert abs(datetime.now(timezone.utc) - ago - when) < timedelta(minutes=2)
        for kind in NAMES:
            changed = copy.deepcopy(config)
            window(changed["trustedRoot"][kind][0], start=at(days=-40), end=at(days=-35))
            with pytest.raises(Error, match=f"{NAMES[kind]} had ended"):
                accepted(changed, data, tmp_path)


def test_the_time_in_the_sct_counts_for_the_certificate_log(tmp_path: Path) -> None:
    """Fulcio's clock, and with it the SCT, is five minutes behind the timestamp's."""
    with LocalSigstore() as instance:
        clock = instance.fulcio.clock
        instance.fulcio.clock = lambda: clock() - timedelta(minutes=5)
        data = stock.sign(instance, payload=statement()).to_json().encode()
        config = instance.trust_config()
        window(config["trustedRoot"]["ctlogs"][0], start=at(days=-9), end=at(minutes=-4))
        assert accepted(config, data, tmp_path)
        window(config["trustedRoot"]["ctlogs"][0], start=at(minutes=-4))
        with pytest.raises(LogError, match="certificate log was not valid yet") as refusal:
            accepted(config, data, tmp_path)
        assert "(SCT)" in (refusal.value.found or "")


class TestSigning:
    """Nothing is logged that nobody would accept."""

    @pytest.fixture
    def instance(self) -> Iterator[LocalSigstore]:
        with LocalSigstore() as running:
            yield running

    @staticmethod
    def refusal(instance: LocalSigstore, folder: Path, change: Callable[[Json], object]) -> Error:
        config = instance.trust_config()
        change(config["trustedRoot"])
        (folder / "config.json").write_text(json.dumps(config))
        options = SigstoreSigning(folder / "config.json", identity_token=instance.oidc.token())
        with pytest.raises(Error) as refusal:
            sigstore_signer(options)(statement())
        assert "POST /api/v2/log/entries" not in instance.requests
        return refusal.value

    def test_an_authority_that_ended(
        self, kind: str, instance: LocalSigstore, tmp_path: Path
    ) -> None:
        def change(root: Json) -> None:
            window(root[kind][0], start=at(days=-9), end=at(days=-1))

        refusal = self.refusal(instance, tmp_path, change)
        assert isinstance(refusal, SigningError)
        assert f"{NAMES[kind]} had ended" in refusal.message
        assert instance.requests == []

    def test_one_that_ended_beside_one_that_did_not(
        self, kind: str, instance: LocalSigstore, tmp_path: Path
    ) -> None:
        with LocalSigstore() as foreign:
            other = foreign.trusted_root()[kind][0]

        def change(root: Json) -> None:
            window(root[kind][0], start=at(days=-9), end=at(days=-1))
            root[kind].append(other)

        assert self.refusal(instance, tmp_path, change).found

    def test_none_at_all(self, kind: str, instance: LocalSigstore, tmp_path: Path) -> None:
        refusal = self.refusal(instance, tmp_path, lambda root: root[kind].clear())
        assert f"no {NAMES[kind]}" in refusal.message
        assert instance.requests == []

    @pytest.mark.parametrize("part", CHAINS)
    def test_a_chain_that_does_not_hold(
        self, part: str, instance: LocalSigstore, tmp_path: Path
    ) -> None:
        ca = part == "certificateAuthorities"
        authority = (instance.fulcio if ca else instance.tsa).authority

        def change(root: Json) -> None:
            broken = issuers(authority, Issuer(), ISSUERS["no authority"]())
            listed = root[part][0]["certChain"]["certificates"]
            listed[-2:] = [{"rawBytes": base64_of(one)} for one in broken]

        refusal = self.refusal(instance, tmp_path, change)
        assert f"does not chain to the root of the {NAMES[part]}" in refusal.message
        assert part in (refusal.where or "")
