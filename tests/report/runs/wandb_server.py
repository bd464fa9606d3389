"""A stand-in for W&B's server: as much of its GraphQL as reading the runs of one project takes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

PAGE = 2  # runs, so that a few of them take several


@contextmanager
def served(project: str, runs: list[dict[str, Any]]) -> Iterator[str]:
    """Serve the runs (each with name, config and summary) under `team/<project>`; gives the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != "/graphql":  # how W&B counts its users
                self.send_error(404)
                return
            question = json.loads(body)
            content = json.dumps({"data": answer(question, project, runs)}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answer(question: dict[str, Any], project: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What W&B answers to one question."""
    variables = question.get("variables") or {}
    if "Runs(" not in question["query"]:
        return {
            "viewer": {"id": "1", "username": "me", "entity": "team", "flags": "{}", "teams": {"edges": []}}
        }
    if (variables["entity"], variables["project"]) != ("team", project):
        return {"project": None}
    start = int(variables.get("cursor") or 0)
    page = [(number, _node(run)) for number, run in enumerate(runs)][start : start + PAGE]
    edges = [{"node": node, "cursor": str(number + 1)} for number, node in page]
    last = {"endCursor": str(start + len(page)), "hasNextPage": start + len(page) < len(runs)}
    return {
        "project": {
            "internalId": "1",
            "runCount": len(runs),
            "readOnly": False,
            "runs": {"edges": edges, "pageInfo": last},
        }
    }


def _node(run: dict[str, Any]) -> dict[str, Any]:
    config = {name: {"value": value, "desc": None} for name, value in run["config"].items()}
    return {
        "id": run["name"],
        "name": run["name"],
        "displayName": run["name"],
        "projectId": "1",
        "tags": [],
        "sweepName": None,
        "state": "finished",
        "group": None,
        "jobType": "train",
        "commit": None,
        "readOnly": False,
        "createdAt": "2026-01-01T00:00:00Z",
        "heartbeatAt": "2026-01-01T00:00:00Z",
        "description": "",
        "notes": "",
        "historyLineCount": 0,
        "user": {"name": "me", "username": "me"},
        "config": json.dumps(config),
        "systemMetrics": "{}",
        "summaryMetrics": json.dumps(run["summary"]),
        "historyKeys": None,
    }
