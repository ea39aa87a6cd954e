"""A Kubernetes API server with three kinds and no objects: enough for `kubectl apply --dry-run=client`.

Prints its port on 127.0.0.1.
"""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer

KINDS = {
    "v1": [("namespaces", "Namespace", False), ("serviceaccounts", "ServiceAccount", True)],
    "apps/v1": [("daemonsets", "DaemonSet", True)],
}


def resources(version):
    """The discovery document of one version of the API."""
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": version,
        "resources": [
            {
                "name": name,
                "singularName": name[:-1],
                "namespaced": namespaced,
                "kind": kind,
                "verbs": ["create", "get", "list", "patch"],
            }
            for name, kind, namespaced in KINDS[version]
        ],
    }


APPS = {"groupVersion": "apps/v1", "version": "v1"}
DOCUMENTS = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{"name": "apps", "versions": [APPS], "preferredVersion": APPS}],
    },
    "/api/v1": resources("v1"),
    "/apis/apps/v1": resources("apps/v1"),
}
NOT_FOUND = {
    "kind": "Status",
    "apiVersion": "v1",
    "status": "Failure",
    "reason": "NotFound",
    "code": 404,
}


class Handler(BaseHTTPRequestHandler):
    """Answers discovery; every object is missing."""

    def do_GET(self):
        document = DOCUMENTS.get(self.path.split("?")[0])
        body = json.dumps(document or NOT_FOUND).encode()
        self.send_response(200 if document else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
