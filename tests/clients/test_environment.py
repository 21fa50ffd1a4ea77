"""The variables that OpenTelemetry's programs share: the one endpoint is enough to be told of requests."""

import pytest
import tritonclient.grpc as triton

from pki import asked
from receiver import Receiver
from server import Server


def environment(receiver, **more):
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "JITNEY_TRACE_RATIO": "1", **more}


def told(server, receiver):
    """What has been told of one request, when the server has ended and sent what it had."""
    with server.client() as client:
        asked(triton, client)
    assert server.stop() == 0
    return "".join(receiver.lines)


def test_the_endpoint_alone_turns_traces_on(echo):
    with Receiver() as receiver, Server(echo, environment=environment(
            receiver, OTEL_SERVICE_NAME="mine")) as server:
        spans = told(server, receiver)
        assert "infer echo" in spans and '"stringValue": "mine"' in spans


@pytest.mark.parametrize("flagged", [False, True])
def test_it_is_off_where_every_program_is_to_be_quiet_unless_it_is_told(echo, flagged):
    with Receiver() as receiver:
        flags = ["--otlp-endpoint", receiver.endpoint] if flagged else []
        with Server(echo, *flags, environment=environment(
                receiver, OTEL_SDK_DISABLED="true")) as server:
            assert ("infer echo" in told(server, receiver)) == flagged
