"""What is expected of a model, as options: of `verify` and of `policy init`."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from model_signing.errors import UsageError
from slsa_for_models.commands.shared_options import digest, read_key

if TYPE_CHECKING:
    from slsa_for_models.verdict.expectations import Builder, Expectations, Signer


def add(parser: argparse.ArgumentParser) -> None:
    """What is expected of a model, as options."""
    expected = parser.add_argument_group("expectations")
    expected.add_argument(
        "--source-uri",
        type=_source_uri,
        metavar="github.com/ORG/REPO",
        help="the repository, exactly; needed wherever a workflow signed",
    )
    expected.add_argument("--source-branch", metavar="BRANCH", help="its branch, exactly")
    tag = expected.add_mutually_exclusive_group()
    tag.add_argument("--source-tag", metavar="TAG", help="its tag, exactly")
    tag.add_argument(
        "--source-versioned-tag",
        type=_version,
        metavar="vX[.Y[.Z]]",
        help="its version tag, as far as it is given",
    )
    expected.add_argument(
        "--source-commit",
        type=partial(digest, "--source-commit", 40),
        metavar="HEX",
        help="its commit",
    )
    expected.add_argument(
        "--builder-id",
        type=_builder_id,
        action="append",
        default=[],
        metavar="ID[@REF]",
        help="trust this builder, and no other unless repeated; by default the generic SLSA "
        "generator at a full version tag, and the workflow named by --identity",
    )
    expected.add_argument(
        "--build-workflow-input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what the caller of the workflow chose; repeatable",
    )
    expected.add_argument(
        "--identity", metavar="ID", help="who must have signed the model: a workflow or an e-mail"
    )
    expected.add_argument("--identity-provider", metavar="URL", help="and who vouches for them")
    expected.add_argument(
        "--public-key",
        type=Path,
        metavar="PEM",
        help="of a model signed with a key, and of the builder where that is no workflow",
    )
    expected.add_argument(
        "--builder-key",
        type=Path,
        metavar="PEM",
        help="of the builder named by --builder-id, such as Tekton Chains, where its key is not "
        "the model's",
    )
    expected.add_argument(
        "--dataset-digest",
        type=partial(digest, "--dataset-digest", 64),
        metavar="SHA256",
        help="of the training data",
    )
    expected.add_argument("--minimum-level", choices=["1", "2", "3"], help="SLSA Build level")
    expected.add_argument(
        "--resource-uri", metavar="URI", help="what a verification summary must be about"
    )
    expected.add_argument("--policy", type=Path, metavar="FILE", help="expectations in TOML")
    expected.add_argument(
        "--run-conclusion",
        action="store_true",
        help="ask GitHub whether the run that made the model has succeeded (needs a network; reads "
        "GITHUB_TOKEN and GITHUB_API_URL)",
    )


def expectations(args: argparse.Namespace) -> Expectations:
    """The policy's, and those of the options; what both state has to be the same."""
    from slsa_for_models.evidence.github import is_github
    from slsa_for_models.verdict import expectations as policy
    from slsa_for_models.verdict import policy_file

    provider = args.identity_provider
    stated: dict[str, object] = {
        "source_uri": args.source_uri,
        "issuer": provider if is_github(provider or "") else None,
        "source_commit": args.source_commit,
        "branch": args.source_branch,
        "tag": args.source_tag,
        "versioned_tag": args.source_versioned_tag,
        "inputs": dict(_key_value(item) for item in args.build_workflow_input),
        "signer": _signer(args),
        "builders": _builders(args),
        "dataset_sha256": args.dataset_digest,
        "minimum_level": int(args.minimum_level or 0),
        "resource_uri": args.resource_uri,
    }
    base = policy.Expectations() if args.policy is None else policy_file.load_policy(args.policy)
    return base.stating(**stated)


def _builders(args: argparse.Namespace) -> tuple[Builder, ...]:
    from slsa_for_models.evidence.github import names_workflow
    from slsa_for_models.verdict import expectations as policy

    if args.builder_key is not None and not args.builder_id:
        raise UsageError("--builder-key needs --builder-id: whose key is it?")
    if args.builder_key is not None and all(map(names_workflow, args.builder_id)):
        raise UsageError("--builder-key: a GitHub workflow signs with its own identity, not a key")
    path = args.builder_key or args.public_key
    key = None if path is None else read_key(path)
    return tuple(policy.builder_from_option(text, key) for text in args.builder_id)


def _signer(args: argparse.Namespace) -> Signer | None:
    from slsa_for_models.evidence.github import is_github
    from slsa_for_models.verdict.expectations import Signer

    if args.identity is not None and args.public_key is not None:
        raise UsageError("--identity and --public-key exclude each other")
    if (
        args.identity is None
        and args.identity_provider is not None
        and not (args.builder_id and is_github(args.identity_provider))
    ):
        raise UsageError("--identity-provider needs --identity, or --builder-id on GitHub")
    if args.public_key is not None:
        return Signer(public_key=read_key(args.public_key))
    if args.identity is None:
        return None
    return Signer(identity=args.identity, issuer=args.identity_provider)


def _key_value(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError("not NAME=VALUE", where="--build-workflow-input", found=text)
    return name, value


def _source_uri(text: str) -> str:
    from slsa_for_models.verdict import expectations as policy

    return policy.source_uri(text)


def _builder_id(text: str) -> str:
    from slsa_for_models.verdict import expectations as policy

    policy.builder_from_option(text)
    return text


def _version(text: str) -> str:
    from slsa_for_models.verdict import expectations as policy

    policy.parse_version(text)
    return text
