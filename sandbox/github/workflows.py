"""Workflow files, as GitHub reads and checks them before a run starts.

For demonstrations and tests only. Pure apart from reading a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]
Permissions = Mapping[str, str]

# What a token may do if the workflow says nothing: the default of repositories since 2023.
DEFAULT_PERMISSIONS: Permissions = {"contents": "read", "packages": "read"}
SCOPES = (
    "actions",
    "artifact-metadata",
    "attestations",
    "checks",
    "contents",
    "deployments",
    "discussions",
    "id-token",
    "issues",
    "models",
    "packages",
    "pages",
    "pull-requests",
    "security-events",
    "statuses",
)
LEVELS = ("none", "read", "write")
CACHE_MODES = {
    "none": frozenset[str](),
    "read": frozenset({"restore"}),
    "write-only": frozenset({"save"}),
    "write": frozenset({"restore", "save"}),
}
# Events that a fork's pull request triggers: at its merge commit, with a token that only reads.
FROM_FORKS = ("pull_request", "pull_request_review", "pull_request_review_comment")


class WorkflowError(Exception):
    """A workflow that GitHub would refuse to start, or that needs what the sandbox lacks."""


# Events and inputs


def check_event(document: Document, event_name: str, inputs: Mapping[str, str]) -> dict[str, str]:
    """The inputs of an event with defaults filled in, checked as GitHub checks a dispatch.

    Raises:
        WorkflowError: The workflow is not triggered by the event, or an input is unknown, missing
            or not of its type.
    """
    triggers = _triggers(document)
    if event_name not in triggers:
        raise WorkflowError(f"the workflow has no '{event_name}' trigger")
    declared: Document = {}
    if event_name == "workflow_dispatch":
        declared = (triggers[event_name] or {}).get("inputs") or {}
    unknown = [name for name in inputs if name not in declared]
    if unknown:
        raise WorkflowError(f"unexpected inputs provided: {', '.join(unknown)}")
    checked: dict[str, str] = {}
    for name, specification in declared.items():
        specification = specification or {}
        if name in inputs:
            checked[name] = inputs[name]
            _check_value(name, inputs[name], specification)
        elif specification.get("required") and "default" not in specification:
            raise WorkflowError(f"required input '{name}' not provided")
        else:
            default = specification.get("default", "")
            checked[name] = str(default).lower() if isinstance(default, bool) else str(default)
    return checked


def _check_value(name: str, value: str, specification: Mapping[str, Any]) -> None:
    """Refuses a value that is not of its input's type."""
    kind = specification.get("type", "string")
    if kind == "choice":
        options = [str(option) for option in specification.get("options") or []]
        if value not in options:
            allowed = ", ".join(options)
            raise WorkflowError(f"'{value}' for input '{name}' is not one of: {allowed}")
    elif kind == "boolean" and value not in ("true", "false"):
        raise WorkflowError(f"'{value}' for input '{name}' is not a boolean")
    elif kind == "number":
        try:
            float(value)
        except ValueError:
            raise WorkflowError(f"'{value}' for input '{name}' is not a number") from None


def check_call(called: Document, given: Mapping[str, Any], uses: str) -> None:
    """Checks a called workflow's trigger and inputs as GitHub does before a run.

    Raises:
        WorkflowError: It may not be called, or an input is unknown, missing or not of its type.
    """
    triggers = _triggers(called)
    if "workflow_call" not in triggers:
        raise WorkflowError(f"{uses}: the workflow has no 'workflow_call' trigger")
    declared = (triggers["workflow_call"] or {}).get("inputs") or {}
    for name, value in given.items():
        if name not in declared:
            raise WorkflowError(f"{uses}: input '{name}' is not defined in the workflow")
        if "${{" not in str(value):
            text = str(value).lower() if isinstance(value, bool) else str(value)
            _check_value(name, text, declared[name])
    for name, specification in declared.items():
        if specification.get("required") and name not in given:
            raise WorkflowError(f"{uses}: input '{name}' is required, but not provided")


def _triggers(document: Document) -> dict[str, Any]:
    on = document.get("on")
    if isinstance(on, str):
        return {on: None}
    if isinstance(on, list):
        return dict.fromkeys(on)
    return on if isinstance(on, dict) else {}


# Permissions


def permissions_of(given: object, inherited: Permissions) -> Permissions:
    """A `permissions:` value as a table; those it does not name are none."""
    if given is None:
        return inherited
    if given in ("read-all", "write-all"):
        level = str(given).removesuffix("-all")
        return dict.fromkeys(SCOPES, level)
    if not isinstance(given, dict):
        raise WorkflowError(f"permissions: {given!r} is neither a table, read-all nor write-all")
    for scope, level in given.items():
        if scope not in SCOPES or level not in LEVELS:
            raise WorkflowError(f"permissions: '{scope}: {level}' is not known")
    return given


def read_only(permissions: Permissions) -> Permissions:
    """What is left of permissions that only read, and give no identity."""
    return {
        scope: "none" if scope == "id-token" else min(level, "read", key=LEVELS.index)
        for scope, level in permissions.items()
    }


# The Actions cache


def least_cache_mode(granted: str, asked: object) -> str:
    """What a job may do to the cache: what it asks for, and its caller has.

    Raises:
        WorkflowError: There is no such mode.
    """
    if asked not in CACHE_MODES:
        raise WorkflowError(f"cache-mode: {asked!r} is none of {', '.join(CACHE_MODES)}")
    both = CACHE_MODES[granted] & CACHE_MODES[str(asked)]
    return next(name for name, may in CACHE_MODES.items() if may == both)


# Expressions and YAML


def substitute(document: Document, literals: Mapping[str, str]) -> Document:
    """Replaces contexts within expressions by their values."""
    quoted = {name: "'" + text.replace("'", "''") + "'" for name, text in literals.items()}
    return replace_contexts(document, quoted)


def replace_contexts(document: Document, replacements: Mapping[str, str]) -> Document:
    """Replaces contexts in every `${{ }}`, and in the bare expressions of `if:`."""
    if not replacements:
        return document
    names = "|".join(re.escape(name) for name in sorted(replacements, key=len, reverse=True))
    context = re.compile(rf"(?<![\w.-])(?:{names})(?![\w-])")

    def expression(text: str) -> str:
        return context.sub(lambda match: replacements[match[0]], text)

    def within(value: object, *, bare: bool = False) -> object:
        if isinstance(value, dict):
            return {key: within(item, bare=key == "if") for key, item in value.items()}
        if isinstance(value, list):
            return [within(item) for item in value]
        if not isinstance(value, str):
            return value
        if bare and "${{" not in value:
            return expression(value)
        return re.sub(r"\$\{\{.*?\}\}", lambda match: expression(match[0]), value, flags=re.DOTALL)

    return {key: within(item, bare=key == "if") for key, item in document.items()}


class _Loader(yaml.SafeLoader):
    """YAML 1.2, as GitHub reads it: `on` is a word, not a truth value."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, expression)
        for tag, expression in resolvers
        if not tag.endswith((":bool", ":timestamp"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), ["t", "f"])


def load(path: Path) -> Document:
    """The document of a workflow or action file.

    Raises:
        WorkflowError: It is not YAML, or not a table.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise WorkflowError(f"{path.name}: not YAML: {error}") from error
    if not isinstance(document, dict):
        raise WorkflowError(f"{path.name}: not a table")
    return document


def workflow_name(path: Path) -> str:
    """What GitHub calls a workflow: its `name`, or its path in the repository.

    Raises:
        WorkflowError: There is no such file, or it is not a workflow.
    """
    if not path.is_file():
        raise WorkflowError(f"{path.name}: workflow was not found")
    return str(load(path).get("name") or f".github/workflows/{path.name}")


def dump(document: Document) -> str:
    """YAML that every reader takes alike: without aliases, in the given order."""

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    return yaml.dump(document, Dumper=Dumper, sort_keys=False, width=10_000)
