"""`slsa_for_models may-publish`: the name of a private repository stays out of public logs."""

from __future__ import annotations

import pytest

from slsa_for_models.cli import main
from tests.support.crafted import Workshop, claims


def test_a_public_repository_by_the_jobs_own_token(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", workshop.sigstore.job_token_url)
    for visibility, code in (("public", 0), ("private", 1)):
        own = claims(repository_visibility=visibility)
        bearer = workshop.sigstore.oidc.request_token_for(own)
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", bearer)
        assert main(["may-publish"]) == code
    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_URL")
    assert main(["may-publish"]) == 1
    assert f"{own['repository']} is public" in capsys.readouterr().out


@pytest.mark.parametrize("visibility", ["private", "internal", "", "PUBLIC", "public "])
def test_any_other_repository_is_refused(
    workshop: Workshop, capsys: pytest.CaptureFixture[str], visibility: str
) -> None:
    token = workshop.token(repository_visibility=visibility)
    assert main(["may-publish", "--identity-token", token]) == 1
    said = capsys.readouterr()
    assert said.out == "" and "private-repository" in said.err
    assert f"found: {visibility!r}" in " ".join(said.err.split())


def test_a_token_that_does_not_say_is_refused(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    person = workshop.sigstore.oidc.token("dev@octo.example")
    assert main(["may-publish", "--identity-token", person]) == 1
    assert "found: nothing" in " ".join(capsys.readouterr().err.split())
