"""A metadata server that tells its clients apart by their source address: `by_peer.py ADDRESS:PORT [PEER=NAME ...]`.

It has the instance id `i-NAME`, and a local ECS endpoint's paths, `/creds` and `/role/ROLE`, with the key `AKIA-NAME`.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAMES = dict(argument.split("=") for argument in sys.argv[2:])


class Handler(BaseHTTPRequestHandler):
    """Answers by the peer's address."""

    def do_GET(self) -> None:
        """Answer a read; an unknown peer is called by its address."""
        name = NAMES.get(self.client_address[0], self.client_address[0])
        if self.path == "/latest/meta-data/instance-id":
            self.reply(200, f"i-{name}")
        elif self.path == "/creds" or self.path.startswith("/role/"):
            keys = {"AccessKeyId": f"AKIA-{name}", "SecretAccessKey": "marked", "Token": "marked"}
            self.reply(200, json.dumps({**keys, "Expiration": "2099-01-01T00:00:00Z"}))
        else:
            self.reply(404, "no such path")

    def do_PUT(self) -> None:
        """Refuse a session token, as a server without IMDSv2."""
        self.reply(404, "no such path")

    def reply(self, status: int, body: str) -> None:
        """Send a reply."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


host, _, port = sys.argv[1].rpartition(":")
with ThreadingHTTPServer((host, int(port)), Handler) as server:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve_forever()
