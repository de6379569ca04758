"""The Open Inference Protocol over gRPC, asked with Triton's own client, which brings its own messages of the same names."""

import asyncio
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import headstart
from headstart import apikeys
from headstart.errors import Draining, InputError, ModelError, Overloaded, TooLate

pytest.importorskip("fastapi")
grpc = pytest.importorskip("grpc")
triton = pytest.importorskip("tritonclient.grpc")
InferenceServerException = pytest.importorskip("tritonclient.utils").InferenceServerException
clientserver = pytest.importorskip("clientserver")
rpc = pytest.importorskip("headstart.server.rpc")
theirs = pytest.importorskip("tritonclient.grpc.service_pb2")

TEXTS = clientserver.TEXTS


class Live:
    """A gRPC server in an event loop of its own thread, for as long as `with` lasts."""

    def __init__(self, service):
        self.service, self.loop = service, asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def wait(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def __enter__(self):
        self.thread.start()
        self.server = self.wait(rpc.start(self.service, "127.0.0.1", 0))
        return f"127.0.0.1:{self.server.port}"

    def __exit__(self, *_):
        self.wait(self.server.stop(1))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@pytest.fixture(scope="module")
def service():
    made = clientserver.serve(clientserver.project())
    yield made
    made.engine.close(5)


@pytest.fixture(scope="module")
def where(service):
    with Live(service) as found:
        yield found


@pytest.fixture(scope="module")
def client(where):
    made = triton.InferenceServerClient(where)
    yield made
    made.close()


@pytest.fixture(scope="module")
def channel(where):
    with grpc.insecure_channel(where) as made:
        yield made


def call(channel, name, request, **more):
    """One method by its name, with Triton's own messages."""
    return channel.unary_unary(
        f"/inference.GRPCInferenceService/{name}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=getattr(theirs, f"{name}Response").FromString,
    )(request, timeout=more.pop("timeout", 10), **more)


def tensor(items, name="text", shape=None):
    raw = [one if isinstance(one, bytes) else one.encode() for one in items]
    made = triton.InferInput(name, shape or [len(items)], "BYTES")
    made.set_data_from_numpy(np.array(raw, np.object_).reshape(shape or [len(items)]))
    return made


def asked(items=TEXTS, model="topics", shape=None, datatype="BYTES", name="text", version=""):
    made = theirs.ModelInferRequest(model_name=model, model_version=version, id="7")
    one = made.inputs.add(name=name, datatype=datatype, shape=shape or [len(items)])
    one.contents.bytes_contents.extend(text.encode() for text in items)
    return made


def test_the_messages_are_those_that_are_published():
    """Field by field as Triton's, which are a superset; the properties of a model are of the protocol's own file."""

    def fields(message):
        return {
            one.name: (one.number, one.type, one.is_repeated, one.message_type and one.message_type.full_name)
            for one in message.DESCRIPTOR.fields
        }

    for name, ours in rpc.CLASSES.items():
        other = theirs
        for part in name.split("."):
            other = getattr(other, part)
        found = fields(ours)
        found.pop("properties", None)
        assert found == fields(other), name
        assert ours is not other


def test_a_server_that_lives(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    said = client.get_server_metadata(as_json=True)
    assert said == {"name": "headstart", "version": headstart.__version__, "extensions": ["binary_tensor_data"]}


def test_models_say_what_they_read_and_give(client, channel):
    assert client.is_model_ready("topics")
    assert client.is_model_ready("topics", "1")
    said = client.get_model_metadata("topics", "1")
    assert (said.name, list(said.versions), said.platform) == ("topics", ["1"], "headstart")
    assert [(one.name, one.datatype, list(one.shape)) for one in said.inputs] == [("text", "BYTES", [-1])]
    assert {one.name: list(one.shape) for one in said.outputs}["probabilities"] == [-1, 3]
    raw = theirs.ModelMetadataRequest(name="topics").SerializeToString()
    ours = channel.unary_unary("/inference.GRPCInferenceService/ModelMetadata")(raw, timeout=10)
    assert rpc.CLASSES["ModelMetadataResponse"].FromString(ours).properties["task"] == "classification"


@pytest.mark.parametrize("shape", [[len(TEXTS)], [len(TEXTS), 1]])
def test_an_answer_is_the_engines(client, service, shape):
    found = client.infer("topics", [tensor(TEXTS, shape=shape)], request_id="abc")
    direct = service.engine.ask(rpc.openinference.Question(TEXTS, ("topics",), time.monotonic() + 5)).said[0]
    np.testing.assert_allclose(found.as_numpy("probabilities"), direct.answers.P, atol=1e-6)
    labels = [direct.served.labels[best] for best in direct.answers.P.argmax(1)]
    assert [one.decode() for one in found.as_numpy("label")] == labels
    assert found.as_numpy("unknown").dtype == np.bool_
    assert len(set(found.as_numpy("id").tolist())) == len(TEXTS)
    whole = found.get_response()
    assert (whole.id, whole.model_name, whole.model_version) == ("abc", "topics", "1")
    assert whole.parameters["digest"].string_param == direct.served.digest
    assert client.infer("size", [tensor(TEXTS)]).as_numpy("value").shape == (len(TEXTS),)
    assert client.infer("tags", [tensor(TEXTS)]).as_numpy("chosen").shape[0] == len(TEXTS)
    red = client.infer("colours", [tensor([clientserver.plain((200, 30, 30))], "image")])
    assert red.as_numpy("label")[0] == b"red"


def test_only_the_outputs_asked_for_come(client):
    wanted = [triton.InferRequestedOutput(name) for name in ("probability", "label")]
    found = client.infer("topics", [tensor(TEXTS)], outputs=wanted)
    assert [one.name for one in found.get_response().outputs] == ["probability", "label"]


def test_contents_that_are_not_raw(channel, client):
    raw = client.infer("topics", [tensor(TEXTS)]).as_numpy("probabilities")
    found = call(channel, "ModelInfer", asked())
    place = [one.name for one in found.outputs].index("probabilities")
    np.testing.assert_allclose(np.frombuffer(found.raw_output_contents[place], "<f4").reshape(-1, 3), raw, atol=1e-6)


def both():
    made = asked()
    made.raw_input_contents.append(b"")
    return made


def raw(*contents, n=1):
    made = theirs.ModelInferRequest(model_name="topics")
    made.inputs.add(name="text", datatype="BYTES", shape=[n])
    made.raw_input_contents.extend(contents)
    return made


def outputs(*names):
    made = asked()
    for name in names:
        made.outputs.add(name=name)
    return made


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (asked(model="topix"), "NOT_FOUND", "Did you mean 'topics'"),
        (asked(version="9"), "NOT_FOUND", "not served in version '9'"),
        (asked(shape=[-1]), "INVALID_ARGUMENT", "from 0 on"),
        (asked(shape=[2**62]), "INVALID_ARGUMENT", "at most 1,024"),
        (asked(shape=[3]), "INVALID_ARGUMENT", "3 elements, its bytes_contents 4"),
        (asked([]), "INVALID_ARGUMENT", "empty"),
        (asked(datatype="FP16"), "INVALID_ARGUMENT", "has datatype FP16"),
        (asked(datatype=""), "INVALID_ARGUMENT", "no known datatype"),
        (asked(name="a" * 100_000), "INVALID_ARGUMENT", "a name of 100,000 characters"),
        (asked(name="words"), "INVALID_ARGUMENT", "reads one input, 'text'"),
        (theirs.ModelInferRequest(model_name="topics"), "INVALID_ARGUMENT", "the request has none"),
        (both(), "INVALID_ARGUMENT", "both"),
        (raw(b"", b""), "INVALID_ARGUMENT", "2 raw_input_contents came for 1 inputs"),
        (raw(b"\xff\xff\xff\xff"), "INVALID_ARGUMENT", "only 0 are left"),
        (raw(b"\1\0\0\0ab"), "INVALID_ARGUMENT", "follow its last element"),
        (raw(b"\1\0\0\0\xff"), "INVALID_ARGUMENT", "not UTF-8"),
        (outputs("lable"), "INVALID_ARGUMENT", "Did you mean 'label'"),
        (outputs("label", "label"), "INVALID_ARGUMENT", "same name"),
    ],
)
def test_what_is_refused_is_said_in_words(channel, request_, code, words):
    """C21."""
    with pytest.raises(grpc.RpcError) as found:
        call(channel, "ModelInfer", request_)
    assert found.value.code().name == code
    assert words in found.value.details()


def test_bytes_that_are_no_message(channel):
    method = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    with pytest.raises(grpc.RpcError) as found:
        method(b"\xff\xff\xff\xff", timeout=10)
    assert found.value.code().name == "INVALID_ARGUMENT"
    with pytest.raises(grpc.RpcError) as found:
        channel.unary_unary("/inference.GRPCInferenceService/Nothing")(b"", timeout=10)
    assert found.value.code().name == "UNIMPLEMENTED"
    assert call(channel, "ModelInfer", asked()).model_name == "topics"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (Overloaded("full.", 2.2), "RESOURCE_EXHAUSTED", "full."),
        (Draining("stops."), "UNAVAILABLE", "stops."),
        (TooLate("late."), "DEADLINE_EXCEEDED", "late."),
        (ModelError("broken."), "UNAVAILABLE", "broken."),
        (InputError("no text."), "INVALID_ARGUMENT", "no text."),
        (RuntimeError("secret"), "INTERNAL", "its log says more"),
    ],
)
def test_errors_of_the_engine(channel, service, monkeypatch, error, code, words):
    async def failing(question):
        raise error

    monkeypatch.setattr(service.engine, "answer", failing)
    with pytest.raises(grpc.RpcError) as found:
        call(channel, "ModelInfer", asked())
    assert found.value.code().name == code
    assert words in found.value.details()
    assert "secret" not in found.value.details()
    if code == "RESOURCE_EXHAUSTED":
        assert dict(found.value.trailing_metadata())["retry-after"] == "3"


def test_a_busy_server_reads_nothing(channel, service, monkeypatch):
    monkeypatch.setattr(service.engine, "busy", lambda: 4.0)
    with pytest.raises(grpc.RpcError) as found:
        call(channel, "ModelInfer", asked(shape=[-1]))
    assert found.value.code().name == "RESOURCE_EXHAUSTED"


def test_calls_at_once_are_bounded(service, monkeypatch):
    gate = threading.Event()

    async def slow(question):
        await asyncio.to_thread(gate.wait, 10)
        raise InputError("no.")

    monkeypatch.setattr(service.engine, "answer", slow)
    monkeypatch.setattr(rpc, "MOST", 3)
    with Live(service) as where, grpc.insecure_channel(where) as channel:
        method = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        calls = [method.future(asked().SerializeToString(), timeout=20) for _ in range(8)]
        until = time.monotonic() + 10
        while sum(one.done() for one in calls) < 5 and time.monotonic() < until:
            time.sleep(0.01)
        ended = [one for one in calls if one.done()]
        assert [one.code().name for one in ended] == ["RESOURCE_EXHAUSTED"] * 5
        gate.set()
        assert {one.exception(10).code().name for one in calls if one not in ended} == {"INVALID_ARGUMENT"}


def test_a_base_that_broke_is_not_ready(client, service, monkeypatch):
    def sick():
        raise ModelError("broken.")

    monkeypatch.setattr(service.engine, "ready", sick)
    service.readiness.until = 0.0
    assert not client.is_server_ready()
    service.readiness.until = 0.0
    assert client.is_server_live()


def test_the_calls_own_deadline_holds(channel, service, monkeypatch):
    """C19: the engine is told it, and a call that is over is not worked on."""
    seen, ended = [], threading.Event()

    async def slow(question):
        seen.append((question.deadline - time.monotonic(), question.key))
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ended.set()
            raise

    monkeypatch.setattr(service.engine, "answer", slow)
    with pytest.raises(grpc.RpcError) as found:
        call(channel, "ModelInfer", asked(), timeout=0.3, metadata=[("x-request-key", "u1")])
    assert found.value.code().name == "DEADLINE_EXCEEDED"
    assert 0 < seen[0][0] <= 0.4
    assert seen[0][1] == "u1"
    assert ended.wait(10)


def test_bodies_are_bounded(service, tmp_path):
    """C7: as they come, and unpacked."""
    with Live(clientserver.changed(service, max_body=20_000)) as small, grpc.insecure_channel(small) as channel:
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            with pytest.raises(grpc.RpcError) as found:
                call(channel, "ModelInfer", asked(["a" * 100_000]), compression=compression)
            assert found.value.code().name == "RESOURCE_EXHAUSTED"
        assert call(channel, "ModelInfer", asked(["a" * 10_000]), compression=grpc.Compression.Gzip).id == "7"


def test_keys(service, tmp_path):
    """C11."""
    _, reads = apikeys.create(tmp_path, "reader", ["read"])
    _, asks = apikeys.create(tmp_path, "slow", ["predict"], rate=0.01)
    keyed = clientserver.replace(service, keyring=apikeys.Keyring.of(tmp_path))
    with Live(keyed) as where, grpc.insecure_channel(where) as channel:

        def code(token, name="ModelInfer", request=None):
            metadata = [("authorization", one) for one in ([token] if isinstance(token, str) else token)]
            try:
                call(channel, name, request or asked(), metadata=metadata)
            except grpc.RpcError as error:
                return error.code().name
            return "OK"

        for token in (
            [],
            [f"Bearer {asks}", f"Bearer {asks}"],
            "",
            "Bearer",
            "Bearer hs_wrong",
            f"Basic {asks}",
            asks,
            "Bearer " + "x" * 5000,
        ):
            assert code(token) == "UNAUTHENTICATED"
        assert code(f"Bearer {reads}") == "PERMISSION_DENIED"
        assert code(f"Bearer {reads}", "ModelMetadata", theirs.ModelMetadataRequest(name="topics")) == "OK"
        assert code([], "ServerLive", theirs.ServerLiveRequest()) == "OK"
        assert code([], "ServerMetadata", theirs.ServerMetadataRequest()) == "UNAUTHENTICATED"
        assert code(f"bearer {asks}") == "OK"
        assert code(f"Bearer {asks}") == "RESOURCE_EXHAUSTED"


def test_a_server_that_stops_finishes_what_it_has(service, monkeypatch):
    """G5."""
    begun, real = threading.Event(), service.engine.answer

    async def slow(question):
        begun.set()
        await asyncio.sleep(0.3)
        return await real(question)

    monkeypatch.setattr(service.engine, "answer", slow)
    live = Live(service)
    with live as where, grpc.insecure_channel(where) as channel:
        method = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        running = method.future(asked().SerializeToString(), timeout=20)
        assert begun.wait(10)
        live.wait(live.server.stop(10))
        assert theirs.ModelInferResponse.FromString(running.result(10)).model_name == "topics"
        with pytest.raises(grpc.RpcError) as found:
            method(asked().SerializeToString(), timeout=5)
        assert found.value.code().name == "UNAVAILABLE"


def test_a_port_in_use(service, where):
    async def again():
        with pytest.raises(InputError, match="cannot listen"):
            await rpc.start(service, "127.0.0.1", int(where.rpartition(":")[2]))

    asyncio.run(again())


def test_without_grpc_the_extra_is_named():
    code = (
        "import sys; sys.modules['grpc'] = None\n"
        "from headstart.errors import MissingExtra\n"
        "try: import headstart.server.rpc\n"
        "except MissingExtra as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert said.stdout.strip() == "gRPC needs more packages: pip install 'headstart[grpc]'", said.stderr
