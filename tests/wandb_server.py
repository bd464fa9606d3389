"""A stand-in for W&B's server: what wandb 0.31 sends it, it keeps, and gives back when it is asked."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

KEY = "local" + "0" * 40
ENTITY = "team"


@dataclass
class Kept:
    """A run, as W&B has it."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)
    complete: bool = False


@dataclass
class Version:
    """A version of an artifact."""

    name: str
    digest: str
    run: str
    state: str = "PENDING"
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class StandIn:
    """The server's memory."""

    url: str = ""
    key: str = KEY
    page: int = 200
    """Runs that it gives at once."""
    dies_after: int | None = None
    """Requests, after which it answers no more."""
    refused: set[str] = field(default_factory=set)
    """Runs that it does not take, and operations of GraphQL."""
    runs: dict[tuple[str, str], Kept] = field(default_factory=dict)
    """By project and name."""
    artifacts: list[Version] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """Operations of GraphQL by name, and `stream` and `upload`."""
    unknown: list[str] = field(default_factory=list)
    """Operations that it cannot answer."""

    def add(self, project: str, run: dict[str, Any]) -> None:
        """Let it have a run with this name, config and summary."""
        self.runs[project, run["name"]] = Kept(run["name"], run["config"], run["summary"], complete=True)

    def changes(self) -> list[str]:
        """The requests that change something."""
        return [name for name in self.requests if name in MUTATIONS]

    def forget(self) -> None:
        """Go back to where it began, but for its address."""
        fresh = StandIn(self.url)
        vars(self).update(vars(fresh))

    def dead(self) -> bool:
        """Whether it answers no more."""
        return self.dies_after is not None and len(self.requests) >= self.dies_after

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """What it says to one question of GraphQL."""
        match = re.search(r"(?:query|mutation)\s+(\w+)", question["query"])
        name = match.group(1) if match else question["query"]
        self.requests.append(name)
        if name in self.refused:
            return {"errors": [{"message": f"{name} is refused"}]}
        if name not in OPERATIONS:
            self.unknown.append(name)
            return {"errors": [{"message": f"unknown operation {name}"}]}
        return OPERATIONS[name](self, question.get("variables") or {})

    def stream(self, project: str, run: str, sent: dict[str, Any]) -> None:
        """Take rows and a summary; rows from an offset on, and nothing after them is taken away."""
        self.requests.append("stream")
        kept, files = self.runs[project, run], sent.get("files", {})
        if "wandb-history.jsonl" in files:
            part = files["wandb-history.jsonl"]
            rows = [json.loads(row) for row in part["content"]]
            kept.history[part["offset"] : part["offset"] + len(rows)] = rows
        if "wandb-summary.json" in files:
            kept.summary = json.loads(files["wandb-summary.json"]["content"][-1])
        kept.complete = sent.get("complete", kept.complete)


def _viewer(server: StandIn, variables: dict[str, Any]) -> dict[str, Any]:
    person = {"id": "1", "username": "me", "email": "me@here", "name": "me", "entity": ENTITY, "admin": False}
    teams = {"edges": [{"node": {"id": "2", "name": ENTITY}}]}
    flags = {"flags": "{}", "deletedAt": None, "apiKeys": {"edges": []}}
    return {"data": {"viewer": {**person, **flags, "teams": teams}}}


def _upsert_bucket(server: StandIn, variables: dict[str, Any]) -> dict[str, Any]:
    name, project = variables["name"], variables["project"]
    if name in server.refused:
        return {"errors": [{"message": f"run {name} was previously created and deleted"}]}
    inserted = (project, name) not in server.runs
    kept = server.runs.setdefault((project, name), Kept(name))
    kept.group = variables["groupName"] or kept.group
    kept.job_type = variables["jobType"] or kept.job_type
    kept.tags = variables["tags"] or kept.tags
    if variables["config"]:
        kept.config = {key: part["value"] for key, part in json.loads(variables["config"]).items()}
    bucket = {
        "id": f"{project}/{name}",
        "name": name,
        "displayName": name,
        "description": "",
        "config": variables["config"],
        "sweepName": None,
        "project": {"id": "1", "name": project, "entity": {"id": "1", "name": ENTITY}},
        "historyLineCount": len(kept.history),
    }
    return {"data": {"upsertBucket": {"bucket": bucket, "inserted": inserted}}}


def _resume_status(server: StandIn, variables: dict[str, Any]) -> dict[str, Any]:
    name, project = variables["name"], variables["project"]
    kept, bucket = server.runs.get((project, name)), None
    if kept is not None:
        config = {key: {"value": value} for key, value in kept.config.items()}
        bucket = {
            "id": f"{project}/{name}",
            "name": name,
            "summaryMetrics": json.dumps(kept.summary),
            "displayName": name,
            "logLineCount": 0,
            "historyLineCount": len(kept.history),
            "eventsLineCount": 0,
            "historyTail": json.dumps([json.dumps(row) for row in kept.history[-1:]]),
            "eventsTail": "[]",
            "config": json.dumps(config),
            "tags": kept.tags,
            "notes": None,
            "wandbConfig": json.dumps({"t": 1}),
        }
    entity = {"id": "1", "name": ENTITY}
    return {"data": {"model": {"id": "1", "name": project, "entity": entity, "bucket": bucket}}}


def _runs(server: StandIn, variables: dict[str, Any]) -> dict[str, Any]:
    project = variables["project"]
    there = [kept for of, kept in server.runs.items() if of[0] == project]
    if variables["entity"] != ENTITY or not there:
        return {"data": {"project": None}}
    found = [kept for kept in there if _fits(kept, json.loads(variables.get("filters") or "{}"))]
    start, size = int(variables.get("cursor") or 0), min(server.page, variables["perPage"])
    edges = [
        {"node": _node(kept), "cursor": str(number + 1)}
        for number, kept in list(enumerate(found))[start : start + size]
    ]
    last = {"endCursor": str(start + len(edges)), "hasNextPage": start + len(edges) < len(found)}
    runs = {"edges": edges, "pageInfo": last}
    return {"data": {"project": {"internalId": "1", "runCount": len(found), "readOnly": False, "runs": runs}}}


def _fits(kept: Kept, filters: dict[str, Any]) -> bool:
    """W&B's filters are those of MongoDB, of which this knows `$in` in the summary."""
    return all(
        kept.summary.get(path.removeprefix("summary_metrics.")) in condition["$in"]
        for path, condition in filters.items()
    )


def _node(kept: Kept) -> dict[str, Any]:
    config = {name: {"value": value, "desc": None} for name, value in kept.config.items()}
    return {
        "id": kept.name,
        "name": kept.name,
        "displayName": kept.name,
        "projectId": "1",
        "tags": kept.tags,
        "sweepName": None,
        "state": "finished" if kept.complete else "running",
        "group": kept.group,
        "jobType": kept.job_type,
        "commit": None,
        "readOnly": False,
        "createdAt": "2026-01-01T00:00:00Z",
        "heartbeatAt": "2026-01-01T00:00:00Z",
        "description": "",
        "notes": "",
        "historyLineCount": len(kept.history),
        "user": {"name": "me", "username": "me"},
        "config": json.dumps(config),
        "systemMetrics": "{}",
        "summaryMetrics": json.dumps(kept.summary),
        "historyKeys": None,
    }


def _artifact_type(server: StandIn, variables: dict[str, Any]) -> dict[str, Any]:
    name = variables["name"].partition(":")[0]
    found = any(version.name == name for version in server.artifacts)
    return {"data": {"project": {"artifact": {"artifactType": {"name": "run"}} if found else None}}}


def _create_artifact(server: StandIn, variables: dict[str, Any]) -> dict[str, Any]:
    asked = variables["input"]
    name, digest = asked["artifactCollectionName"], asked["digest"]
    same = [number for number, one in enumerate(server.artifacts) if (one.name, one.digest) == (name, digest)]
    if not same:
        same = [len(server.artifacts)]
        server.artifacts.append(Version(name, digest, asked["runName"]))
    version = server.artifacts[same[-1]]
    sequence = {"id": name, "latestArtifact": None}
    artifact = {"id": str(same[-1]), "state": version.state, "artifactSequence": sequence}
    return {"data": {"createArtifact": {"artifact": artifact}}}


def _create_manifest(server: StandIn, variables: dict[str, Any]) -> dict[str, Any]:
    number = variables["artifactID"]
    file = {"id": "1", "uploadUrl": f"{server.url}/upload/{number}/manifest", "uploadHeaders": []}
    return {"data": {"createArtifactManifest": {"artifactManifest": {"id": number, "file": file}}}}


def _create_files(server: StandIn, variables: dict[str, Any]) -> dict[str, Any]:
    nodes = [
        {
            "storagePath": file["name"],
            "uploadUrl": f"{server.url}/upload/{file['artifactID']}/{file['name']}",
            "uploadHeaders": [],
            "uploadMultipartUrls": None,
            "artifact": {"id": file["artifactID"]},
        }
        for file in variables["input"]["artifactFiles"]
    ]
    return {"data": {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}}


def _commit(server: StandIn, variables: dict[str, Any]) -> dict[str, Any]:
    version = server.artifacts[int(variables["artifactID"])]
    version.state = "COMMITTED"
    artifact = {"id": variables["artifactID"], "digest": version.digest}
    return {"data": {"commitArtifact": {"artifact": artifact}}}


def _artifact(server: StandIn, variables: dict[str, Any]) -> dict[str, Any]:
    version = server.artifacts[int(variables["id"])]
    project = {"id": "1", "internalId": "1", "name": "project", "entity": {"name": ENTITY}}
    sequence = {"__typename": "ArtifactSequence", "name": version.name, "project": project}
    nothing = dict.fromkeys(("description", "metadata", "historyStep", "commitHash", "updatedAt"))
    artifact = {
        "__typename": "Artifact",
        "id": variables["id"],
        "artifactSequence": sequence,
        "versionIndex": 0,
        "artifactType": {"name": "run"},
        "ttlDurationSeconds": -2,
        "ttlIsInherited": True,
        "tags": [],
        "state": version.state,
        "size": sum(map(len, version.files.values())),
        "digest": version.digest,
        "fileCount": len(version.files),
        "createdAt": "2026-01-01T00:00:00Z",
        "aliases": [],
        **nothing,
    }
    return {"data": {"artifact": artifact}}


def _run_files(server: StandIn, variables: dict[str, Any]) -> dict[str, Any]:
    files = [{"name": name, "uploadUrl": f"{server.url}/upload/run/{name}"} for name in variables["files"]]
    return {"data": {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}}


OPERATIONS: dict[str, Callable[[StandIn, dict[str, Any]], dict[str, Any]]] = {
    "Viewer": _viewer,
    "GetViewer": _viewer,
    "GetDefaultEntity": _viewer,
    "ServerFeaturesQuery": lambda server, variables: {"data": {"serverInfo": {"features": []}}},
    "RunResumeStatus": _resume_status,
    "UpsertBucket": _upsert_bucket,
    "Runs": _runs,
    "ArtifactType": _artifact_type,
    "CreateArtifact": _create_artifact,
    "CreateArtifactManifest": _create_manifest,
    "CreateArtifactFiles": _create_files,
    "CommitArtifact": _commit,
    "ArtifactByID": _artifact,
    "CreateRunFiles": _run_files,
}
READING = {
    "Viewer",
    "GetViewer",
    "GetDefaultEntity",
    "ServerFeaturesQuery",
    "Runs",
    "ArtifactType",
    "ArtifactByID",
}
MUTATIONS = (OPERATIONS.keys() - READING) | {"stream", "upload"}


@contextmanager
def served() -> Iterator[StandIn]:
    """Serve until the end of the block."""
    server, lock = StandIn(), Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            with lock:
                self._reply(self._post)

        def do_PUT(self) -> None:
            with lock:
                self._reply(self._put)

        def _reply(self, take: Callable[[bytes], tuple[int, dict[str, Any]]]) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if server.dead():
                self.close_connection = True
                return
            code, content = take(body)
            answer = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def _post(self, body: bytes) -> tuple[int, dict[str, Any]]:
            stream = re.fullmatch(r"/files/[^/]+/([^/]+)/([^/]+)/file_stream", self.path)
            if self.path != "/graphql" and stream is None:  # how W&B counts its users
                return 404, {}
            key = base64.b64encode(f"api:{server.key}".encode()).decode()
            if self.headers["Authorization"] != f"Basic {key}":
                return 401, {"errors": [{"message": "user is not logged in"}]}
            if stream is None:
                return 200, server.answer(json.loads(body))
            server.stream(stream[1], stream[2], json.loads(body))
            return 200, {}

        def _put(self, body: bytes) -> tuple[int, dict[str, Any]]:
            server.requests.append("upload")
            _, _, number, name = self.path.split("/", 3)
            if number != "run":
                server.artifacts[int(number)].files[name] = body
            return 200, {}

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Of a connection that the other side has let go, say nothing."""

    http = Server(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = Thread(target=http.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
