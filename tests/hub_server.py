"""A Hub on this machine, for tests of pushing and pulling: as much of the protocol as `huggingface_hub` uses.

Repositories are kept in memory, commit by commit. Files reach a repository with a commit only, as on the Hub.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml
from huggingface_hub.repocard_data import model_index_to_eval_results

TOKEN = "hf_" + "a1B2c3D4" * 4
READ_TOKEN = "hf_" + "r3ad0nLy" * 4
LFS = (".safetensors", ".bin", ".pt", ".model", ".spm")
LICENSES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "other"}
ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


@dataclass
class Repo:
    """A repository: its commits, oldest first, and the branches as places among them.

    Attributes:
        commits: (id, message, name -> content).
        branches: name -> index of a commit.
        pulls: commits of pull requests.
    """

    private: bool = False
    commits: list[tuple[str, str, dict[str, bytes]]] = field(default_factory=list)
    branches: dict[str, int] = field(default_factory=dict)
    pulls: list[tuple[str, str, dict[str, bytes]]] = field(default_factory=list)

    def add(self, branch: str, message: str, files: dict[str, bytes]) -> str:
        text = repr(
            (len(self.commits), message, sorted((name, hashlib.sha1(d).hexdigest()) for name, d in files.items()))
        )
        self.commits.append((hashlib.sha1(text.encode()).hexdigest(), message, files))
        self.branches[branch] = len(self.commits) - 1
        return self.commits[-1][0]

    def at(self, revision: str) -> tuple[str, str, dict[str, bytes]] | None:
        if revision in self.branches:
            return self.commits[self.branches[revision]]
        return next((commit for commit in self.commits if commit[0] == revision), None)


class HubServer:
    """The server, which runs while it is entered.

    Attributes:
        endpoint: its address, for HF_ENDPOINT.
        repos: id -> repository.
        requests: (method, path, body) of each request, in order.
        fails_at: a part of a path -> how many requests with it go through before the server acts as if it had died
            (0: breaks the connection), or a status to answer with.
        on_request: called with method and path before a request is answered.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, bytes]] = []
        self.authorizations: set[str] = set()
        self.fails_at: dict[str, int] = {}
        self.on_request = lambda method, path: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        return {name: data for name, data in self.repos[repo_id].at(revision)[2].items() if name != ".gitattributes"}

    def card(self, repo_id: str = "me/nmt") -> str:
        return self.files(repo_id)["README.md"].decode()

    def messages(self, repo_id: str) -> list[str]:
        return [message for _, message, _ in self.repos[repo_id].commits]

    def put(self, repo_id: str, files: dict[str, bytes], private: bool = False) -> None:
        """A repository that somebody else has made."""
        self.repos[repo_id] = repo = Repo(private)
        repo.add("main", "initial commit", {".gitattributes": ATTRIBUTES, **files})


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, value: object = None, *, raw: bytes | None = None, **headers: str) -> None:
        body = raw if raw is not None else b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream" if raw is not None else "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, message: str, code: str = "") -> None:
        headers = {"X_Error_Message": message} | ({"X_Error_Code": code} if code else {})
        self.answer(status, {"error": message}, **headers)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().strip() or b"0", 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def handle_any(self) -> None:
        hub, path = self.hub, urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        body = self.body()
        hub.requests.append((self.command, path, body))
        hub.authorizations.add(self.headers.get("authorization") or "")
        hub.on_request(self.command, path)
        for part, action in hub.fails_at.items():
            if part in path:
                if action >= 100:
                    return self.refuse(action, "planted failure")
                self.close_connection = True
                return self.connection.close()
        for pattern, handle in _ROUTES:
            if match := re.fullmatch(pattern, path):
                return handle(self, body, *match.groups())
        return self.refuse(404, f"no such page: {path}")

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = handle_any

    # Who asks

    @property
    def token(self) -> str | None:
        return (self.headers.get("authorization") or "").removeprefix("Bearer ") or None

    def may_write(self, repo_id: str) -> bool:
        if self.token not in (TOKEN, READ_TOKEN):
            self.refuse(401, "Invalid credentials in Authorization header" if self.token else "Unauthorized")
        elif self.token == READ_TOKEN or not repo_id.startswith("me/"):
            self.refuse(403, "You don't have the rights to write here")
        else:
            return True
        return False

    def repo(self, repo_id: str) -> Repo | None:
        if self.token not in (None, TOKEN, READ_TOKEN):
            return self.refuse(401, "Invalid credentials in Authorization header")
        repo = self.hub.repos.get(repo_id)
        if repo is None or (repo.private and self.token is None):
            return self.refuse(404 if self.token else 401, "Repository not found", "RepoNotFound")
        return repo

    # Pages

    def whoami(self, _: bytes) -> None:
        if self.token not in (TOKEN, READ_TOKEN):
            return self.refuse(401, "Invalid credentials in Authorization header")
        return self.answer(200, {"type": "user", "name": "me", "orgs": [], "auth": {"type": "access_token"}})

    def validate_yaml(self, body: bytes) -> None:
        problems = card_problems(json.loads(body)["content"])
        self.answer(400 if problems else 200, {"errors": [{"message": text} for text in problems], "warnings": []})

    def create(self, body: bytes) -> None:
        given = json.loads(body)
        repo_id = f"{given.get('organization') or 'me'}/{given['name']}"
        if not self.may_write(repo_id):
            return None
        url = f"{self.hub.endpoint}/{repo_id}"
        if repo_id in self.hub.repos:
            return self.answer(409, {"error": "You already created this model repo", "url": url})
        self.hub.put(repo_id, {}, private=given.get("private") is True or given.get("visibility") == "private")
        return self.answer(200, {"url": url, "name": repo_id, "id": repo_id})

    def preupload(self, body: bytes, repo_id: str, revision: str) -> None:
        if not self.may_write(repo_id) or (repo := self.repo(repo_id)) is None:
            return None
        there = (repo.at(revision) or ("", "", {}))[2]
        files = []
        for file in json.loads(body)["files"]:
            name = file["path"]
            lfs = name.endswith(LFS) or file["size"] > 10_000_000
            oid = _oid(there[name], lfs) if name in there else None
            files.append({"path": name, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False, "oid": oid})
        return self.answer(200, {"files": files})

    def lfs_batch(self, body: bytes, repo_id: str) -> None:
        if not self.may_write(repo_id):
            return None
        objects = []
        for wanted in json.loads(body)["objects"]:
            oid = wanted["oid"]
            actions = {
                "upload": {"href": f"{self.hub.endpoint}/lfs/{oid}", "header": {}},
                "verify": {"href": f"{self.hub.endpoint}/lfs-verify/{oid}", "header": {}},
            }
            objects.append(
                {"oid": oid, "size": wanted["size"], "authenticated": True}
                | ({} if oid in self.hub.objects else {"actions": actions})
            )
        return self.answer(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self.refuse(400, "the content does not have this hash")
        self.hub.objects[oid] = body
        return self.answer(200)

    def lfs_verify(self, _: bytes, oid: str) -> None:
        self.answer(200 if oid in self.hub.objects else 404, {})

    def branch(self, _: bytes, repo_id: str, name: str) -> None:
        if not self.may_write(repo_id) or (repo := self.repo(repo_id)) is None:
            return None
        if name in repo.branches:
            return self.refuse(409, "Reference already exists")
        repo.branches[name] = repo.branches["main"]
        return self.answer(200, {})

    def commit(self, body: bytes, repo_id: str, revision: str) -> None:
        pull = "create_pr=1" in self.path
        if not self.may_write(repo_id if not pull else "me/") or (repo := self.repo(repo_id)) is None:
            return None
        at = repo.at(revision)
        if at is None:
            return self.refuse(404, "Revision not found", "RevisionNotFound")
        files, lines = dict(at[2]), [json.loads(line) for line in body.splitlines()]
        header = lines.pop(0)["value"]
        if (parent := header.get("parentCommit")) and not at[0].startswith(parent):
            return self.refuse(412, "A commit has happened since. Please refresh and try again.")
        for line in lines:
            kind, value = line["key"], line["value"]
            if kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    return self.refuse(400, "LFS pointer pointed to a file that does not exist")
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif kind == "deletedFile":
                del files[value["path"]]
        if pull:
            oid = hashlib.sha1(body).hexdigest()
            repo.pulls.append((oid, header["summary"], files))
        else:
            oid = repo.add(revision, header["summary"], files)
        answer = {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.endpoint}/{repo_id}/commit/{oid}"}
        if pull:
            answer["pullRequestUrl"] = f"{self.hub.endpoint}/{repo_id}/discussions/{len(repo.pulls)}"
        return self.answer(200, answer)

    def info(self, _: bytes, repo_id: str, revision: str | None = None) -> None:
        if (repo := self.repo(repo_id)) is None:
            return None
        at = repo.at(revision or "main")
        if at is None:
            return self.refuse(404, "Invalid rev id", "RevisionNotFound")
        date = "2026-01-01T00:00:00.000Z"
        return self.answer(200, {
            "_id": "1", "id": repo_id, "modelId": repo_id, "sha": at[0], "private": repo.private, "tags": [],
            "downloads": 0, "likes": 0, "siblings": [{"rfilename": name} for name in at[2]],
            "createdAt": date, "lastModified": date,
        })  # fmt: skip

    def tree(self, _: bytes, repo_id: str, revision: str, folder: str | None = None) -> None:
        if (repo := self.repo(repo_id)) is None:
            return None
        at = repo.at(revision)
        if at is None:
            return self.refuse(404, "Invalid rev id", "RevisionNotFound")
        files = {name: data for name, data in at[2].items() if name.startswith((folder or "").lstrip("/"))}
        return self.answer(
            200,
            [{"type": "file", "oid": _oid(data), "size": len(data), "path": name} for name, data in files.items()],
        )

    def refs(self, _: bytes, repo_id: str) -> None:
        if (repo := self.repo(repo_id)) is None:
            return None
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": repo.commits[index][0]}
            for name, index in repo.branches.items()
        ]
        return self.answer(200, {"branches": branches, "converts": [], "tags": []})

    def resolve(self, _: bytes, repo_id: str, revision: str, name: str) -> None:
        if (repo := self.repo(repo_id)) is None:
            return None
        at = repo.at(revision)
        if at is None:
            return self.refuse(404, "Invalid rev id", "RevisionNotFound")
        if name not in at[2]:
            return self.answer(404, {}, X_Error_Code="EntryNotFound", X_Repo_Commit=at[0])
        data = at[2][name]
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(part[1]), min(int(part[2] or len(data)), len(data) - 1)
            found = f"bytes {first}-{last}/{len(data)}"
            return self.answer(206, raw=data[first : last + 1], X_Repo_Commit=at[0], ETag=etag, Content_Range=found)
        return self.answer(200, raw=data, X_Repo_Commit=at[0], ETag=etag, Accept_Ranges="bytes")


_NAME = r"([^/]+/[^/]+)"
_ROUTES = [
    ("/api/whoami-v2", _Handler.whoami),
    ("/api/validate-yaml", _Handler.validate_yaml),
    ("/api/repos/create", _Handler.create),
    (f"/api/models/{_NAME}/preupload/([^/]+)", _Handler.preupload),
    (f"/{_NAME}.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("/lfs/(.+)", _Handler.lfs_put),
    ("/lfs-verify/(.+)", _Handler.lfs_verify),
    (f"/api/models/{_NAME}/branch/([^/]+)", _Handler.branch),
    (f"/api/models/{_NAME}/commit/([^/]+)", _Handler.commit),
    (f"/api/models/{_NAME}/tree/([^/]+)(/.*)?", _Handler.tree),
    (f"/api/models/{_NAME}/refs", _Handler.refs),
    (f"/api/models/{_NAME}/revision/([^/]+)", _Handler.info),
    (f"/api/models/{_NAME}", _Handler.info),
    (f"/{_NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
    (f"/api/datasets/{_NAME}", _Handler.info),
    (f"/api/datasets/{_NAME}/revision/([^/]+)", _Handler.info),
    (f"/api/datasets/{_NAME}/tree/([^/]+)(/.*)?", _Handler.tree),
    (f"/datasets/{_NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
]


def _oid(data: bytes, lfs: bool = False) -> str:
    """As git names a content; content in LFS by its SHA-256."""
    if lfs:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def card_problems(text: str) -> list[str]:
    """What the Hub would refuse in a card's metadata, after its documentation of model cards."""
    match = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", text, re.DOTALL)
    if match is None:
        return []  # the Hub warns of it
    try:
        data = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"not YAML: {error}"]
    if not isinstance(data, dict):
        return ["the metadata must be a mapping"]
    problems = []
    for key in ("language", "tags", "datasets", "metrics", "base_model"):
        values = data.get(key, [])
        values = [values] if isinstance(values, str) else values
        if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
            problems.append(f'"{key}" must be a string or a list of strings')
        elif key == "language" and any(not re.fullmatch("[a-z]{2,3}|multilingual", value) for value in values):
            problems.append('"language" must only contain ISO 639 codes or "multilingual"')
        elif key in ("datasets", "base_model"):
            problems += [f'"{key}": {v!r} is no id' for v in values if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", v)]
    for key in ("license", "library_name", "pipeline_tag"):
        if key in data and not (isinstance(data[key], str) and re.fullmatch("[a-z0-9._-]+", data[key])):
            problems.append(f'"{key}" must be an id')
    if str(data.get("license", "other")) not in LICENSES:
        problems.append(f'"license" must be one of {", ".join(sorted(LICENSES))}')
    if "model-index" in data:
        try:
            _, results = model_index_to_eval_results(data["model-index"])
            if not all(isinstance(result.metric_value, float | int) for result in results):
                problems.append('"model-index": values must be numbers')
        except (KeyError, TypeError, ValueError) as error:
            problems.append(f'"model-index": {error!r}')
    return problems
