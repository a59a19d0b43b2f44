"""Signed statement bytes -> one `Provenance`, whichever of the four known kinds it is.

Reading is strict where a verifier could be misled (statement and predicate types, digests, unknown
external parameters) and lenient where the specification demands it (unknown predicate fields are
ignored, in-toto "parsing rules"). Nothing here decides about trust; the folder `verdict` does.

Sources: in-toto Statement v0.1 and v1; SLSA Provenance v0.2 and v1 (SLSA v1.2, build-provenance);
slsa-github-generator v2.1.0, generic generator; GitHub's workflow build type v1; Tekton Chains'
formatters slsa/v2alpha3 and v2alpha4; docs/buildtypes/train-v1.md.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from model_signing.oms import strict_json
from slsa_for_models.errors import (
    ParameterError,
    PredicateTypeError,
    ProvenanceError,
    UnsupportedError,
)

STATEMENT_V01 = "https://in-toto.io/Statement/v0.1"
STATEMENT_V1 = "https://in-toto.io/Statement/v1"
PREDICATE_V02 = "https://slsa.dev/provenance/v0.2"
PREDICATE_V1 = "https://slsa.dev/provenance/v1"

GENERATOR_BUILD_TYPE = "https://github.com/slsa-framework/slsa-github-generator/generic@v1"
GITHUB_BUILD_TYPE = "https://actions.github.io/buildtypes/workflow/v1"
TRAIN_BUILD_TYPE = "https://model-transparency.dev/buildtypes/train/v1"
TEKTON_BUILD_TYPES = (
    "https://tekton.dev/chains/v2/slsa",
    "https://tekton.dev/chains/v2/slsa-tekton",
)

MAX_SUBJECTS = 100_000
_HEX = re.compile(r"[0-9a-f]{40,128}")

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Resource:
    """A subject or a dependency: in-toto's ResourceDescriptor, as far as it matters here.

    Attributes:
        name: Its name, or "".
        uri: Its URI, or "".
        digests: Algorithm -> lower-case hexadecimal digest.
        content: The bytes themselves, where they are embedded.
    """

    name: str
    uri: str
    digests: Mapping[str, str]
    content: bytes | None = None

    @property
    def sha256(self) -> str | None:
        """The SHA-256 digest, hexadecimal."""
        return self.digests.get("sha256")

    @property
    def commit(self) -> str | None:
        """The git commit, hexadecimal (`gitCommit`, or `sha1` as older formats call it)."""
        return self.digests.get("gitCommit") or self.digests.get("sha1")


@dataclass(frozen=True)
class Claim:
    """One field of the predicate that the signing certificate has to confirm.

    Attributes:
        field: Where it stands in the predicate.
        value: What stands there.
        certified: The name of the certified fact it has to equal; see `verify.certified_facts`.
    """

    field: str
    value: str
    certified: str


@dataclass(frozen=True)
class Provenance:
    """What a provenance says, in the words that all four kinds share.

    Attributes:
        kind: `slsa-github-generator`, `github-attestation`, `train` or `tekton`.
        build_type: Its buildType URI.
        subjects: What was built.
        builder_id: Who says it built it.
        source_uri: `git+https://HOST/ORG/REPO`, without a git reference.
        source_commit: The commit, hexadecimal.
        branch: The source branch (`refs/heads/...`), or None where the provenance names none.
        tag: The source tag (`refs/tags/...`), or None likewise.
        inputs: The parameters the caller chose, as text; None where the provenance has none.
        claims: What the certificate has to confirm.
        dependencies: `resolvedDependencies`, or the materials of v0.2.
        invocation: The run, as the builder names it.
        record: The training record among the by-products, if any.
        signature: The model's signature file among them, if any.
        pipeline: Tekton: what ran, `URI@ALGORITHM:DIGEST#PATH`, as Tekton's resolver fetched it;
            None where it stood in the run itself, written by whoever started it.
    """

    kind: str
    build_type: str
    subjects: tuple[Resource, ...]
    builder_id: str
    source_uri: str
    source_commit: str
    branch: str | None
    tag: str | None
    inputs: Mapping[str, str] | None
    claims: tuple[Claim, ...]
    dependencies: tuple[Resource, ...]
    invocation: str
    record: Resource | None = None
    signature: Resource | None = None
    pipeline: str | None = None


def read(payload: bytes) -> Provenance:
    """Reads an authenticated statement (SLSA v1.2 verifying-artifacts, steps 1.3 and 2).

    Raises:
        PredicateTypeError: A statement, but not of provenance, or a mix of versions.
        UnsupportedError: Provenance of a build type that is not known here, whose parameters
            therefore cannot be judged.
        ParameterError: External parameters that the build type does not define.
        ProvenanceError: Malformed.
    """
    predicate_type, subjects, predicate = read_statement(payload, (PREDICATE_V02, PREDICATE_V1))
    if predicate_type == PREDICATE_V02:
        build_type = _text(predicate, "buildType")
    else:
        build_type = _text(predicate, "buildDefinition.buildType")
    reader = _READERS.get((predicate_type, build_type))
    if reader is None:
        raise UnsupportedError(
            "provenance of a build type that is not known here",
            where="buildType",
            expected=", ".join(sorted({known for _, known in _READERS})),
            found=build_type,
        )
    return reader(build_type, subjects, predicate)


def read_statement(
    payload: bytes, predicate_types: Iterable[str]
) -> tuple[str, tuple[Resource, ...], Json]:
    """An in-toto statement's predicate type, subjects and predicate.

    Raises:
        PredicateTypeError: Its predicate type is none of `predicate_types`, or its `_type` is not
            the statement version that this predicate type is used with.
        ProvenanceError: Malformed.
    """
    statement = strict_json.loads(payload, ProvenanceError, "The signed payload")
    if not isinstance(statement, dict):
        raise ProvenanceError("the signed payload is not an in-toto statement")
    predicate_type = _text(statement, "predicateType")
    if predicate_type not in predicate_types:
        raise PredicateTypeError(
            "a signed statement of another type",
            where="predicateType",
            expected=" or ".join(predicate_types),
            found=predicate_type,
        )
    expected = STATEMENT_V01 if predicate_type == PREDICATE_V02 else STATEMENT_V1
    if statement.get("_type") != expected:
        raise PredicateTypeError(
            "the versions of statement and predicate do not belong together",
            where="_type",
            expected=f"{expected} with {predicate_type}",
            found=ascii(statement.get("_type")),
        )
    subjects = _resources(statement, "subject")
    if not 0 < len(subjects) <= MAX_SUBJECTS:
        raise ProvenanceError(
            "the number of subjects is not acceptable",
            where="subject",
            expected=f"1 to {MAX_SUBJECTS}",
            found=str(len(subjects)),
        )
    return predicate_type, subjects, _object(statement, "predicate")


def split_source(uri: str, where: str) -> tuple[str, str | None]:
    """`git+https://HOST/PATH@REF` -> (`git+https://HOST/PATH`, `REF` or None).

    Raises:
        ProvenanceError: Another form.
    """
    match = re.fullmatch(r"(git\+https://[^@\s?#]+)(?:@([^@\s]+))?", uri)
    if match is None:
        raise ProvenanceError(
            "this is not a git source", where=where, expected="git+https://...@REF", found=uri
        )
    return match[1], match[2]


# slsa-github-generator, generic generator (SLSA v0.2) ---------------------------------------------

_GENERATOR_CLAIMS = {
    "builder.id": "builder",
    "metadata.buildInvocationID": "run-attempt",
    "invocation.configSource.uri": "source at ref",
    "invocation.configSource.digest.sha1": "commit",
    "invocation.configSource.entryPoint": "workflow path",
    "invocation.environment.github_run_id": "run",
    "invocation.environment.github_run_attempt": "attempt",
    "invocation.environment.github_event_name": "event",
    "invocation.environment.github_ref": "ref",
    "invocation.environment.github_sha1": "commit",
    "materials.0.uri": "source at ref",
    "materials.0.digest.sha1": "commit",
}
_GENERATOR_OPTIONAL_CLAIMS = {
    "invocation.environment.github_repository_owner": "owner",
    "invocation.environment.github_repository_id": "repository id",
    "invocation.environment.github_repository_owner_id": "owner id",
}


def _generator(build_type: str, subjects: tuple[Resource, ...], predicate: Json) -> Provenance:
    parameters = _object(predicate, "invocation").get("parameters") or {}
    _only(parameters, {"event_inputs", "vars"}, "invocation.parameters")
    environment = _object(predicate, "invocation.environment")
    claims = _claims(predicate, _GENERATOR_CLAIMS, _GENERATOR_OPTIONAL_CLAIMS)
    where = "invocation.configSource.uri"
    source_uri, _ = split_source(_text(predicate, where), where)
    branch, tag = _generator_refs(environment)
    return Provenance(
        kind="slsa-github-generator",
        build_type=build_type,
        subjects=subjects,
        builder_id=_text(predicate, "builder.id"),
        source_uri=source_uri,
        source_commit=_text(predicate, "invocation.configSource.digest.sha1"),
        branch=branch,
        tag=tag,
        inputs=_generator_inputs(environment),
        claims=claims,
        dependencies=_resources(predicate, "materials"),
        invocation=_text(predicate, "metadata.buildInvocationID"),
    )


def _generator_refs(environment: Json) -> tuple[str | None, str | None]:
    """Branch and tag as slsa-verifier reads them: a tag's branch comes from the event."""
    ref = _text(environment, "github_ref")
    if _text(environment, "github_ref_type") != "tag":
        return ref, None
    if environment["github_event_name"] == "release":
        target = _value(environment, "github_event_payload.release.target_commitish")
        return f"refs/heads/{target}", ref
    named = environment.get("github_base_ref") or _value(
        environment, "github_event_payload.base_ref"
    )
    return (named if isinstance(named, str) else None), ref


def _generator_inputs(environment: Json) -> Mapping[str, str] | None:
    """The inputs of a dispatched workflow; other events carry none (as in slsa-verifier)."""
    if environment["github_event_name"] != "workflow_dispatch":
        return None
    inputs = _value(environment, "github_event_payload.inputs")
    return _as_text(inputs if isinstance(inputs, dict) else {})


# GitHub artifact attestations, and our own training build type (SLSA v1) --------------------------

_GITHUB_CLAIMS = {
    "runDetails.builder.id": "builder",
    "runDetails.metadata.invocationId": "invocation",
    "buildDefinition.externalParameters.workflow.repository": "repository",
    "buildDefinition.externalParameters.workflow.ref": "ref",
    "buildDefinition.externalParameters.workflow.path": "workflow path",
    "buildDefinition.resolvedDependencies.0.uri": "source at ref",
    "buildDefinition.resolvedDependencies.0.digest.gitCommit": "commit",
}
_GITHUB_OPTIONAL_CLAIMS = {
    "buildDefinition.internalParameters.github.event_name": "event",
    "buildDefinition.internalParameters.github.repository_id": "repository id",
    "buildDefinition.internalParameters.github.repository_owner_id": "owner id",
    "buildDefinition.internalParameters.github.runner_environment": "runner",
}
_TRAIN_CLAIMS = {
    **_GITHUB_CLAIMS,
    "buildDefinition.resolvedDependencies.1.uri": "builder source at ref",
    "buildDefinition.resolvedDependencies.1.digest.gitCommit": "builder commit",
}


def _github_attestation(
    build_type: str, subjects: tuple[Resource, ...], predicate: Json
) -> Provenance:
    external = _object(predicate, "buildDefinition.externalParameters")
    _only(external, {"workflow"}, "externalParameters")
    workflow = _object(external, "workflow")
    _only(workflow, {"ref", "repository", "path"}, "externalParameters.workflow")

    claims = _claims(predicate, _GITHUB_CLAIMS, _GITHUB_OPTIONAL_CLAIMS)
    dependencies = _resources(_object(predicate, "buildDefinition"), "resolvedDependencies")
    source_uri, ref = split_source(dependencies[0].uri, "resolvedDependencies[0].uri")
    return Provenance(
        kind="github-attestation",
        build_type=build_type,
        subjects=subjects,
        builder_id=_text(predicate, "runDetails.builder.id"),
        source_uri=source_uri,
        source_commit=dependencies[0].commit or "",
        branch=ref if ref and ref.startswith("refs/heads/") else None,
        tag=ref if ref and ref.startswith("refs/tags/") else None,
        inputs=None,
        claims=claims,
        dependencies=dependencies,
        invocation=_text(predicate, "runDetails.metadata.invocationId"),
    )


def _train(build_type: str, subjects: tuple[Resource, ...], predicate: Json) -> Provenance:
    """GitHub's build type plus `inputs`, a second dependency and a record (docs/buildtypes)."""
    external = dict(_object(predicate, "buildDefinition.externalParameters"))
    inputs = external.pop("inputs", None)
    if not isinstance(inputs, dict):
        raise ProvenanceError("a field is missing or not a JSON object", where="inputs")
    definition = {**predicate["buildDefinition"], "externalParameters": external}
    like_github = {**predicate, "buildDefinition": definition}
    by_products = _resources(_object(predicate, "runDetails"), "byproducts")
    return replace(
        _github_attestation(build_type, subjects, like_github),
        kind="train",
        inputs=_as_text(inputs),
        claims=_claims(predicate, _TRAIN_CLAIMS, _GITHUB_OPTIONAL_CLAIMS),
        record=next((item for item in by_products if item.name == "training.json"), None),
    )


# Tekton Chains (SLSA v1) --------------------------------------------------------------------------


def _tekton(build_type: str, subjects: tuple[Resource, ...], predicate: Json) -> Provenance:
    definition = _object(predicate, "buildDefinition")
    external = _object(definition, "externalParameters")
    _only(external, {"runSpec", "buildConfigSource"}, "externalParameters")
    spec = _object(external, "runSpec")
    _only(spec, _TEKTON_RUN_SPEC, "externalParameters.runSpec")

    dependencies = _resources(definition, "resolvedDependencies")
    by_products = _resources(_object(predicate, "runDetails"), "byproducts")
    _refuse_unresolved(spec, dependencies)
    sources = {
        (resource.uri.removesuffix(".git"), resource.commit)
        for resource in dependencies
        if resource.name == "inputs/result" and resource.commit
    }
    if len(sources) != 1:
        raise ProvenanceError(
            "the run does not name one git source among its inputs",
            where="resolvedDependencies, name inputs/result",
            expected="1",
            found=str(len(sources)),
            fix="give the clone task a result *_ARTIFACT_INPUTS (or CHAINS-GIT_URL and _COMMIT)",
        )
    ((uri, commit),) = sources
    uri = uri if uri.startswith("git+") else f"git+{uri}"
    source_uri, ref = split_source(uri, "resolvedDependencies, name inputs/result")
    return Provenance(
        kind="tekton",
        build_type=build_type,
        subjects=subjects,
        builder_id=_text(predicate, "runDetails.builder.id"),
        source_uri=source_uri.removesuffix(".git"),
        source_commit=commit or "",
        branch=ref if ref and ref.startswith("refs/heads/") else None,
        tag=ref if ref and ref.startswith("refs/tags/") else None,
        inputs=_tekton_parameters(spec),
        claims=(),
        dependencies=dependencies,
        invocation=_text(predicate, "runDetails.metadata.invocationId"),
        record=_tekton_result(by_products, "record"),
        signature=_tekton_result(by_products, "signature"),
        pipeline=_tekton_pipeline(external, spec),
    )


def _tekton_pipeline(external: Json, spec: Json) -> str | None:
    """Chains takes `buildConfigSource` from the run's status, which Tekton's controller writes."""
    if "buildConfigSource" not in external or {"pipelineSpec", "taskSpec"} & set(spec):
        return None
    source = _object(external, "buildConfigSource")
    repository, ref, path = (_text(source, name) for name in ("repository", "ref", "path"))
    return f"{repository}@{ref}#{path}"


def _tekton_result(by_products: Iterable[Resource], name: str) -> Resource | None:
    """A file's digest that our upload Task reports: in a result that is no subject.

    Source: tektoncd/chains docs/slsa-provenance.md, `*ARTIFACT_OUTPUTS` without `isBuildArtifact`.
    """
    for item in by_products:
        if not item.name.endswith(f"/{name}_ARTIFACT_OUTPUTS") or item.content is None:
            continue
        value = strict_json.loads(item.content, ProvenanceError, f"The by-product {item.name}")
        algorithm, _, digest = _text(value, "digest").partition(":")
        if algorithm == "sha256" and _HEX.fullmatch(digest):
            return Resource(name, _text(value, "uri"), {algorithm: digest})
    return None


# Fields of PipelineRunSpec and TaskRunSpec, API tekton.dev/v1.
_TEKTON_RUN_SPEC = {
    *("pipelineRef", "pipelineSpec", "params", "status", "timeouts", "taskRunTemplate"),
    *("workspaces", "taskRunSpecs", "taskRef", "taskSpec", "serviceAccountName", "podTemplate"),
    *("timeout", "retries", "debug", "stepSpecs", "sidecarSpecs", "computeResources"),
    *("statusMessage", "managedBy"),
}


def _refuse_unresolved(spec: Json, dependencies: tuple[Resource, ...]) -> None:
    """A reference to a pipeline or task has to be resolved to a digest, or it says nothing."""
    needed = {name for name in ("pipeline", "task") if f"{name}Ref" in spec}
    pipeline = _object(spec, "pipelineSpec") if "pipelineSpec" in spec else {}
    if any("taskRef" in task for task in (*_list(pipeline, "tasks"), *_list(pipeline, "finally"))):
        needed.add("pipelineTask")
    named = [resource for resource in dependencies if resource.name in _TEKTON_REFERENCES]
    for resource in named:
        if not resource.digests:
            needed.add(f"{resource.name} {resource.uri}".strip())
    missing = needed - {resource.name for resource in named if resource.digests}
    if missing:
        raise ProvenanceError(
            "the run refers to a pipeline or task that was not resolved to a digest",
            where="resolvedDependencies",
            expected=f"a digest for: {', '.join(sorted(missing))}",
            fix="refer to pipelines and tasks through a resolver (git, bundle, hub)",
        )


_TEKTON_REFERENCES = ("pipeline", "task", "pipelineTask")


def _tekton_parameters(spec: Json) -> Mapping[str, str]:
    return _as_text({_text(entry, "name"): entry.get("value") for entry in _list(spec, "params")})


_Reader = Callable[[str, tuple[Resource, ...], Json], Provenance]
_READERS: dict[tuple[str, str], _Reader] = {
    (PREDICATE_V02, GENERATOR_BUILD_TYPE): _generator,
    (PREDICATE_V1, GITHUB_BUILD_TYPE): _github_attestation,
    (PREDICATE_V1, TRAIN_BUILD_TYPE): _train,
    **{(PREDICATE_V1, build_type): _tekton for build_type in TEKTON_BUILD_TYPES},
}


# Access to untrusted JSON -------------------------------------------------------------------------


def _value(document: object, path: str) -> object:
    """What stands at a path of names and list indexes, or None."""
    for name in path.split("."):
        if isinstance(document, list) and name.isdecimal() and int(name) < len(document):
            document = document[int(name)]
        else:
            document = document.get(name) if isinstance(document, dict) else None
    return document


def _claims(
    predicate: Json, required: Mapping[str, str], optional: Mapping[str, str]
) -> tuple[Claim, ...]:
    """Path in the predicate -> certified fact; what is optional counts where it is stated."""
    stated = {path: name for path, name in optional.items() if _value(predicate, path) is not None}
    return tuple(
        Claim(path, _text(predicate, path), name) for path, name in {**required, **stated}.items()
    )


def _text(document: object, path: str, *, default: str | None = None) -> str:
    value = _value(document, path)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise ProvenanceError("a field is missing or not text", where=path)
    return value


def _object(document: object, path: str) -> Json:
    value = _value(document, path)
    if not isinstance(value, dict):
        raise ProvenanceError("a field is missing or not a JSON object", where=path)
    return value


def _only(value: object, known: set[str], where: str) -> None:
    """SLSA v1.2 verifying-artifacts, step 2: unrecognized external parameters are refused."""
    unknown = sorted(set(value) - known) if isinstance(value, dict) else ["not an object"]
    if unknown:
        raise ParameterError(
            "an external parameter that the build type does not define",
            where=where,
            expected=", ".join(sorted(known)),
            found=", ".join(unknown),
        )


def _as_text(inputs: Json) -> Mapping[str, str]:
    """Inputs as GitHub's expressions print them: `true`, `5`, text as it is; null was not given.

    A list of texts is joined with commas; anything else is JSON.
    """
    return {name: _scalar(value) for name, value in inputs.items() if value is not None}


def _scalar(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _list(document: Json, path: str) -> list[Json]:
    value = document.get(path, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ProvenanceError("a field is not a list of JSON objects", where=path)
    return value


def _resources(document: Json, path: str) -> tuple[Resource, ...]:
    items = _list(document, path)
    return tuple(_resource(item, f"{path}[{index}]") for index, item in enumerate(items))


def _resource(item: Json, where: str) -> Resource:
    try:
        digests = dict(_object(item, "digest")) if _value(item, "digest") is not None else {}
        resource = Resource(
            name=_text(item, "name", default=""),
            uri=_text(item, "uri", default=""),
            digests=digests,
            content=_content(_value(item, "content")),
        )
    except ProvenanceError as error:
        raise ProvenanceError(error.message, where=f"{where}.{error.where}") from None
    for algorithm, digest in digests.items():
        if not isinstance(digest, str) or not _HEX.fullmatch(digest):
            raise ProvenanceError(
                "a digest is not lower-case hexadecimal",
                where=f"{where}.digest.{algorithm}",
                found=ascii(digest)[:80],
            )
    return resource


def _content(value: object) -> bytes | None:
    if value is None:
        return None
    try:
        return base64.b64decode(str(value), validate=True)
    except ValueError:
        raise ProvenanceError("not base64", where="content") from None
