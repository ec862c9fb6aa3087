"""An admission webhook that refuses what it is asked about; runs in a pod, with nothing but the standard library."""

import json
import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        refusal = {"uid": review["request"]["uid"], "allowed": False, "status": {"message": "models need a ticket"}}
        body = json.dumps({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": refusal}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("", 8443), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("/server/tls.crt", "/server/tls.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()
