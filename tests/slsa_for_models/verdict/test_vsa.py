"""Verification summaries: made from a verdict, relied on by others (SLSA v1.2 VSA)."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from model_signing.methods.key import key_signer
from model_signing.oms import bundle
from slsa_for_models.attesting import train_statement
from slsa_for_models.errors import PolicyError
from slsa_for_models.verdict import policy_file, verification
from slsa_for_models.verdict.result import Verdict
from tests.support.crafted import (
    SOURCE,
    TRAIN,
    Json,
    Workshop,
    changed,
    new_key,
    private_pem,
    public_pem,
    refusals,
)

VERIFIER = "https://models.example/verifier"
RESOURCE = "https://models.example/model.pth"
WORKFLOW = "octo-org/gate/.github/workflows/verify.yml@refs/heads/main"
ON = {"repository": "octo-org/gate", "job_workflow_ref": WORKFLOW, "workflow_ref": WORKFLOW}

PUBLISHER = f"""
version = 1
[source]
uri = "{SOURCE}"
[[builder]]
id = "{TRAIN}"
level = 3
"""
BY_KEY = f"""
version = 1
[require]
evidence = ["vsa"]
level = 3
[vsa]
resource_uri = "{RESOURCE}"
[[vsa.verifier]]
id = "{VERIFIER}"
public_key = "verifier.pub"
"""
KEYLESS = BY_KEY.replace(
    'public_key = "verifier.pub"',
    f'identity = "https://github.com/{WORKFLOW}"\nsource_uri = "github.com/octo-org/gate"',
)


def attest(workshop: Workshop, model: Path, *options: object, policy: str = PUBLISHER) -> int:
    return workshop.verify(
        model,
        *("--provenance", workshop.train_provenance(model)),
        *("--policy", workshop.write("publisher.toml", policy.encode())),
        *("--attest-verdict", workshop.folder / "vsa.json"),
        *("--verifier-id", VERIFIER, "--resource-uri", RESOURCE, *options),
    )[0]


def with_key(workshop: Workshop) -> tuple[object, ...]:
    key = new_key()
    workshop.write("verifier.pub", public_pem(key))
    pem = private_pem(key)
    return ("--private-key", workshop.write("verifier.pem", pem))


def statement_of(workshop: Workshop) -> Json:
    data = (workshop.folder / "vsa.json").read_bytes()
    statement: Json = json.loads(bundle.parse(data).payload)
    return statement


def rely(workshop: Workshop, model: Path, policy: str = BY_KEY) -> tuple[int, list[str]]:
    code, verdict = workshop.verify(
        model,
        *("--vsa", workshop.folder / "vsa.json"),
        *("--policy", workshop.write("consumer.toml", policy.encode())),
    )
    return code, refusals(verdict)


def test_fields_of_the_specification(workshop: Workshop) -> None:
    model = workshop.model()
    assert attest(workshop, model, *with_key(workshop)) == 0
    statement = statement_of(workshop)
    verified = statement["predicate"].pop("timeVerified")
    assert verified.endswith("Z")
    assert statement == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "model.pth", "digest": {"sha256": sha256(b"weights").hexdigest()}}],
        "predicateType": "https://slsa.dev/verification_summary/v1",
        "predicate": {
            "verifier": {"id": VERIFIER},
            "resourceUri": RESOURCE,
            "policy": {
                "uri": "publisher.toml",
                "digest": {"sha256": sha256(PUBLISHER.encode()).hexdigest()},
            },
            "inputAttestations": [
                {
                    "uri": "p.json",
                    "digest": {
                        "sha256": sha256((workshop.folder / "p.json").read_bytes()).hexdigest()
                    },
                }
            ],
            "verificationResult": "PASSED",
            "verifiedLevels": ["SLSA_BUILD_LEVEL_3"],
            "dependencyLevels": {},
            "slsaVersion": "1.2",
        },
    }


def test_files_that_change_after_they_were_read(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The summary names what was verified, not what has stood there since."""
    model = workshop.model()
    signature = workshop.sign_model(model)
    verified = verification.verify
    before: dict[str, str] = {}

    def then_change(*arguments: Any, **options: Any) -> Verdict:
        verdict = verified(*arguments, **options)
        for name in ("publisher.toml", "p.json", "model.pth.sig"):
            path = workshop.folder / name
            before[name] = sha256(path.read_bytes()).hexdigest()
            path.write_bytes(b"changed")
        return verdict

    monkeypatch.setattr(verification, "verify", then_change)
    assert attest(workshop, model, "--signature", signature, *with_key(workshop)) == 0
    predicate = statement_of(workshop)["predicate"]
    named = [predicate["policy"], *predicate["inputAttestations"]]
    assert {item["uri"]: item["digest"]["sha256"] for item in named} == before


def test_no_claim_about_base_models_that_were_not_verified(workshop: Workshop) -> None:
    model = workshop.model()
    statement = workshop.train_statement(model, workshop.record(model))
    definition = statement["predicate"]["buildDefinition"]
    base = {"name": "base-model", "digest": {"sha256": "e" * 64}}
    definition["resolvedDependencies"].append(base)
    provenance_file = workshop.write("p.json", workshop.sign(statement, workshop.token()))
    code, _ = workshop.verify(
        model,
        *("--provenance", provenance_file),
        *("--policy", workshop.write("publisher.toml", PUBLISHER.encode())),
        *("--attest-verdict", workshop.folder / "vsa.json", "--verifier-id", VERIFIER),
        *("--resource-uri", RESOURCE, *with_key(workshop)),
    )
    assert code == 0
    assert "dependencyLevels" not in statement_of(workshop)["predicate"]


def test_relied_on_with_a_key_and_keyless(workshop: Workshop) -> None:
    model = workshop.model()
    assert attest(workshop, model, *with_key(workshop)) == 0
    assert rely(workshop, model) == (0, [])
    assert attest(workshop, model, "--identity-token", workshop.token(**ON)) == 0
    assert rely(workshop, model, KEYLESS) == (0, [])
    assert rely(workshop, model, BY_KEY) == (1, ["SignerError"])
    elsewhere = workshop.token(**ON, runner_environment="self-hosted")
    assert attest(workshop, model, "--identity-token", elsewhere) == 0
    assert rely(workshop, model, KEYLESS) == (1, ["SignerError"])
    accepted = f'{KEYLESS}[build]\nrunners = ["self-hosted"]\n'
    assert rely(workshop, model, accepted) == (0, [])
    directory = workshop.directory(files=900)  # evidence larger than any key
    assert attest(workshop, directory, *with_key(workshop)) == 0
    assert (workshop.folder / "p.json").stat().st_size > 64 * 1024
    assert rely(workshop, directory) == (0, [])


def test_a_summary_does_not_say_what_only_provenance_says(workshop: Workshop) -> None:
    model = workshop.model()
    assert attest(workshop, model, *with_key(workshop)) == 0
    for expected in (
        f'uri = "{SOURCE}"',
        'branch = "main"',
        'tag = "v1.0.0"',
        f'commit = "{"a" * 40}"',
    ):
        code, refused = rely(workshop, model, f"{BY_KEY}[source]\n{expected}\n")
        assert (code, refused) == (1, ["ChainError"]), expected


def test_nothing_is_attested_of_a_refused_model(workshop: Workshop) -> None:
    model = workshop.model()
    policy = PUBLISHER.replace(SOURCE, "github.com/octo-org/other")
    assert attest(workshop, model, *with_key(workshop), policy=policy) == 1
    assert not (workshop.folder / "vsa.json").exists()


def test_a_summary_that_cannot_be_signed(workshop: Workshop) -> None:
    model = workshop.model()
    code, error = workshop.verify(
        model,
        *("--provenance", workshop.train_provenance(model)),
        *("--policy", workshop.write("publisher.toml", PUBLISHER.encode())),
        *("--attest-verdict", workshop.folder / "vsa.json", "--verifier-id", VERIFIER),
        *("--resource-uri", RESOURCE, "--identity-token", "expired"),
    )
    assert (code, error["error"]) == (1, "SigningError")
    assert not (workshop.folder / "vsa.json").exists()


def test_somebody_elses_summary(workshop: Workshop) -> None:
    model = workshop.model()
    assert attest(workshop, model, *with_key(workshop)) == 0
    with_key(workshop)  # the policy now names another key
    assert rely(workshop, model)[1][0] == "SignatureError"
    assert rely(workshop, model, KEYLESS)[1][0] == "SignatureError"
    for on in (
        {**ON, "repository": "evil/gate"},  # calls the same reusable workflow
        {**ON, "job_workflow_ref": WORKFLOW.replace("octo-org", "evil")},
    ):
        assert attest(workshop, model, "--identity-token", workshop.token(**on)) == 0
        assert rely(workshop, model, KEYLESS) == (1, ["SignerError"])
    person = workshop.sigstore.oidc.token("dev@octo.example")
    assert attest(workshop, model, "--identity-token", person) == 0
    assert rely(workshop, model, KEYLESS) == (1, ["SignerError"])
    by_person = KEYLESS.replace(f"https://github.com/{WORKFLOW}", "dev@octo.example")
    by_person += f'issuer = "{workshop.sigstore.url}"\n'
    assert rely(workshop, model, by_person)[0] == 1  # a person runs for no repository
    by_person = by_person.replace('source_uri = "github.com/octo-org/gate"\n', "")
    assert rely(workshop, model, by_person) == (0, [])


def test_two_verifiers_with_a_key_each(workshop: Workshop) -> None:
    """One verifier's key does not speak in another's name."""
    model = workshop.model()
    assert attest(workshop, model, *with_key(workshop)) == 0
    workshop.write("other.pub", public_pem(new_key()))
    swapped = BY_KEY.replace("verifier.pub", "other.pub") + (
        '[[vsa.verifier]]\nid = "https://models.example/other"\npublic_key = "verifier.pub"\n'
    )
    assert rely(workshop, model, swapped) == (1, ["SignerError"])


@pytest.mark.parametrize(
    ("field", "value", "refusal"),
    [
        ("subject.0.digest.sha256", "e" * 64, "SubjectError"),
        ("predicateType", "https://slsa.dev/provenance/v1", "PredicateTypeError"),
        ("predicate.verifier.id", f"{VERIFIER}/", "SummaryError"),
        ("predicate.verifier", None, "SummaryError"),
        ("predicate.resourceUri", "https://models.example/other.pth", "SummaryError"),
        ("predicate.resourceUri", None, "SummaryError"),
        ("predicate.verificationResult", "FAILED", "SummaryError"),
        ("predicate.verificationResult", None, "SummaryError"),
        ("predicate.verifiedLevels", ["SLSA_BUILD_LEVEL_2"], "ChainError"),
        ("predicate.verifiedLevels", [], "SummaryError"),
        ("predicate.verifiedLevels", "SLSA_BUILD_LEVEL_3", "SummaryError"),
        ("predicate.verifiedLevels", ["SLSA_BUILD_LEVEL_2", "SLSA_BUILD_LEVEL_3"], "SummaryError"),
        ("predicate.verifiedLevels", ["FAILED"], "SummaryError"),
        ("predicate.verifiedLevels", ["SLSA_SOURCE_LEVEL_3"], "SummaryError"),
        ("predicate.verifiedLevels", ["SLSA_BUILD_LEVEL_4"], "SummaryError"),
        ("predicate.verifiedLevels", ["SLSA_BUILD_LEVEL_9"], "SummaryError"),
        ("predicate.policy", None, "SummaryError"),
        ("predicate.policy", {}, "SummaryError"),
        ("predicate.timeVerified", None, "SummaryError"),
        ("predicate.timeVerified", "yesterday", "SummaryError"),
        ("predicate.timeVerified", "2026-02-30T00:00:00Z", "SummaryError"),
        ("predicate.timeVerified", "2026-11-01T00:00:00", "SummaryError"),
        ("predicate.timeVerified", "2999-01-01T00:00:00Z", "SummaryError"),
        ("predicate.timeVerified", "2024-01-01T00:00:00.123456789+01:00", None),
        ("_type", "https://in-toto.io/Statement/v0.1", None),
        ("predicate.extension", 1, None),
    ],
)
def test_crafted(workshop: Workshop, field: str, value: object, refusal: str | None) -> None:
    model = workshop.model()
    options = with_key(workshop)
    assert attest(workshop, model, *options) == 0
    forged = changed(statement_of(workshop), field, value)
    sign = key_signer((workshop.folder / "verifier.pem").read_bytes())
    workshop.write("vsa.json", sign(train_statement.encode(forged)))
    code, refused = rely(workshop, model)
    assert code == (0 if refusal is None else 1)
    if refusal is not None:
        assert refused[0] == refusal.replace("ChainError", "BuilderError")


def test_provenance_is_no_summary_and_two_are_not_one(workshop: Workshop) -> None:
    model = workshop.model()
    assert attest(workshop, model, "--identity-token", workshop.token(**ON)) == 0
    data = (workshop.folder / "vsa.json").read_bytes()
    workshop.write("vsa.json", data + b"\n" + data)
    assert rely(workshop, model, KEYLESS) == (1, ["SummaryError"])
    workshop.write("vsa.json", (workshop.folder / "p.json").read_bytes())
    assert rely(workshop, model, KEYLESS) == (1, ["PredicateTypeError"])


def test_no_verifier_is_trusted_without_a_policy(workshop: Workshop) -> None:
    model = workshop.model()
    assert attest(workshop, model, "--identity-token", workshop.token(**ON)) == 0
    code, verdict = workshop.verify(
        model, "--vsa", workshop.folder / "vsa.json", "--source-uri", SOURCE
    )
    assert code == 1
    assert refusals(verdict) == ["SummaryError", "SummaryError", "ChainError"]
    # The verifier, the resource, and a source that a summary does not name.


@pytest.mark.parametrize("event", ["workflow_run", "issue_comment", "pull_request_target"])
def test_a_gate_that_others_can_start_is_believed_where_the_policy_names_the_event(
    workshop: Workshop, event: str
) -> None:
    model = workshop.model()
    token = workshop.token(**ON, event_name=event)
    assert attest(workshop, model, "--identity-token", token) == 0
    assert rely(workshop, model, KEYLESS) == (1, ["RunError"])
    assert rely(workshop, model, f'{KEYLESS}[build]\nevents = ["push", "{event}"]\n') == (0, [])
    for other in ('events = ["push"]', f'events = ["{event}"]\nenvironment = "release"'):
        code, refused = rely(workshop, model, f"{KEYLESS}[build]\n{other}\n")
        assert code == 1
        assert "ChainError" in refused  # nothing says how the model was built
    # A summary signed with a key was made in no run.
    assert attest(workshop, model, *with_key(workshop)) == 0
    policy = f'{BY_KEY}[build]\nevents = ["{event}"]\n'
    assert rely(workshop, model, policy) == (1, ["ChainError"])


def test_how_old_a_summary_may_be(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts from when it was signed; what it says of itself does not matter."""
    model = workshop.model()
    assert attest(workshop, model, "--identity-token", workshop.token(**ON)) == 0
    for age in ("1h", "1d", "9999d"):
        allowed = KEYLESS.replace("[vsa]", f'[vsa]\nmax_age = "{age}"')
        assert rely(workshop, model, allowed) == (0, [])

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(hours=2)

    monkeypatch.setattr("slsa_for_models.verdict.vsa.datetime", Later)
    assert rely(workshop, model, KEYLESS.replace("[vsa]", '[vsa]\nmax_age = "1d"')) == (0, [])
    code, refused = rely(workshop, model, KEYLESS.replace("[vsa]", '[vsa]\nmax_age = "1h"'))
    assert (code, refused[0]) == (1, "SummaryError")
    for malformed in ("0h", "1", "1w", "-1d", "1 d", "1d\\n"):
        policy = KEYLESS.replace("[vsa]", f'[vsa]\nmax_age = "{malformed}"')
        with pytest.raises(PolicyError):
            policy_file.load_policy(workshop.write("malformed.toml", policy.encode()))


def test_without_a_trusted_time_no_age_is_accepted(workshop: Workshop) -> None:
    model = workshop.model()
    assert attest(workshop, model, *with_key(workshop)) == 0
    assert rely(workshop, model) == (0, [])
    policy = BY_KEY.replace("[vsa]", '[vsa]\nmax_age = "1d"')
    code, refused = rely(workshop, model, policy)
    assert (code, refused[0]) == (1, "SummaryError")
