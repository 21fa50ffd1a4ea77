"""Between a server and its store: what comes of one object is dealt with as a test says."""

import http.client
import http.server
import threading

from server import HANG

# Of HTTP's own, for the connection to the one side or to the other.
HOPS = {"connection", "keep-alive", "transfer-encoding"}


class Relay:
    """Takes the store's address, and hands everything on but the object's content while there is a fault."""

    def __init__(self, store, path):
        self.fault = None
        self.stalled = threading.Event()
        self.opened = threading.Event()
        behind, relay = store.address, self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self):
                try:
                    super().handle_one_request()
                except OSError:
                    # Who asked is no longer there.
                    self.close_connection = True

            def do_GET(self):
                connection = http.client.HTTPConnection(behind, timeout=HANG)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                # It is signed as the relay's, and that is what the store is to see.
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                content = answer.read()
                connection.close()
                headers = {name: value for name, value in answer.getheaders() if name.lower() not in HOPS}
                headers.setdefault("Content-Length", str(len(content)))
                meant = self.command == "GET" and self.path.split("?")[0].endswith(path)
                deal = relay.fault if meant and relay.fault else relay.hand_on
                deal(self, answer.status, headers, content)

            do_HEAD = do_PUT = do_PROPFIND = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        store.address = "127.0.0.1:%d" % self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def begin(self, to, status, headers):
        to.send_response_only(status)
        for name, value in headers.items():
            to.send_header(name, value)
        to.end_headers()

    def hand_on(self, to, status, headers, content):
        self.begin(to, status, headers)
        if to.command != "HEAD":
            to.wfile.write(content)

    def stall(self, to, status, headers, content):
        """Half of it comes, and the rest when it is opened."""
        self.begin(to, status, headers)
        half = len(content) // 2
        to.wfile.write(content[:half])
        to.wfile.flush()
        self.stalled.set()
        self.opened.wait(HANG)
        to.wfile.write(content[half:])

    def hang_up(self, to, status, headers, content):
        """Half of it comes, and then the connection ends."""
        self.begin(to, status, headers)
        to.wfile.write(content[:len(content) // 2])
        to.close_connection = True

    def cut_short(self, to, status, headers, content):
        """It has a byte less than was listed, and says so."""
        self.begin(to, status, {**headers, "Content-Length": str(len(content) - 1)})
        to.wfile.write(content[:-1])

    def make_up(self, to, status, headers, content):
        """It has the length that was listed, and is something else."""
        self.begin(to, status, headers)
        page = b"<html>Please log in.</html>"
        to.wfile.write(page.ljust(len(content))[:len(content)])
