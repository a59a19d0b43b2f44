"""Sign and verify models (OpenSSF Model Signing v1.0): the steps, numbered by clause."""

from __future__ import annotations

import builtins
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from model_signing.comparison import compare_digests, compare_files, named_as, some
from model_signing.errors import Error, FileError, MismatchError, StatementError, UsageError
from model_signing.hashing import Progress, hash_function, hash_model
from model_signing.oms import bundle, names, statement
from model_signing.oms.manifest import (
    DEFAULT_SHARD_SIZE,
    DIGEST_SIZES,
    Algorithm,
    Manifest,
    Method,
    Serialization,
    resources,
)
from model_signing.oms.names import GIT_PATHS, HUB_PATH, Selection, check_name, covered
from model_signing.sources import AnyPath, Entry, Sizes, Source, local, open_source, signatures
from model_signing.sources.local import LocalSource
from model_signing.sources.signatures import Where

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from model_signing.methods import Authenticated, Signer, Verifier
    from model_signing.sources.copying import Copy

_Result = TypeVar("_Result", bound="Compared")


@dataclass(frozen=True)
class HashOptions:
    """What to hash, and how.

    Attributes:
        method: "files": one digest for each file. "shards": one for each `shard_size` bytes.
        algorithm: "sha256", which everyone can verify; "blake2b"; or "blake3".
        shard_size: Bytes; only with "shards"; 1 GB by default.
        ignore_paths: Relative to the model, or absolute and inside it; each with its subtree.
        ignore_git_paths: Leave out `.git` and the like, as OMS 6.2 demands.
        allow_symlinks: Follow symbolic links that stay inside the model.
        jobs: Threads; by default as many cores as this process may use.
        use_listed_digests: To sign, take the SHA-256 that a place elsewhere lists of a file, and
            read only what has none. The place is trusted with what is signed.
        digest_cache: To sign a model on this machine, a file that remembers digests, so that only
            what changed is read; see `model_signing.sources.digest_cache`.
    """

    method: Method = "files"
    algorithm: Algorithm = "sha256"
    shard_size: int | None = None
    ignore_paths: tuple[str, ...] = ()
    ignore_git_paths: bool = True
    allow_symlinks: bool = False
    jobs: int | None = None
    use_listed_digests: bool = False
    digest_cache: AnyPath | None = None


@dataclass(frozen=True)
class Signed:
    """What was signed.

    Attributes:
        signature: The signature file, or its address; None if none was written.
        resolved: The model's address, with what a revision or tag was resolved to; None of a model
            on this machine.
        manifest: What it covers.
        root_digest: SHA-256 over the manifest's digests (OMS 6.5.1), hexadecimal.
        payload_digest: SHA-256 of the signed statement, hexadecimal; unlike the root digest it
            also binds the names of the files.
        files: Number of files.
        bytes: Their size.
        unread: Number of files whose digest is as the place lists it: nobody read their bytes.
        warnings: What looks like an accident, and was signed or passed over all the same.
        attached: The address of the signature that was attached to the model; None if none was.
    """

    signature: Where | None
    resolved: str | None
    manifest: Manifest
    root_digest: str
    payload_digest: str
    files: int
    bytes: int
    _bundle: bundle.Kept = field(repr=False)
    unread: int
    warnings: tuple[str, ...]
    attached: str | None

    @property
    def bundle(self) -> builtins.bytes:
        """The signature: what the file holds."""
        return self._bundle.whole()


@dataclass(frozen=True)
class Compared(Signed):
    """What was signed, and who did; as `compare_listed` returns it, its bytes are not verified.

    Attributes:
        authenticated: Who signed, when, and how that is known.
        unsigned: What nobody signed, and was excused: Hugging Face's notes; with
            `ignore_unsigned_files`, anything else. Directories as a whole.
        other_signatures: What else lay with the model where its signature was looked for.
    """

    authenticated: Authenticated
    unsigned: tuple[str, ...]
    other_signatures: tuple[str, ...]
    _source: Source = field(repr=False)


class Verified(Compared):
    """What was signed, and holds: every byte was read, and is what was signed."""

    def open(self, name: str) -> BinaryIO:
        """Opens a file of the model so that the bytes read are the bytes verified.

        They are copied to a file without a name, which nobody else can write to, and hashed on the
        way. (Hashing the file and reading it again would leave a moment in between; so would any
        lock, which is only advisory.)

        Args:
            name: As in the manifest, without ":start:end".

        Raises:
            FileError: The manifest has no such file, it cannot be read, or no room for the copy.
            MismatchError: It is not what was verified any more.
        """
        from tempfile import TemporaryFile

        if name not in self.manifest.files:
            raise FileError("no such file in the signed manifest", where=name)
        how, size = self.manifest.serialization, self.manifest.files[name] or 0
        entry = Entry(size, version=None)
        copy = TemporaryFile()  # noqa: SIM115 - the caller closes it
        try:
            for resource, start, end in resources(name, size, how.shard_size):
                state = hash_function(how.hash_type)()
                for piece in self._source.read(name, entry, start, end):
                    state.update(piece)
                    copy.write(piece)
                expected, found = self.manifest.digests[resource], state.hexdigest()
                if found != expected:
                    changed = "the file changed after it was verified"
                    raise MismatchError(changed, where=resource, expected=expected, found=found)
            copy.seek(0)
        except BaseException as error:
            copy.close()
            if isinstance(error, OSError):
                raise FileError("cannot copy", where=name, found=error.strerror) from error
            raise
        return copy


def sign(
    model: AnyPath | Source,
    signature: AnyPath | None,
    signer: Signer,
    options: HashOptions = HashOptions(),
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
    attach: bool = False,
    largest: int = bundle.MAX_BUNDLE_SIZE,
) -> Signed:
    """Signs a model (OMS 6) and writes the signature.

    Args:
        model: A directory or a file; an address elsewhere, such as `hf://ORG/NAME@REVISION`; or a
            `model_signing.sources.Source`.
        signature: The file to write; it may lie inside the model, and be an older signature, a
            link, a device or a FIFO (see `safe_files.write_atomic`); or an address. None:
            `Signed.bundle` is all.
        signer: See `model_signing.methods`.
        options: What to hash, and how.
        executor: See `model_signing.hashing.hash_model`.
        progress: Called with bytes hashed so far and in all.
        attach: Store the signature with the model in its registry, where `verify` looks for it.
        largest: The bytes that the signature may have, such as a log or a hub takes.

    Raises:
        UsageError: The options contradict each other, or the model's place attaches nothing.
        FileError: The model cannot be read or the signature not written, or it would be too large;
            nothing was signed.
        SigningError: The signer failed.
    """
    place = None if signature is None else signatures.where(signature)
    source = open_source(model, allow_symlinks=options.allow_symlinks)
    # Fail before hashing, not after: the signature's place must be writable.
    if place is not None:
        signatures.check_output(source, place)
    registry = signatures.attaching(source) if attach else None
    # OMS 6.1, 6.2.
    entries, how, warnings = _enumerate(source, options, place)
    warnings += _strays(source, entries)
    _check_size(statement.least_bytes(Sizes(entries, entries), how), len(entries), largest)
    # OMS 6.3, 6.4.
    listed = _listed(entries, how) if options.use_listed_digests else {}
    with _remembering(source, entries, how, options) as (known, remember):
        found = hash_model(
            source,
            entries,
            how,
            jobs=options.jobs,
            executor=executor,
            progress=progress,
            known={**known, **listed},
        )
        remember(found.digests)
    # Of a million files nobody keeps more than their sizes.
    found = replace(found, files=dict(found.files))
    del entries
    # OMS 6.5, 6.6.
    payload = statement.encode(source.name, found)
    _check_size(len(payload), len(found.files), largest)
    # OMS 6.7, 6.8, 9.
    data = signer(payload)
    if place is not None:
        signatures.write(place, data)
    attached = registry.attach(data) if registry else None
    root = statement.root_digest(found.digests.values())
    summary = _summary(source, place, found, root, payload)
    kept = bundle.Kept(data)
    return Signed(*summary, kept, len(listed), tuple(warnings), attached)


def digest(
    model: AnyPath | Source,
    options: HashOptions = HashOptions(),
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> str:
    """The root digest of a model (OMS 6.5.1), hexadecimal. It does not bind file names.

    Raises:
        UsageError, FileError: As `sign`.
    """
    source = open_source(model, allow_symlinks=options.allow_symlinks)
    entries, how, _ = _enumerate(source, options)
    found = hash_model(
        source, entries, how, jobs=options.jobs, executor=executor, progress=progress
    )
    return statement.root_digest(found.digests.values())


def verify(
    model: AnyPath | Source,
    signature: AnyPath | None,
    verifier: Verifier,
    *,
    ignore_paths: Sequence[str] = (),
    ignore_unsigned_files: bool = False,
    allow_legacy_predicate: bool = False,
    allow_symlinks: bool = False,
    jobs: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    copy_to: AnyPath | Copy | None = None,
) -> Verified:
    """Verifies a model against its signature (OMS 8).

    Args:
        model: As `sign` takes it.
        signature: The bundle, or its address; it may lie inside the model. None: what lies with a
            model elsewhere; of several signatures that of whom the verifier accepts counts.
        verifier: See `model_signing.methods`: whose signature is accepted.
        ignore_paths: More paths whose unlisted files are excused; listed files never are.
        ignore_unsigned_files: Excuse all unlisted files (OMS 8.5).
        allow_legacy_predicate: Accept v0.2.0's statements (OMS 11.2.4).
        allow_symlinks: Follow symbolic links as `HashOptions` does, also if the signer did not.
        jobs: See `HashOptions`.
        executor: See `model_signing.hashing.hash_model`.
        progress: Called with bytes hashed so far and in all.
        copy_to: A folder that is not there yet, or is empty. It gets the bytes as they are hashed,
            and appears when all of them are what was signed; `Verified.open` reads from there.

    Raises:
        BundleError: 8.1. SignatureError: 8.2. StatementError, ManifestError: 8.3.
        FileError: The model cannot be read, the copy not written. MismatchError: 8.4, 8.5.
        UsageError: The copy would lie in the model.
    """
    how = partial(
        _verify,
        verifier=verifier,
        ignore_paths=ignore_paths,
        ignore_unsigned_files=ignore_unsigned_files,
        allow_legacy_predicate=allow_legacy_predicate,
        allow_symlinks=allow_symlinks,
        hashing={"jobs": jobs, "executor": executor, "progress": progress},
        copy_to=copy_to,
    )
    return _first_that_holds(Verified, how, model, signature)


def compare_listed(
    model: AnyPath | Source,
    signature: AnyPath | None,
    verifier: Verifier,
    *,
    ignore_paths: Sequence[str] = (),
    ignore_unsigned_files: bool = False,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Compared:
    """Compares a signature with the digests that a place lists, and reads only what has none.

    That is a quick look, and no verification: the place could list what was signed, and send
    something else.

    Args:
        model: See `verify`.
        signature: See `verify`; of whole files, in SHA-256.
        verifier: See `verify`.
        ignore_paths: See `verify`.
        ignore_unsigned_files: See `verify`.
        jobs: See `verify`.
        progress: See `verify`.

    Raises:
        Error: As `verify`.
        UsageError: The signature has other digests.
    """
    how = partial(
        _verify,
        verifier=verifier,
        ignore_paths=ignore_paths,
        ignore_unsigned_files=ignore_unsigned_files,
        allow_legacy_predicate=False,
        allow_symlinks=False,
        hashing={"jobs": jobs, "progress": progress},
        copy_to=None,
    )
    return _first_that_holds(Compared, how, model, signature)


def _first_that_holds(
    result: type[_Result],
    verify_one: Callable[..., _Result],
    model: AnyPath | Source,
    signature: AnyPath | None,
) -> _Result:
    """The result for the signature, or for the first that lies with the model and holds."""
    others: tuple[str, ...] = ()
    if signature is None:
        model, found = signatures.beside(model)
        others = tuple(address for address, _ in found)
        candidates: list[tuple[Where, bytes]] = [*found]
    else:
        place = signatures.where(signature)
        candidates = [(place, signatures.read(place))]
    refusals: list[Error] = []
    while candidates:
        place, data = candidates.pop(0)
        box = [data]
        del data  # a signature over a million files is 200 MB: nobody keeps it but who needs it
        try:
            return verify_one(model, place, box, result, others)
        except (FileError, UsageError):
            raise
        except Error as error:
            refusals.append(error)
    # What somebody signed whom we expect tells more than who else signed.
    raise max(refusals, key=lambda error: isinstance(error, MismatchError | StatementError))


def _verify(
    model: AnyPath | Source,
    signature: Where,
    box: list[bytes],
    result: type[_Result],
    beside: tuple[str, ...],
    *,
    verifier: Verifier,
    ignore_paths: Sequence[str],
    ignore_unsigned_files: bool,
    allow_legacy_predicate: bool,
    allow_symlinks: bool,
    hashing: Mapping[str, Any],
    copy_to: AnyPath | Copy | None,
) -> _Result:
    # 8.1, 8.2: the bundle and its signature. Nothing is trusted before this returns.
    data = box.pop()
    try:
        authenticated = verifier(data)
    except Error as error:
        error.where = error.where or str(signature)
        raise
    kept = bundle.kept(data, authenticated.payload)
    del data
    # 8.3: the statement.
    payload = authenticated.payload
    stated = statement.decode(payload, allow_legacy_predicate=allow_legacy_predicate)
    signed = stated.manifest
    # 8.4.1 to 8.4.5: hash as the signed serialization says.
    how = signed.serialization
    source = open_source(model, allow_symlinks=allow_symlinks or how.allow_symlinks)
    # 8.4.6: enumerate. Exclusions excuse unlisted files; a listed file is always looked at.
    asked = {_ignored(source, path) for path in ignore_paths}
    own = {name for one in (signature, *beside) for name in signatures.own(source, one)}
    excused = {*GIT_PATHS, HUB_PATH, *how.ignore_paths, *own, *asked}
    noted = asked | {HUB_PATH}
    selection = Selection(excused, signed.files.keys(), ignore_unsigned_files, noted)
    entries, unsigned = source.entries(selection)
    del selection
    warnings = _unmatched(asked - own, unsigned)
    signed = named_as(source, entries, signed)
    # 8.4.8, 8.4.9, 8.5: the same files, before any time is spent on hashing them.
    compare_files(source, entries, signed)
    if isinstance(entries, local.Listing):
        entries.use_names(signed.files)
    # 8.4.7, 8.4.8: the same bytes.
    unread = {} if result is Verified else _listed(entries, how)
    with _opened(copy_to, source) as copy:
        actual = hash_model(
            source, entries, how, **hashing, copy=copy, known=unread, likely=signed.digests
        )
        compare_digests(source, entries, actual, signed)
    found = replace(signed, files=actual.files)
    return result(
        *_summary(source, signature, found, stated.root_digest, payload),
        _bundle=kept,
        unread=len(unread),
        warnings=tuple(warnings),
        attached=None,
        authenticated=authenticated,
        unsigned=tuple(sorted(name for name in unsigned if not covered(name, asked))),
        other_signatures=tuple(other for other in beside if other != signature),
        _source=source if copy is None else copy.kept,
    )


def _listed(entries: Mapping[str, Entry], how: Serialization) -> dict[str, str]:
    """The digests that a place lists, in place of those that would be found.

    Raises:
        UsageError: The signature is to have other digests than a place could list.
    """
    if how.hash_type != "sha256" or how.method != "files":
        raise UsageError(
            "places list the SHA-256 of whole files",
            expected="sha256 of files",
            found=f"{how.hash_type} of {how.method}",
            fix="leave out --use-listed-digests: the bytes are read then",
        )
    return {
        name: entry.sha256
        for name, entry in entries.items()
        if entry.sha256 is not None and not entry.measured
    }


@contextmanager
def _remembering(
    source: Source, entries: Mapping[str, Entry], how: Serialization, options: HashOptions
) -> Iterator[tuple[Mapping[str, str], Callable[[Mapping[str, str]], None]]]:
    """The digests that the cache knows, and what to tell those to that were found."""
    if options.digest_cache is None:
        yield {}, lambda _: None
        return
    if not isinstance(source, LocalSource):
        fix = "leave it out; --use-listed-digests may save reading"
        raise UsageError("a digest cache is for models on this machine", found=str(source), fix=fix)
    path = Path(options.digest_cache)
    inside = None if source.single else local.name_inside(source.path, path)
    if inside and not covered(inside, how.ignore_paths):
        fix = "name a file elsewhere, or exclude it with --ignore-paths"
        raise UsageError("the digest cache would be a file of the model", where=str(path), fix=fix)
    from model_signing.sources.digest_cache import DigestCache, Part

    parts = {
        resource: Part(entry, start, end)
        for name, entry in entries.items()
        for resource, start, end in resources(name, entry.size, how.shard_size)
    }
    with DigestCache(path, how.hash_type) as cache:
        yield cache.find(parts), partial(cache.remember, parts)


def _opened(copy_to: AnyPath | Copy | None, source: Source) -> AbstractContextManager[Copy | None]:
    if copy_to is None:
        return nullcontext()
    from model_signing.sources import copying

    return copying.opened(copy_to, source)


def _enumerate(
    source: Source, options: HashOptions, signature: Where | None = None
) -> tuple[Mapping[str, Entry], Serialization, list[str]]:
    """The files to sign (6.1, 6.2), how they are hashed, and warnings."""
    if options.algorithm not in DIGEST_SIZES:
        known = ", ".join(DIGEST_SIZES)
        raise UsageError("unknown hash algorithm", expected=known, found=str(options.algorithm))
    shard_size = options.shard_size
    if options.method == "shards":
        shard_size = DEFAULT_SHARD_SIZE if shard_size is None else shard_size
        if shard_size < 1:
            raise UsageError("not a shard size", expected="1 or more", found=str(shard_size))
    elif options.method != "files" or shard_size is not None:
        raise UsageError('the method is "files", or "shards" if there is a shard size')
    check_name(source.name)
    default = GIT_PATHS if options.ignore_git_paths else ()
    own = {_ignored(source, path) for path in signatures.own(source, signature)}
    asked = {_ignored(source, path) for path in options.ignore_paths}
    left_out = {*default, *own, *asked, HUB_PATH}
    entries, there = source.entries(Selection(left_out, noted=asked | {HUB_PATH}))
    hub = {HUB_PATH} if any(covered(name, (HUB_PATH,)) for name in there) else set()
    ignore_paths = (*default, *sorted((own | asked | hub).difference(default)))
    if not entries:
        raise FileError("the model has no files (OMS 6.1)", where=str(source))
    sizes = Sizes(entries, entries)
    if shard_size is not None and (empty := [name for name in entries if not sizes[name]]):
        # 6.3.2 leaves empty files out, so that nobody would notice when one comes or goes.
        raise FileError(
            "an empty file cannot be signed in shards (OMS 6.3.2)",
            where=some(empty),
            fix="remove it, exclude it with --ignore-paths, or sign without shards",
        )
    how = (options.method, options.algorithm, shard_size, options.allow_symlinks)
    warnings = _unmatched(asked - own, there)
    return entries, Serialization(*how, ignore_paths), warnings


def _check_size(statement_bytes: int, files: int, largest: int) -> None:
    """Refuses what nobody could verify, or a log or a hub not take, before any time is spent."""
    size, limit = statement_bytes * 4 // 3, min(largest, bundle.MAX_BUNDLE_SIZE)
    if size > limit:
        raise FileError(
            "the signature would be too large",
            expected=f"at most {limit} bytes",
            found=f"at least {size} bytes, for {files} files",
            fix="leave out what is no part of the model with --ignore-paths, or pack small files "
            "together; a key or certificate needs no log, and a log of Rekor v2 gets a hash only",
        )


def _unmatched(asked: Set[str], there: Collection[str]) -> list[str]:
    """A warning for each path to be ignored that is not there: a slip of the pen, perhaps."""
    alone = [path for path in asked if not covered(path, asked - {path})]
    return [
        f"--ignore-paths matches nothing: {path}"
        for path in sorted(alone)
        if not any(covered(name, (path,)) for name in there)
    ]


def _strays(source: Source, entries: Mapping[str, Entry]) -> list[str]:
    """Warnings of what should perhaps not be signed; see `sources.strays`, also for errors."""
    if not isinstance(source, LocalSource):
        return []  # where every look costs a request
    from model_signing.sources import strays

    pointers = strays.inspected(source, entries)
    warnings = []
    if pointers:
        warnings.append(
            f"signed as they are, pointers of Git LFS in place of files: {some(pointers)}; "
            "get the files with `git lfs pull`, then sign again"
        )
    if found := strays.leftovers(entries.keys()):
        warnings.append(
            f"signed with the model, although tools leave such things by accident: {some(found)}; "
            f"leave them out with --ignore-paths {found[0]}"
        )
    return warnings


def _ignored(source: Source, path: str) -> str:
    """6.2.1: in canonical form; only on this machine a path can be absolute."""
    if isinstance(source, LocalSource):
        return local.ignored_path(Path(source.path), path)
    return names.ignored(path)


def _summary(
    source: Source, signature: Where | None, found: Manifest, root: str, payload: bytes
) -> tuple[Where | None, str | None, Manifest, str, str, int, int]:
    """The attributes of `Signed`."""
    resolved = None if isinstance(source, LocalSource) else str(source)
    payload_digest = hashlib.sha256(payload).hexdigest()
    size = sum(filter(None, found.files.values()))
    return signature, resolved, found, root, payload_digest, len(found.files), size
