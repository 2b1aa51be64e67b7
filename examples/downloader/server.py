"""A small web server with something to download: ``/1`` to ``/99`` are pages, everything else is not there.

``python server.py [port]`` serves on 127.0.0.1, port 8000 by default; with 0 it takes a free one, and says which.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Pages(BaseHTTPRequestHandler):
    """Numbered pages."""

    def do_GET(self) -> None:
        """Answer with a page, or with 404."""
        number = self.path.strip("/")
        known = number.isdecimal() and 0 < int(number) < 100
        page = f"page {number}\n".encode() * 10 if known else b"no such page\n"
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000), Pages)
    print(f"pages at http://127.0.0.1:{server.server_port}/1 and so on", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
