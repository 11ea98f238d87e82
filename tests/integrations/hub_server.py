"""A small server that speaks as much of the Hub's HTTP as ``huggingface_hub`` asks for."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Hub:
    """Repositories in memory: name -> revision -> file -> bytes. Revisions are branches or commits.

    Attributes:
        repos: what is there.
        asked: "METHOD /path" of every request.
        token: what a writer must show.
        gated: names that ask for an agreement.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.asked: list[str] = []
        self.token = "hf_secret"
        self.gated: set[str] = set()
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def commit(self, repo: str, branch: str, files: dict[str, bytes]) -> str:
        """Put files on a branch and return the commit."""
        revisions = self.repos.setdefault(repo, {})
        whole = {**revisions.get(branch, {}), **files}
        digest = hashlib.sha1(repr(sorted(whole.items())).encode()).hexdigest()
        revisions[branch] = revisions[digest] = whole
        return digest


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, code: int, body: object = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        if not isinstance(body, bytes):
            headers.setdefault("Content-Type", "application/json")
        headers.setdefault("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, code: int, kind: str) -> None:
        self._answer(code, {"error": kind}, X_Error_Code=kind, X_Error_Message=kind)

    def _find(self, repo: str, revision: str) -> dict[str, bytes] | None:
        if repo in self.hub.gated:
            self._refuse(403, "GatedRepo")
        elif repo not in self.hub.repos:
            self._refuse(404, "RepoNotFound")
        elif unquote(revision) not in self.hub.repos[repo]:
            self._refuse(404, "RevisionNotFound")
        else:
            return self.hub.repos[repo][unquote(revision)]
        return None

    def _oid(self, repo: str, files: dict[str, bytes]) -> str:
        revisions = self.hub.repos[repo]
        return next(name for name, held in revisions.items() if held == files and len(name) == 40)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.hub.asked.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            files = self._find(found[1], found[2])
            if files is not None:
                names = [{"rfilename": name} for name in files]
                told = {"id": found[1], "modelId": found[1], "siblings": names}
                self._answer(200, {**told, "sha": self._oid(found[1], files)})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            files = self._find(found[1], found[2])
            if files is not None:
                self._answer(200, [
                    {"type": "file", "path": name, "size": len(data),
                     "oid": hashlib.sha1(data).hexdigest()} for name, data in files.items()
                ])  # fmt: skip
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            files = self._find(found[1], found[2])
            if files is None:
                return
            name = unquote(found[3])
            if name not in files:
                self._refuse(404, "EntryNotFound")
                return
            etag = hashlib.sha1(files[name]).hexdigest()
            self._answer(
                200, files[name], ETag=f'"{etag}"', X_Repo_Commit=self._oid(found[1], files)
            )
        else:
            self._refuse(404, "RepoNotFound")

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        self.hub.asked.append(f"POST {path}")
        body = self._read_body()
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._answer(401, {"error": "Invalid username or password."})
        elif path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            self.hub.commit(repo, "main", {})
            self._answer(200, {"url": f"{self.hub.address}/{repo}", "name": repo, "id": repo})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/branch/(.+)", path):
            self.hub.commit(found[1], unquote(found[2]), {})
            self._answer(200, {})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/(.+)", path):
            files = json.loads(body)["files"]
            self._answer(200, {"files": [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in files
            ]})  # fmt: skip
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path):
            lines = [json.loads(line) for line in body.splitlines() if line.strip()]
            files = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            digest = self.hub.commit(found[1], unquote(found[2]), files)
            address = f"{self.hub.address}/{found[1]}/commit/{digest}"
            self._answer(200, {"success": True, "commitOid": digest, "commitUrl": address})
        else:
            self._refuse(404, "RepoNotFound")

    def _read_body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)
