"""A hub on the loopback: repositories in memory, by the addresses that huggingface_hub asks."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml

COMMIT = "1234567890abcdef1234567890abcdef12345678"
PIPELINES = ("image-segmentation", "object-detection", "keypoint-detection")
LICENCES = ("apache-2.0", "mit", "cc-by-4.0", "cc0-1.0", "other")


@dataclass
class Hub:
    """Repository -> file -> content; ``token`` is asked for to write, and of ``private`` repositories to read.

    Attributes:
        lies: file -> content that is sent in place of what was promised.
        names: further names that a repository's listing tells.
        cards: front matters that were validated.
        asked: method and path of each request.
    """

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    token: str = "hf_loopback"
    commit: str = COMMIT
    lies: dict[str, bytes] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    cards: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    uploads: dict[str, bytes] = field(default_factory=dict)


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        hub, path = self.server.hub, self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        hub.asked.append(f"{method} {path}")
        may = self.headers["Authorization"] == f"Bearer {hub.token}"
        for pattern, respond in ROUTES.items():
            if found := re.fullmatch(pattern, f"{method} {path}"):
                repository = found.groupdict().get("repository", "")
                writes = method in ("POST", "PUT") and not re.search("paths-info|validate", path)
                if (writes or repository in hub.private) and not may and method != "PUT":
                    hidden = {} if writes else {"X-Error-Code": "RepoNotFound"}  # whether it is there
                    return self._send(401, {"error": "Invalid user token."}, hidden)
                known = repository in hub.repositories
                if repository and not known:
                    return self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
                if found.groupdict().get("revision", "main") not in ("main", hub.commit):
                    return self._send(404, {"error": "Invalid rev"}, {"X-Error-Code": "RevisionNotFound"})
                return respond(self, hub, body, **found.groupdict())
        return self._send(404, {"error": f"{method} {path}"})

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None: ...

    def whoami(self, hub: Hub, body: bytes) -> None:
        self._send(200, {"name": "someone", "type": "user", "orgs": [], "auth": {"type": "access_token"}})

    def create(self, hub: Hub, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
        if name in hub.repositories:
            return self._send(409, {"error": "You already created this model repo", "url": f"{hub.url}/{name}"})
        hub.repositories[name] = {}
        if asked.get("private") or asked.get("visibility") == "private":
            hub.private.add(name)
        return self._send(200, {"url": f"{hub.url}/{name}", "name": name, "id": "1"})

    def validate(self, hub: Hub, body: bytes) -> None:
        """What the hub asks of a card's front matter, as far as its documentation tells."""
        text = json.loads(body)["content"]
        found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
        matter = yaml.safe_load(found[1]) if found else {}
        hub.cards.append(matter)
        wrong = [
            name
            for name, good in {
                "license": matter.get("license", "mit") in LICENCES,
                "license_name": matter.get("license") != "other" or re.fullmatch(r"[\w.-]+", matter["license_name"]),
                "pipeline_tag": matter.get("pipeline_tag") in PIPELINES,
                "tags": all(isinstance(tag, str) for tag in matter.get("tags", [])),
                "datasets": all(re.fullmatch(r"([\w-]+/)?[\w.-]{1,96}", name) for name in matter.get("datasets", [])),
                "model-index": all(
                    {"type"} <= result["task"].keys()
                    and {"type", "name"} <= result["dataset"].keys()
                    and all({"type", "value"} <= metric.keys() for metric in result["metrics"])
                    for model in matter.get("model-index", [])
                    for result in model["results"]
                ),
            }.items()
            if not good
        ]
        errors = [{"message": f"{name} is wrong"} for name in wrong]
        self._send(400 if errors else 200, {"errors": errors, "warnings": []})

    def preupload(self, hub: Hub, body: bytes, repository: str, revision: str) -> None:
        def mode(name: str) -> str:
            return "lfs" if name.endswith((".safetensors", ".jpg")) else "regular"

        files = [
            {"path": file["path"], "uploadMode": mode(file["path"]), "shouldIgnore": False}
            for file in json.loads(body)["files"]
        ]
        self._send(200, {"files": files})

    def batch(self, hub: Hub, body: bytes, repository: str) -> None:
        objects = [
            {**each, "actions": {"upload": {"href": f"{hub.url}/upload/{each['oid']}", "header": {}}}}
            for each in json.loads(body)["objects"]
        ]
        self._send(200, {"transfer": "basic", "objects": objects})

    def upload(self, hub: Hub, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        hub.uploads[oid] = body
        self._send(200, {})

    def commit(self, hub: Hub, body: bytes, repository: str, revision: str) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "lfsFile":
                hub.repositories[repository][value["path"]] = hub.uploads[value["oid"]]
            elif line["key"] == "file":
                hub.repositories[repository][value["path"]] = base64.b64decode(value["content"])
        self._send(
            200, {"success": True, "commitUrl": f"{hub.url}/{repository}/commit/{hub.commit}", "commitOid": hub.commit}
        )

    def info(self, hub: Hub, body: bytes, repository: str, revision: str | None = None) -> None:
        files = [{"rfilename": each["path"], **each} for each in self._files(hub, repository)]
        files += [
            {"rfilename": name, "size": 3, "lfs": {"sha256": "0" * 64, "size": 3, "pointerSize": 1}}
            for name in hub.names
        ]
        self._send(200, {"id": repository, "sha": hub.commit, "siblings": files, "private": repository in hub.private})

    def tree(self, hub: Hub, body: bytes, repository: str, revision: str) -> None:
        self._send(200, self._files(hub, repository))

    def paths(self, hub: Hub, body: bytes, repository: str, revision: str) -> None:
        text = body.decode()
        self._send(200, [each for each in self._files(hub, repository) if each["path"] in text])

    def _files(self, hub: Hub, repository: str) -> list[dict[str, Any]]:
        found = []
        for name, content in hub.repositories[repository].items():
            each = {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            if name.endswith(".safetensors"):
                sha256 = hashlib.sha256(content).hexdigest()
                each["lfs"] = {"oid": sha256, "sha256": sha256, "size": len(content), "pointerSize": 130}
            found.append(each)
        return found

    def resolve(self, hub: Hub, body: bytes, repository: str, revision: str, name: str) -> None:
        content = hub.repositories[repository].get(name)
        if content is None:
            return self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        content = hub.lies.get(name, content)
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": hub.commit}
        if self.command == "HEAD":
            return self._send(200, b"", headers | {"Content-Length": str(len(content))})
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or ""):
            start, end = int(asked[1]), int(asked[2] or len(content) - 1)
            part = content[start : end + 1]
            where = {"Content-Range": f"bytes {start}-{start + len(part) - 1}/{len(content)}"}
            return self._send(206, part, headers | where)
        return self._send(200, content, headers)


REPOSITORY = r"(?P<repository>[^/]+/[^/]+?)"
REVISION = r"(?P<revision>[^/]+)"
ROUTES = {
    "GET /api/whoami-v2": _Handler.whoami,
    "POST /api/repos/create": _Handler.create,
    "POST /api/validate-yaml": _Handler.validate,
    rf"POST /api/models/{REPOSITORY}/preupload/{REVISION}": _Handler.preupload,
    rf"POST /{REPOSITORY}\.git/info/lfs/objects/batch": _Handler.batch,
    r"PUT /upload/(?P<oid>\w+)": _Handler.upload,
    rf"POST /api/models/{REPOSITORY}/commit/{REVISION}": _Handler.commit,
    rf"GET /api/models/{REPOSITORY}": _Handler.info,
    rf"GET /api/models/{REPOSITORY}/revision/{REVISION}": _Handler.info,
    rf"GET /api/models/{REPOSITORY}/tree/{REVISION}": _Handler.tree,
    rf"POST /api/models/{REPOSITORY}/paths-info/{REVISION}": _Handler.paths,
    rf"(GET|HEAD) /{REPOSITORY}/resolve/{REVISION}/(?P<name>[^/]+)": _Handler.resolve,
}


class _Server(ThreadingHTTPServer):
    hub: Hub


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, *, token: bool = True) -> Iterator[Hub]:
    """A hub that huggingface_hub in this process takes for the real one; ``token``: somebody is logged in."""
    from huggingface_hub import HfFileSystem, constants

    server = _Server(("127.0.0.1", 0), _Handler)
    server.hub = hub = Hub(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", hub.token if token else "")
    HfFileSystem.clear_instance_cache()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        HfFileSystem.clear_instance_cache()
