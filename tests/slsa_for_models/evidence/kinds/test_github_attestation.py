"""GitHub artifact attestations: one bundle, or JSON lines with several."""

from __future__ import annotations

import pytest

from model_signing.methods.sigstore_trust import SigstoreTrust
from tests.support.crafted import REF, SOURCE, TRAIN, Workshop, changed, github_statement, refusals

BUILDER = "octo-org/models/.github/workflows/release.yml@refs/heads/main"
OWN = {"job_workflow_ref": BUILDER, "workflow_ref": BUILDER}
EXPECTED = ("--source-uri", SOURCE, "--builder-id", f"https://github.com/{BUILDER}")


def test_one_attestation(workshop: Workshop) -> None:
    model = workshop.model()
    data = workshop.sign(github_statement(model, **OWN), workshop.token(**OWN))
    provenance = workshop.write("attestation.json", data)
    code, verdict = workshop.verify(model, "--provenance", provenance, *EXPECTED)
    # The workflow is the source's own: GitHub signs what it says, so Build L2, and not 3.
    assert (code, refusals(verdict), verdict["slsaBuildLevel"]) == (0, [], 2)


def test_made_by_a_reusable_workflow(workshop: Workshop) -> None:
    model = workshop.model()
    provenance = workshop.write("a.json", workshop.sign(github_statement(model), workshop.token()))
    options = ("--provenance", provenance, "--source-uri", SOURCE, "--builder-id", TRAIN)
    code, verdict = workshop.verify(model, *options)
    assert (code, verdict["slsaBuildLevel"]) == (0, 3)


def test_not_by_sign_yml_whose_callers_may_hold_its_token(workshop: Workshop) -> None:
    """`sign.yml` sends its token to the Sigstore that its caller names: the caller can be it."""
    model = workshop.model()
    signing = f"builders/mt/.github/workflows/sign.yml@{REF}"
    made = {"job_workflow_ref": signing}
    data = workshop.sign(github_statement(model, **made), workshop.token(**made))
    provenance = workshop.write("a.json", data)
    options = ("--provenance", provenance, "--source-uri", SOURCE)
    builder = f"https://github.com/{signing}"
    code, verdict = workshop.verify(model, *options, "--builder-id", builder)
    assert (code, refusals(verdict)) == (1, ["BuilderError"])
    # A workflow of that name in the source's own repository is another matter, and Build L2.
    path = ".github/workflows/sign.yml"
    own = f"octo-org/models/{path}@refs/heads/main"
    made = {"job_workflow_ref": own, "workflow_ref": own, "workflow": path}
    data = workshop.sign(github_statement(model, **made), workshop.token(**made))
    options = ("--provenance", workshop.write("b.json", data), "--source-uri", SOURCE)
    code, verdict = workshop.verify(model, *options, "--builder-id", f"https://github.com/{own}")
    assert (code, refusals(verdict), verdict["slsaBuildLevel"]) == (0, [], 2)


@pytest.mark.slow
@pytest.mark.parametrize("alone", [True, False], ids=["signature alone", "provenance"])
def test_what_the_certificate_knows_of_the_run(workshop: Workshop, alone: bool) -> None:
    model = workshop.model()
    policy = workshop.folder / "policy.toml"

    def verify(expected: str, **on: str) -> list[str]:
        on = {**OWN, "environment": "release", **on}
        evidence: tuple[object, ...] = ("--signature", workshop.sign_model(model, **on))
        evidence += ("--identity", f"https://github.com/{BUILDER}")
        if not alone:
            data = workshop.sign(github_statement(model, **on), workshop.token(**on))
            evidence = ("--provenance", workshop.write("a.json", data), *EXPECTED[2:])
        policy.write_text(f"version = 1\n[source]\nuri = '{SOURCE}'\n{expected}\n")
        code, verdict = workshop.verify(model, *evidence, "--policy", policy)
        assert (code == 0) is not refusals(verdict)
        if code == 0:
            shown = " ".join(step["found"] for step in verdict["steps"])
            assert f"started by {on.get('event_name', 'workflow_dispatch')}" in shown
        return refusals(verdict)[:1]

    for expected, refused in (
        ('repository_id = "1001"\nowner_id = "2002"\nvisibility = "public"', []),
        ('repository_id = "1002"', ["SourceError"]),
        ('owner_id = "1001"', ["SourceError"]),
        ('visibility = "private"', ["SourceError"]),
        ('[build]\nevents = ["push", "workflow_dispatch"]\nenvironment = "release"', []),
        ('[build]\nevents = ["push"]', ["RunError"]),
        ('[build]\nenvironment = { pattern = "staging|test" }', ["RunError"]),
    ):
        assert verify(expected) == refused, expected
    assert verify('[build]\nenvironment = { pattern = ".*" }', environment="") == ["RunError"]
    for event in ("pull_request_target", "issue_comment", "workflow_run"):
        assert verify("", event_name=event) == ["RunError"]
        assert verify(f'[build]\nevents = ["{event}"]', event_name=event) == []
        assert verify('[build]\nevents = ["push"]', event_name=event) == ["RunError"]


RUNNER = "https://github.com/actions/runner"


@pytest.mark.parametrize(
    ("builder_id", "signed_by", "refusal"),
    [
        (f"{RUNNER}/github-hosted", OWN, None),
        (f"https://github.com/{BUILDER}", OWN, None),
        (f"{RUNNER}/self-hosted", OWN, "CertificateClaimError"),
        (RUNNER, OWN, "CertificateClaimError"),
        (f"{RUNNER}/github-hosted", {"job_workflow_ref": f"{BUILDER}2"}, "BuilderError"),
    ],
)
def test_the_build_type_under_its_older_name(
    workshop: Workshop, builder_id: str, signed_by: dict[str, str], refusal: str | None
) -> None:
    """It names the runner; the workflow is the one that the certificate names."""
    model = workshop.model()
    older = "https://slsa-framework.github.io/github-actions-buildtypes/workflow/v1"
    statement = changed(
        github_statement(model, **OWN), "predicate.buildDefinition.buildType", older
    )
    statement = changed(statement, "predicate.runDetails.builder.id", builder_id)
    data = workshop.sign(statement, workshop.token(**signed_by))
    code, verdict = workshop.verify(
        model, "--provenance", workshop.write("a.json", data), *EXPECTED
    )
    assert (code, refusals(verdict)[:1]) == (
        0 if refusal is None else 1,
        [refusal][: bool(refusal)],
    )
    assert verdict["slsaBuildLevel"] == (0 if refusal else 2)


@pytest.mark.parametrize(
    ("field", "value", "refusal"),
    [
        ("predicate.buildDefinition.externalParameters.inputs", {}, "ParameterError"),
        ("predicate.buildDefinition.externalParameters.workflow.path", "x.yml",
         "CertificateClaimError"),
        ("predicate.buildDefinition.internalParameters.github.event_name", "push",
         "CertificateClaimError"),
        ("predicate.buildDefinition.resolvedDependencies.0.digest.gitCommit", "e" * 40,
         "CertificateClaimError"),
        ("predicate.runDetails.metadata.invocationId", "x", "CertificateClaimError"),
        ("predicate.runDetails.builder.id", f"{TRAIN}@v1", "CertificateClaimError"),
        ("predicate.runDetails.metadata", None, "ProvenanceError"),
        ("subject.0.digest.sha256", "e" * 64, "SubjectError"),
    ],
)  # fmt: skip
def test_forged(workshop: Workshop, field: str, value: object, refusal: str) -> None:
    model = workshop.model()
    forged = changed(github_statement(model, **OWN), field, value)
    provenance = workshop.write("a.json", workshop.sign(forged, workshop.token(**OWN)))
    code, verdict = workshop.verify(model, "--provenance", provenance, *EXPECTED)
    assert (code, refusals(verdict)[0]) == (1, refusal)


def test_a_self_hosted_runner_if_a_policy_allows_it(workshop: Workshop) -> None:
    model = workshop.model()
    on = {**OWN, "runner_environment": "self-hosted"}
    data = workshop.sign(github_statement(model, **on), workshop.token(**on))
    provenance = workshop.write("a.json", data)
    code, verdict = workshop.verify(model, "--provenance", provenance, *EXPECTED)
    assert (code, refusals(verdict)[0]) == (1, "SignerError")
    policy = workshop.folder / "policy.toml"
    policy.write_text('version = 1\n[build]\nrunners = ["github-hosted", "self-hosted"]\n')
    code, verdict = workshop.verify(
        model, "--provenance", provenance, *EXPECTED, "--policy", policy
    )
    assert (code, verdict["slsaBuildLevel"]) == (0, 1)


def test_one_line_has_to_satisfy_everything(workshop: Workshop) -> None:
    model, other = workshop.model(), workshop.model(b"other", "other.pth")
    another_commit = {**OWN, "sha": "e" * 40}
    lines = {
        "right": workshop.sign(github_statement(model, **OWN), workshop.token(**OWN)),
        "other model": workshop.sign(github_statement(other, **OWN), workshop.token(**OWN)),
        "other commit": workshop.sign(
            github_statement(model, **another_commit), workshop.token(**another_commit)
        ),
        "signature": workshop.sign_model(model).read_bytes().strip(),
    }

    def verify(*names: str) -> tuple[int, list[str], list[str]]:
        data = b"\n".join(lines[name] for name in names) + b"\n\n"
        provenance = workshop.write("attestations.jsonl", data)
        code, verdict = workshop.verify(
            model, "--provenance", provenance, *EXPECTED, "--source-commit", "a" * 40
        )
        others = [step["found"] for step in verdict["steps"] if step["check"].startswith("Other")]
        return code, refusals(verdict), others

    code, refused, others = verify("other model", "signature", "right", "other commit")
    assert (code, refused) == (0, [])
    assert len(others) == 3  # the others are reported, each with its reason
    assert any("other bytes" in found for found in others)
    assert any("another type" in found for found in others)
    assert any("another commit" in found for found in others)
    # Together they would have everything that is expected; none has it alone.
    code, refused, _ = verify("other model", "other commit")
    assert code == 1
    assert len(refused) == 1
    assert verify("right", "right")[:2] == (0, [])


def test_a_line_that_is_no_attestation(workshop: Workshop) -> None:
    model = workshop.model()
    data = workshop.sign(github_statement(model, **OWN), workshop.token(**OWN))
    for line in (b"{}", b'{"mediaType": "x"}', b'{"verificationMaterial": {"tlogEntries": [1]}}'):
        provenance = workshop.write("attestations.jsonl", data + b"\n" + line)
        assert workshop.verify(model, "--provenance", provenance, *EXPECTED)[0] == 0
    provenance = workshop.write("attestations.jsonl", data + b"\nnonsense}")
    code, verdict = workshop.verify(model, "--provenance", provenance, *EXPECTED)
    assert (code, refusals(verdict)) == (1, ["BundleError"])


def test_public_trust_root_is_not_the_sandboxs(workshop: Workshop) -> None:
    from slsa_for_models.verdict.expectations import Expectations, builder_from_option, source_uri
    from slsa_for_models.verdict.verification import verify

    model = workshop.model()
    data = workshop.sign(github_statement(model, **OWN), workshop.token(**OWN))
    provenance = workshop.write("a.json", data)
    expected = Expectations(
        source_uri=source_uri(SOURCE),
        builders=(builder_from_option(f"https://github.com/{BUILDER}"),),
    )
    for trust, accepted in (
        (SigstoreTrust(offline=True), False),
        (SigstoreTrust(trust_config=workshop.trust_config), True),
    ):
        verdict = verify(model, expected, provenance=[provenance], trust=trust)
        assert verdict.verified is accepted
