"""Log and trace settings of the running server, over gRPC and over HTTP."""

import pytest

from server import Server
from test_shared_memory import connect, refused

TRACE = {"log_frequency": "0", "trace_count": "-1", "trace_file": "", "trace_level": "OFF",
         "trace_mode": "opentelemetry", "trace_rate": "0"}
LOG = {"log_error": True, "log_file": "", "log_format": "ISO8601", "log_info": True,
       "log_verbose_level": 0, "log_warning": True}


@pytest.fixture(params=["grpc", "http"])
def protocol(request):
    return request.param


def values(said):
    """Settings as plain values, whichever client read them."""
    if isinstance(said, dict):
        return {name: value[0] if isinstance(value, list) else value
                for name, value in said.items()}
    plain = {}
    for name, value in said.settings.items():
        if said.DESCRIPTOR.name == "LogSettingsResponse":
            plain[name] = getattr(value, value.WhichOneof("parameter_choice"))
        else:
            [plain[name]] = value.value
    return plain


def test_what_is_logged_changes_while_the_server_runs(protocol, add, repository):
    add("identity_fp32")
    with Server(repository, "--model-control", "explicit") as server:
        client = connect(protocol, server)
        assert values(client.get_log_settings()) == LOG

        def lines():
            """Loads and unloads, and counts the lines about it."""
            before = len(server.logged())
            client.load_model("identity_fp32")
            client.unload_model("identity_fp32")
            return server.logged()[before:].count("unloaded")

        assert lines() == 1
        said = values(client.update_log_settings({"log_info": False}))
        assert said == {**LOG, "log_info": False} == values(client.get_log_settings())
        assert lines() == 0
        client.update_log_settings({"log_info": True, "log_error": False})
        assert lines() == 1

        def details():
            """The same for lines of more detail."""
            before = len(server.logged())
            client.unregister_system_shared_memory()
            return server.logged()[before:].count("shared memory unregistered")

        assert details() == 0
        client.update_log_settings({"log_verbose_level": 1})
        assert details() == 1
        client.update_log_settings({"log_verbose_level": 0})
        assert details() == 0
        client.close()


def test_what_cannot_be_changed_is_refused_and_nothing_with_it(protocol, server):
    client = connect(protocol, server)
    for settings, word in [
            ({"log_info": False, "log_file": "/tmp/jitney.log"}, "log_file"),
            ({"log_info": False, "log_format": "default"}, "log_format"),
            ({"log_info": False, "log_colour": True}, "log_colour")]:
        refused(lambda: client.update_log_settings(settings), word)
    assert values(client.get_log_settings()) == LOG
    same = client.update_log_settings({"log_file": "", "log_format": "ISO8601"})
    assert values(same) == LOG
    client.close()


def test_an_operator_may_keep_clients_from_changing_it(protocol, add, repository):
    add("identity_fp32")
    with Server(repository, "--log-settings", "false", "--log", "warn") as server:
        client = connect(protocol, server)
        refused(lambda: client.update_log_settings({"log_info": True}), "log_settings is false")
        assert values(client.get_log_settings()) == {**LOG, "log_info": False}
        client.close()


@pytest.mark.parametrize("model", [None, "identity_fp32"])
def test_nothing_is_traced_and_that_is_said(protocol, server, model):
    client = connect(protocol, server)
    assert values(client.get_trace_settings(model_name=model)) == TRACE
    for accepted in [{"trace_level": "OFF"}, {"trace_level": ["OFF"]}, {"trace_rate": None},
                     {"trace_count": "-1"}]:
        said = client.update_trace_settings(model_name=model, settings=accepted)
        assert values(said) == TRACE
    for wrong, word in [({"trace_level": ["TIMESTAMPS"]}, "--otlp-endpoint"),
                        ({"trace_level": ["TENSORS"]}, "TENSORS"),
                        ({"trace_rate": "1"}, "--otlp-endpoint"),
                        ({"trace_mode": "triton"}, "trace_mode"),
                        ({"trace_file": "/tmp/x"}, "trace_file"),
                        ({"trace_depth": "1"}, "trace_depth")]:
        refused(lambda: client.update_trace_settings(model_name=model, settings=wrong), word)
    refused(lambda: client.get_trace_settings(model_name="nowhere"), "nowhere")
    client.close()


def test_what_is_traced_changes_while_the_server_runs(protocol, add, repository):
    add("identity_fp32")
    # Nobody is there, which is no reason to refuse anything.
    with Server(repository, "--otlp-endpoint", "http://127.0.0.1:9") as server:
        client = connect(protocol, server)
        default = {**TRACE, "trace_level": "TIMESTAMPS", "trace_rate": "100"}
        assert values(client.get_trace_settings()) == default
        few = {"trace_rate": "5", "trace_count": "7"}
        said = client.update_trace_settings(model_name="identity_fp32", settings=few)
        assert values(said) == {**default, **few}
        off = values(client.update_trace_settings(settings={"trace_level": ["OFF"]}))
        assert off == {**default, "trace_level": "OFF"}
        same = {**default, **few, "trace_level": "OFF"}
        assert values(client.get_trace_settings(model_name="identity_fp32")) == same
        back = client.update_trace_settings(settings={"trace_level": None})
        assert values(back) == default
        client.close()
