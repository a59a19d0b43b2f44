"""What is expected of a model, as options: of `verify` and of `policy init`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING

from model_signing.errors import UsageError
from model_signing.terminal import command_line
from slsa_for_models.evidence.github import is_github, names_workflow
from slsa_for_models.verdict.expectation_table import ROWS
from slsa_for_models.verdict.expectations import (
    Builder,
    Expectations,
    Signer,
    builder_from_option,
)

if TYPE_CHECKING:
    from pathlib import Path

_FIELDS: dict[str, command_line.Row] = {
    row.option: (row.value, row.help) for row in ROWS if row.option
}
_MORE: dict[str, command_line.Row] = {
    "--policy": ("FILE", "expectations in TOML"),
    "--run-conclusion": (
        "",
        "ask GitHub whether the run that made the model has succeeded (needs a network; reads "
        "GITHUB_TOKEN and GITHUB_API_URL)",
    ),
}
_EXCLUSIVE = ("--source-tag", "--source-versioned-tag")

OPTIONS = {**_FIELDS, **_MORE}


def add(parser: argparse.ArgumentParser) -> None:
    """What is expected of a model, as options."""
    group = parser.add_argument_group("expectations")
    one_of = group.add_mutually_exclusive_group()
    for option in OPTIONS:
        command_line.add_options(one_of if option in _EXCLUSIVE else group, OPTIONS, option)


def expectations(args: argparse.Namespace) -> Expectations:
    """The policy's, and those of the options; what both state has to be the same."""
    from slsa_for_models.verdict import policy_file

    read_key = cache(_read_key)  # a key may come through a pipe, and be of signer and builder
    composed: dict[str, Callable[[argparse.Namespace], object]] = {
        "inputs": _inputs,
        "builders": partial(_builders, read_key),
        "signer": partial(_signer, read_key),
        "issuer": _issuer,
    }
    stated: dict[str, object] = {}
    for row in ROWS:
        if row.option and row.parse is not None:
            value = getattr(args, command_line.attribute(row.option))
            make = composed.get(row.field)
            stated[row.field] = make(args) if make else value and row.parse(value)
    if args.policy is None:
        return Expectations().stating(**stated)
    base = policy_file.load_policy(args.policy)
    try:
        return base.stating(**stated)
    except UsageError as error:  # which names the attribute
        rows = [row for row in ROWS if row.field == error.where and row.option]
        given = [row for row in rows if getattr(args, command_line.attribute(row.option))]
        table = next((row.key for row in rows if row.parse is not None), "")
        if given and table:
            error.where = f"{given[0].option}, and {table} in {args.policy}"
        raise


def _inputs(args: argparse.Namespace) -> dict[str, str]:
    stated: dict[str, str] = {}
    for name, value in map(_key_value, args.build_workflow_input):
        if stated.setdefault(name, value) != value:
            raise UsageError(
                "two values of one input",
                where="--build-workflow-input",
                expected=f"{name}={stated[name]}",
                found=f"{name}={value}",
            )
    return stated


def _issuer(args: argparse.Namespace) -> str | None:
    """Of a workflow's tokens; that of anybody else is part of the signer."""
    return args.identity_provider if is_github(args.identity_provider or "") else None


def _builders(read_key: Callable[[Path], bytes], args: argparse.Namespace) -> tuple[Builder, ...]:
    if args.builder_key is not None and not args.builder_id:
        raise UsageError("--builder-key needs --builder-id: whose key is it?")
    if args.builder_key is not None and all(map(names_workflow, args.builder_id)):
        raise UsageError("--builder-key: a GitHub workflow signs with its own identity, not a key")
    path = args.builder_key or args.public_key
    key = read_key(path) if path and args.builder_id else None
    return tuple(builder_from_option(text, key) for text in args.builder_id)


def _signer(read_key: Callable[[Path], bytes], args: argparse.Namespace) -> Signer | None:
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


def _read_key(path: Path) -> bytes:
    from slsa_for_models.evidence.envelopes import read_key  # no help needs it

    return read_key(path)


def _key_value(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError("not NAME=VALUE", where="--build-workflow-input", found=text)
    return name, value
