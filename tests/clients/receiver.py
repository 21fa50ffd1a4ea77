"""A receiver of OTLP over HTTP, which has spans as the OpenTelemetry collector's file exporter writes them."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

IDS = ("traceId", "spanId", "parentSpanId")


class Receiver:
    """Takes traces from start until it is left; `lines` has one for each message."""

    def __init__(self):
        self.lines = lines = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                message = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces":
                    lines.append(as_json(ExportTraceServiceRequest.FromString(message)))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()


def as_json(message):
    """OTLP's JSON: as Protobuf's, but ids are hexadecimal."""
    told = MessageToDict(message, use_integers_for_enums=True)
    with_hexadecimal_ids(told)
    return json.dumps(told)


def with_hexadecimal_ids(told):
    for key, value in list(told.items()) if isinstance(told, dict) else enumerate(told):
        if key in IDS:
            told[key] = base64.b64decode(value).hex()
        elif isinstance(value, (dict, list)):
            with_hexadecimal_ids(value)
