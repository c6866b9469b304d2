"""A loopback stand-in of the hub's HTTP API: commits, uploads (regular and LFS), downloads, faults."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

TOKEN = "hf_standInTokenOfNobody"


class Hub:
    """What the server holds.

    Attributes:
        repos: Files of each commit by repository (``owner/name``, ``datasets/owner/name``); ``main`` is the latest.
        private: Repositories that need the token.
        revoked: Tokens that nothing is given to.
        faults: (method, part of the path, what happens) — a status, or ``cut`` or ``cut at once``; each happens once.
        requests: Method, path and Authorization of every request.
        lfs: Whether weights are uploaded by LFS.
        resumed: Where replies were asked for from, other than their beginning.
        waits: Seconds that the client would have waited (:func:`use`).
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.revoked: set[str] = set()
        self.faults: list[tuple[str, str, int | str]] = []
        self.requests: list[tuple[str, str, str | None]] = []
        self.objects: dict[str, bytes] = {}
        self.lfs = False
        self.waits: list[float] = []
        self.resumed: list[int] = []
        self.url = ""

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        """Add files to a repository's latest commit; gives the new commit."""
        commits = self.repos.setdefault(repo, {"main": {}})
        content = {**commits["main"], **files}
        oid = hashlib.sha1(repr(sorted(content.items())).encode()).hexdigest()
        commits[oid] = commits["main"] = content
        return oid

    def fault(self, method: str, path: str) -> int | str | None:
        for fault in self.faults:
            if fault[0] == method and fault[1] in path:
                self.faults.remove(fault)
                return fault[2]
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def send(self, status: int, content: Any = b"", headers: dict[str, str] | None = None, code: str = "") -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"X-Error-Code": code, "Content-Length": str(len(body)), **(headers or {})}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def begin(self) -> bool:
        """Note the request, and carry out a fault; whether it goes on."""
        self.hub.requests.append((self.command, self.path, self.headers.get("Authorization")))
        self.fault = self.hub.fault(self.command, self.path)
        if isinstance(self.fault, int):
            self.body()
            self.send(self.fault, {"error": "no"}, {"Retry-After": "1"} if self.fault == 429 else None)
            return False
        if (self.headers.get("Authorization") or "").removeprefix("Bearer ") in self.hub.revoked:
            self.body()
            self.send(401, {"error": "Invalid credentials in Authorization header"})
            return False
        return True

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if not self.begin():
            return
        if self.path.startswith("/api/datasets/"):
            self.about()
            return
        repo, found, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        commits = self.hub.repos.get(repo)
        if not found or commits is None or (repo in self.hub.private and not self.authorised()):
            self.send(404, code="RepoNotFound" if found else "EntryNotFound")  # such as a listing of files
        elif revision not in commits:
            self.send(404, code="RevisionNotFound")
        elif file not in commits[revision]:
            self.send(404, code="EntryNotFound")
        else:
            oid = next(name for name, content in commits.items() if name != "main" and content == commits[revision])
            self.send_file(commits[revision][file], oid)

    def about(self, wanted: list[str] | None = None) -> None:
        """Describe a dataset, or list its files: all, those of a folder, or some by name."""
        owner, name, *rest = urlsplit(self.path).path.split("/")[3:]
        revision, folder = unquote((rest or ["", "main"])[1]), "/".join(rest[2:]) or "."
        commits = self.hub.repos.get(repo := f"datasets/{owner}/{name}")
        if commits is None or revision not in commits:
            self.send(404, {"error": "not found"}, code="RepoNotFound" if commits is None else "RevisionNotFound")
            return
        files = commits[revision]
        oid = next(name for name, content in commits.items() if name != "main" and content == files)
        if "/tree/" not in self.path and wanted is None:
            siblings = [{"rfilename": file} for file in files]
            about = {"id": repo.removeprefix("datasets/"), "sha": oid, "siblings": siblings, "private": False}
            self.send(200, about | {"gated": False, "disabled": False, "tags": [], "downloads": 0, "likes": 0})
            return
        folders = {str(parent) for file in files for parent in PurePosixPath(file).parents if str(parent) != "."}
        listed = [{"type": "directory", "path": path, "oid": oid} for path in sorted(folders)]
        for path, content in files.items():
            blob = hashlib.sha1(content).hexdigest()
            listed.append({"type": "file", "path": path, "oid": blob, "size": len(content)})
        deep = "recursive=true" in self.path.lower()
        above = {each["path"]: [str(parent) for parent in PurePosixPath(each["path"]).parents] for each in listed}
        within = {path for path, parents in above.items() if folder in (parents if deep else parents[:1])}
        chosen = [each for each in listed if each["path"] in (within if wanted is None else wanted)]
        self.send(200, chosen, {"Content-Type": "application/json"})

    def send_file(self, content: bytes, oid: str) -> None:
        start = 0
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            self.hub.resumed.append(start)
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": oid, "Accept-Ranges": "bytes"}
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        part = content[start:]
        if self.fault in ("cut", "cut at once"):
            self.send_response(206 if wanted else 200)
            for name, value in {**headers, "Content-Length": str(len(part))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(part[: len(part) // 2] if self.fault == "cut" else b"")
            self.close_connection = True
            return
        self.send(206 if wanted else 200, part, headers)

    def authorised(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def do_PUT(self) -> None:
        if self.begin():
            content = self.body()
            self.hub.objects[hashlib.sha256(content).hexdigest()] = content
            self.send(200)

    def do_POST(self) -> None:
        if not self.begin():
            return
        content = self.body()
        if "/paths-info/" in self.path:
            self.about(parse_qs(content.decode())["paths"])
        elif self.path != "/api/validate-yaml" and not self.authorised():
            self.send(401, {"error": "Invalid credentials in Authorization header"})
        elif self.path == "/api/repos/create":
            self.create(json.loads(content))
        elif self.path == "/api/validate-yaml":
            self.send(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [{"path": file["path"], "shouldIgnore": False} for file in json.loads(content)["files"]]
            weights = "lfs" if self.hub.lfs else "regular"
            modes = [weights if file["path"].endswith(".safetensors") else "regular" for file in files]
            self.send(200, {"files": [{**f, "uploadMode": mode} for f, mode in zip(files, modes, strict=True)]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            self.batch(json.loads(content))
        elif "/commit/" in self.path:
            self.commit(content)
        else:
            self.send(404, code="RepoNotFound")

    def create(self, wanted: dict[str, Any]) -> None:
        repo = f"{wanted['organization']}/{wanted['name']}"
        if repo in self.hub.repos:
            self.send(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{repo}"})
            return
        self.hub.repos[repo] = {"main": {}}
        if wanted.get("visibility") == "private" or wanted.get("private"):
            self.hub.private.add(repo)
        self.send(200, {"url": f"{self.hub.url}/{repo}"})

    def batch(self, wanted: dict[str, Any]) -> None:
        href = f"{self.hub.url}/objects/"
        objects = [
            {**each, "actions": {"upload": {"href": f"{href}{each['oid']}", "header": {}}}}
            for each in wanted["objects"]
        ]
        self.send(200, {"transfer": "basic", "objects": objects}, {"Content-Type": "application/json"})

    def commit(self, content: bytes) -> None:
        repo = self.path.removeprefix("/api/models/").split("/commit/")[0]
        files = {}
        for line in content.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "lfsFile":
                files[entry["value"]["path"]] = self.hub.objects[entry["value"]["oid"]]
        oid = self.hub.commit(repo, files)
        self.send(200, {"commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid, "hookOutput": ""})


@contextmanager
def served() -> Iterator[Hub]:
    """A hub on a free port of the loopback device."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch, token: str | None = TOKEN) -> None:
    """Let huggingface_hub of this process use a hub, an empty cache, and no waiting."""
    from huggingface_hub import close_session, constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for name in ("HF_HUB_CACHE", "HF_HOME", "HF_TOKEN_PATH", "HF_XET_CACHE"):
        monkeypatch.setattr(constants, name, str(home / name), raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("time.sleep", hub.waits.append)
    close_session()
