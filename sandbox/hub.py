"""The little of Hugging Face's hub that its client and we use: repositories, and where bytes lie.

Small files lie on the hub; large ones ("LFS") on another host, to which it redirects, as the real
one does. For demonstrations and tests only. Source: huggingface_hub 2.4.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from urllib.parse import parse_qs, unquote, urlsplit

from sandbox.local_server import LocalServer, Reply, Request

TOKEN = "hf_sandbox"
_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/(revision|tree|preupload|commit)/(.+)")
_RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
Files = Mapping[str, bytes]


@dataclass
class Repository:
    """Commits and the branches that lead to them; `needs_token` makes it private or gated."""

    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    needs_token: str = ""  # "", "private" or "gated"


class Hub:
    """Answers on 127.0.0.1 while in its context; large files are on `localhost`.

    Args:
        large: Files of so many bytes are large.
        page: Entries of one page of a listing.

    Attributes:
        asked: What was asked for: host, method, path, whether with a token.
        fault: What answers instead, where it gives an answer.
    """

    def __init__(self, large: int = 1000, page: int = 2) -> None:
        self._large, self._page = large, page
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.asked: list[tuple[str, str, str, bool]] = []
        self.fault: Callable[[Request], Reply | None] = lambda _: None
        self._blobs: dict[str, bytes] = {}
        self._hub, self._storage = LocalServer(self._answer), LocalServer(self._stored)
        self.endpoint = self._hub.url

    def __enter__(self) -> Hub:
        self._hub.__enter__()
        self._storage.__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        self._hub.__exit__(*failure)
        self._storage.__exit__(*failure)

    def commit(self, name: str, files: Files, branch: str = "main", kind: str = "models") -> str:
        """A new commit of a repository, which is made if there is none; returns its id."""
        repository = self.repositories.setdefault((kind, name), Repository())
        listing = json.dumps({path: sha256(data).hexdigest() for path, data in files.items()})
        commit = sha1(f"{len(repository.commits)}{listing}".encode()).hexdigest()
        repository.commits[commit] = dict(files)
        repository.branches[branch] = commit
        return commit

    def _note(self, request: Request) -> Reply | None:
        host = request.headers["Host"].partition(":")[0]
        token = "Authorization" in request.headers
        self.asked.append((host, request.method, urlsplit(request.target).path, token))
        return self.fault(request)

    def _answer(self, request: Request) -> Reply:
        if (fault := self._note(request)) is not None:
            return fault
        url = urlsplit(request.target)
        path = unquote(url.path)
        if found := _API.fullmatch(path):
            kind, name, what, rest = found.groups()
        elif found := _RESOLVE.fullmatch(path):
            kind, name, what, rest = "models", found[2], "resolve", found[3] + "/" + found[4]
            kind = "datasets" if found[1] else kind
        else:
            return _error(404, "", "no such path")
        repository = self.repositories.get((kind, name))
        allowed = request.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.needs_token == "private" and not allowed):
            return _error(401, "RepoNotFound", "Repository not found")
        if repository.needs_token == "gated" and what != "revision" and not allowed:
            return _error(403, "GatedRepo", f"Access to {name} is restricted")
        revision, _, file = rest.partition("/") if what in ("resolve", "tree") else (rest, "", "")
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = repository.commits[commit]
        if what == "revision":
            return Reply.of_json(200, {"id": name, "sha": commit, "siblings": []})
        if what == "tree":
            return self._tree(files, url.path, parse_qs(url.query).get("cursor", ["0"])[0])
        if what == "resolve":
            return self._resolve(request, commit, files, file)
        if not allowed:
            return _error(401, "", "Invalid credentials in Authorization header")
        return self._upload(request, what, name, kind, revision, files)

    def _tree(self, files: Files, path: str, cursor: str) -> Reply:
        first = int(cursor)
        page: list[dict[str, object]] = []
        for name, data in sorted(files.items())[first : first + self._page]:
            item: dict[str, object] = {
                "type": "file",
                "path": name,
                "size": len(data),
                "oid": _blob_id(data),
            }
            if len(data) >= self._large:
                large = {"oid": sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
                item["lfs"] = large
            page.append(item)
        if first == 0:
            folders = sorted({name.partition("/")[0] for name in files if "/" in name})
            page += [{"type": "directory", "path": one, "oid": "0" * 40} for one in folders]
        more = first + self._page < len(files)
        url = f"{self.endpoint}{path}?recursive=true&cursor={first + self._page}"
        link = (("Link", f'<{url}>; rel="next"'),) if more else ()
        return Reply(200, json.dumps(page).encode(), headers=link)

    def _resolve(self, request: Request, commit: str, files: Files, name: str) -> Reply:
        if name not in files:
            return _error(404, "EntryNotFound", "Entry not found")
        data = files[name]
        version = ("X-Repo-Commit", commit)
        if len(data) < self._large:
            return _range(request, data, (version, ("ETag", f'"{_blob_id(data)}"')))
        digest = sha256(data).hexdigest()
        self._blobs[digest] = data
        linked = (version, ("X-Linked-Etag", f'"{digest}"'), ("X-Linked-Size", str(len(data))))
        location = f"http://localhost:{self._storage.port}/{digest}?signature=1"
        return Reply(302, b"", location=location, headers=linked)

    def _stored(self, request: Request) -> Reply:
        if (fault := self._note(request)) is not None:
            return fault
        data = self._blobs[urlsplit(request.target).path.strip("/")]
        return _range(request, data, (("ETag", '"of the storage"'),))

    def _upload(
        self, request: Request, what: str, name: str, kind: str, branch: str, files: Files
    ) -> Reply:
        if what == "preupload":
            names = [one["path"] for one in json.loads(request.body)["files"]]
            modes = [{"path": one, "uploadMode": "regular", "shouldIgnore": False} for one in names]
            return Reply.of_json(200, {"files": modes})
        new = dict(files)
        for line in request.body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                content = entry["value"]["content"]
                new[entry["value"]["path"]] = base64.b64decode(content)
        commit = self.commit(name, new, branch, kind)
        url = f"{self.endpoint}/{name}/commit/{commit}"
        return Reply.of_json(200, {"success": True, "commitOid": commit, "commitUrl": url})


def _blob_id(data: bytes) -> str:
    return sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _range(request: Request, data: bytes, headers: tuple[tuple[str, str], ...]) -> Reply:
    asked = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
    kind = "application/octet-stream"
    if asked is None:
        return Reply(200, data, kind, headers=headers)
    first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
    if first > last:
        return Reply(416, b"", kind, headers=(("Content-Range", f"bytes */{len(data)}"),))
    given = ("Content-Range", f"bytes {first}-{last}/{len(data)}")
    return Reply(206, data[first : last + 1], kind, headers=(*headers, given))


def _error(status: int, code: str, message: str) -> Reply:
    headers = (("X-Error-Code", code), ("X-Error-Message", message))
    return Reply(status, json.dumps({"error": message}).encode(), headers=headers)
