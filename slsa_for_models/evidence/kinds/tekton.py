"""Provenance by Tekton Chains: formatters slsa/v2alpha3 and v2alpha4 (SLSA v1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from model_signing.oms import strict_json
from slsa_for_models.errors import ProvenanceError
from slsa_for_models.evidence.provenance import (
    PREDICATE_V1,
    Kind,
    Provenance,
    build_type,
    split_source,
)
from slsa_for_models.evidence.statement import (
    HEX,
    Json,
    Resource,
    Statement,
    as_text,
    list_at,
    object_at,
    refuse_unknown,
    resources_at,
    text_at,
)

INPUT = "inputs/result"
"""How Chains names a dependency that a result `*_ARTIFACT_INPUTS` reports."""

# Fields of PipelineRunSpec and TaskRunSpec, API tekton.dev/v1.
_RUN_SPEC = {
    *("pipelineRef", "pipelineSpec", "params", "status", "timeouts", "taskRunTemplate"),
    *("workspaces", "taskRunSpecs", "taskRef", "taskSpec", "serviceAccountName", "podTemplate"),
    *("timeout", "retries", "debug", "stepSpecs", "sidecarSpecs", "computeResources"),
    *("statusMessage", "managedBy"),
}
_REFERENCES = ("pipeline", "task", "pipelineTask")


def _read(statement: Statement) -> Provenance:
    predicate = statement.predicate
    definition = object_at(predicate, "buildDefinition")
    external = object_at(definition, "externalParameters")
    refuse_unknown(external, {"runSpec", "buildConfigSource"}, "externalParameters")
    spec = object_at(external, "runSpec")
    refuse_unknown(spec, _RUN_SPEC, "externalParameters.runSpec")

    dependencies = resources_at(definition, "resolvedDependencies")
    by_products = resources_at(object_at(predicate, "runDetails"), "byproducts")
    _refuse_unresolved(spec, dependencies)
    source_uri, ref, commit = _source(dependencies)
    return Provenance(
        kind=KIND,
        build_type=build_type(statement),
        subjects=statement.subjects,
        builder_id=text_at(predicate, "runDetails.builder.id"),
        source_uri=source_uri,
        source_commit=commit,
        ref=ref,
        inputs=_parameters(spec),
        claims=(),
        dependencies=dependencies,
        invocation=text_at(predicate, "runDetails.metadata.invocationId"),
        record=_result(by_products, "record"),
        signature=_result(by_products, "signature"),
        pipeline=_pipeline(external, spec),
    )


def _source(dependencies: Iterable[Resource]) -> tuple[str, str | None, str]:
    """The one git source among the inputs: its repository, reference and commit."""
    sources = {
        (resource.uri.removesuffix(".git"), resource.commit)
        for resource in dependencies
        if resource.name == INPUT and resource.commit
    }
    where = f"resolvedDependencies, name {INPUT}"
    if len(sources) != 1:
        raise ProvenanceError(
            "the run does not name one git source among its inputs",
            where=where,
            expected="1",
            found=str(len(sources)),
            fix="give the clone task a result *_ARTIFACT_INPUTS (or CHAINS-GIT_URL and _COMMIT)",
        )
    ((uri, commit),) = sources
    uri = uri if uri.startswith("git+") else f"git+{uri}"
    source_uri, ref = split_source(uri, where)
    return source_uri.removesuffix(".git"), ref, commit or ""


def _pipeline(external: Json, spec: Json) -> str | None:
    """Chains takes `buildConfigSource` from the run's status, which Tekton's controller writes."""
    if "buildConfigSource" not in external or {"pipelineSpec", "taskSpec"} & set(spec):
        return None
    source = object_at(external, "buildConfigSource")
    repository, ref, path = (text_at(source, name) for name in ("repository", "ref", "path"))
    return f"{repository}@{ref}#{path}"


def _result(by_products: Iterable[Resource], name: str) -> Resource | None:
    """A file's digest that our upload Task reports: in a result that is no subject.

    Source: tektoncd/chains docs/slsa-provenance.md, `*ARTIFACT_OUTPUTS` without `isBuildArtifact`.
    """
    for item in by_products:
        if not item.name.endswith(f"/{name}_ARTIFACT_OUTPUTS") or item.content is None:
            continue
        value = strict_json.loads(item.content, ProvenanceError, f"the by-product {item.name}")
        algorithm, _, digest = text_at(value, "digest").partition(":")
        if algorithm == "sha256" and HEX.fullmatch(digest):
            return Resource(name, text_at(value, "uri"), {algorithm: digest})
    return None


def _refuse_unresolved(spec: Json, dependencies: tuple[Resource, ...]) -> None:
    """A reference to a pipeline or task has to be resolved to a digest, or it says nothing."""
    needed = {name for name in ("pipeline", "task") if f"{name}Ref" in spec}
    pipeline = object_at(spec, "pipelineSpec") if "pipelineSpec" in spec else {}
    tasks = (*list_at(pipeline, "tasks"), *list_at(pipeline, "finally"))
    if any("taskRef" in task for task in tasks):
        needed.add("pipelineTask")
    named = [resource for resource in dependencies if resource.name in _REFERENCES]
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


def _parameters(spec: Json) -> Mapping[str, str]:
    return as_text(
        {text_at(entry, "name"): entry.get("value") for entry in list_at(spec, "params")}
    )


KIND = Kind(
    name="tekton",
    build_types=(
        "https://tekton.dev/chains/v2/slsa",
        "https://tekton.dev/chains/v2/slsa-tekton",
    ),
    predicate_type=PREDICATE_V1,
    read=_read,
    signed_by_github_workflow=False,
    runs_a_pipeline=True,
)
