"""akidb.embedding.v1.EmbeddingService through a client generated from the proto file, with health and reflection."""
import concurrent.futures
import importlib
import sys

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc

from harness import ROOT

PROTO = "akidb/embedding/v1/embedding.proto"
SERVICE = "akidb.embedding.v1.EmbeddingService"


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """(messages, stubs) as a client's build would generate them."""
    out = tmp_path_factory.mktemp("generated")
    assert protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--python_out={out}", f"--grpc_python_out={out}", PROTO]) == 0
    sys.path.insert(0, str(out))
    try:
        module = PROTO[:-len(".proto")].replace("/", ".")
        yield importlib.import_module(module + "_pb2"), importlib.import_module(module + "_pb2_grpc")
    finally:
        sys.path.remove(str(out))


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as opened:
        yield opened


@pytest.fixture
def embed(generated, channel):
    messages, stubs = generated
    stub = stubs.EmbeddingServiceStub(channel)
    return lambda texts, **fields: stub.Embed(messages.EmbedRequest(texts=texts, **fields), timeout=60)


def test_embed(embed, server):
    texts = ["Hello gRPC", "", "日本語 🙂"]
    answer = embed(texts)
    assert len(answer.embeddings) == 3 and answer.dimension == 384
    assert answer.model == "qwen3-0.6b-4bit"
    assert answer.usage.total_tokens == max(3, 10 // 4 + 0 + 14 // 4)
    by_rest = server.post("/api/v1/embed", {"texts": texts}).json()["embeddings"]
    for mine, other in zip(answer.embeddings, by_rest):
        assert np.array_equal(np.array(mine.values, np.float32), np.array(other, np.float32))


def test_optional_fields(embed):
    plain = embed(["optional"])
    assert embed(["optional"], model="x y", pooling="mean", normalize=True).embeddings == plain.embeddings
    assert embed(["optional"], model="x y").model == "x y"
    assert abs(np.linalg.norm(embed(["optional"], normalize=False).embeddings[0].values) - 1) > 1e-3
    assert embed(["optional"], pooling="cls").embeddings != plain.embeddings


@pytest.mark.parametrize("texts, fields, message", [([], {}, "texts cannot be empty"),
                                                    (["x"] * 33, {}, "Maximum 32 texts per request"),
                                                    (["x"], {"pooling": "best"}, "pooling")])
def test_invalid_arguments(embed, texts, fields, message):
    with pytest.raises(grpc.RpcError) as caught:
        embed(texts, **fields)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert message in caught.value.details()


def test_model_info(generated, channel):
    messages, stubs = generated
    info = stubs.EmbeddingServiceStub(channel).GetModelInfo(messages.GetModelInfoRequest(), timeout=60)
    assert info.model == "all-minilm-l6-v2" and info.dimension == 384 and info.max_tokens in (256, 512)


def test_contract_of_the_proto(generated):
    messages, _ = generated
    fields = {
        f"{name}.{field.name}": (field.number, field.type, field.has_presence)
        for name, message in messages.DESCRIPTOR.message_types_by_name.items()
        for field in message.fields
    }
    kinds = {"string": 9, "bool": 8, "message": 11, "uint32": 13, "uint64": 4, "float": 2}
    assert fields == {
        "EmbedRequest.texts": (1, kinds["string"], False), "EmbedRequest.model": (2, kinds["string"], True),
        "EmbedRequest.pooling": (3, kinds["string"], True), "EmbedRequest.normalize": (4, kinds["bool"], True),
        "EmbedResponse.embeddings": (1, kinds["message"], False), "EmbedResponse.model": (2, kinds["string"], False),
        "EmbedResponse.dimension": (3, kinds["uint32"], False), "EmbedResponse.usage": (4, kinds["message"], True),
        "Embedding.values": (1, kinds["float"], False), "UsageInfo.total_tokens": (1, kinds["uint64"], False),
        "UsageInfo.duration_ms": (2, kinds["uint64"], False), "GetModelInfoResponse.model": (1, kinds["string"], False),
        "GetModelInfoResponse.dimension": (2, kinds["uint32"],
                                           False), "GetModelInfoResponse.max_tokens": (3, kinds["uint64"], False),
    }


def test_many_calls_at_once(embed):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: embed([f"text {i % 4}"]), range(32)))
    for i, answer in enumerate(answers):
        assert answer.embeddings == answers[i % 4].embeddings


def test_unknown_method_and_garbage(channel):
    call = channel.unary_unary(f"/{SERVICE}/Nothing", request_serializer=bytes, response_deserializer=bytes)
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=60)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    call = channel.unary_unary(f"/{SERVICE}/Embed", request_serializer=bytes, response_deserializer=bytes)
    with pytest.raises(grpc.RpcError):
        call(b"\xff\xff\xff\xff", timeout=60)


def test_cancelled_call(embed, generated, channel):
    messages, stubs = generated
    future = stubs.EmbeddingServiceStub(channel).Embed.future(messages.EmbedRequest(texts=["word " * 400] * 32))
    future.cancel()
    assert len(embed(["still here"]).embeddings) == 1


def test_health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=60)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="no.such.Service"), timeout=60)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    assert SERVICE in database.get_services() and "grpc.health.v1.Health" in database.get_services()
    service = DescriptorPool(database).FindServiceByName(SERVICE)
    assert [method.name for method in service.methods] == ["Embed", "GetModelInfo"]


def test_metrics(embed, server):
    embed(["count me"])
    assert server.metric("akidb_grpc_requests_total", method="Embed", status="OK") >= 1


def test_switched_off(start_server):
    off = start_server(grpc=-1)
    assert off.grpc_port == 0
    off.assert_healthy()
