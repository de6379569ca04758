"""The messages of the Open Inference Protocol's gRPC form, made at import from the table below.

Written as data and built by protobuf itself, they fit every protobuf version and need no compiler. They live in a pool of
their own: a client library in the same process may bring its own messages under the same names.

Fields are numbered from 1 in the order of the published `open_inference_grpc.proto`; * is repeated, [] a map from string.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready",
    "ModelReadyRequest": "string name, string version",
    "ModelReadyResponse": "bool ready",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name, string version, string* extensions",
    "ModelMetadataRequest": "string name, string version",
    "ModelMetadataResponse": "string name, string* versions, string platform, ModelMetadataResponse.TensorMetadata* inputs, "
    "ModelMetadataResponse.TensorMetadata* outputs, string[] properties",
    "ModelMetadataResponse.TensorMetadata": "string name, string datatype, int64* shape",
    "InferParameter": "bool bool_param, int64 int64_param, string string_param, double double_param, uint64 uint64_param",
    "InferTensorContents": "bool* bool_contents, int32* int_contents, int64* int64_contents, uint32* uint_contents, "
    "uint64* uint64_contents, float* fp32_contents, double* fp64_contents, bytes* bytes_contents",
    "ModelInferRequest": "string model_name, string model_version, string id, InferParameter[] parameters, "
    "ModelInferRequest.InferInputTensor* inputs, ModelInferRequest.InferRequestedOutputTensor* outputs, "
    "bytes* raw_input_contents",
    "ModelInferRequest.InferInputTensor": "string name, string datatype, int64* shape, InferParameter[] parameters, "
    "InferTensorContents contents",
    "ModelInferRequest.InferRequestedOutputTensor": "string name, InferParameter[] parameters",
    "ModelInferResponse": "string model_name, string model_version, string id, InferParameter[] parameters, "
    "ModelInferResponse.InferOutputTensor* outputs, bytes* raw_output_contents",
    "ModelInferResponse.InferOutputTensor": "string name, string datatype, int64* shape, InferParameter[] parameters, "
    "InferTensorContents contents",
}  # an outer message stands before those inside it
ONE_OF = {"InferParameter": "parameter_choice"}  # its fields exclude one another

Field = descriptor_pb2.FieldDescriptorProto


def _field(message: Any, name: str, number: int, kind: str) -> Any:
    """Add a field to a DescriptorProto; `kind` is a scalar, or the name of a message of ours."""
    repeated = kind.endswith("*")
    label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
    field = message.field.add(name=name, number=number, label=label)
    kind = kind.removesuffix("*")
    if kind in MESSAGES or kind[0] == ".":
        field.type, field.type_name = Field.TYPE_MESSAGE, kind if kind[0] == "." else f".{PACKAGE}.{kind}"
    else:
        field.type = getattr(Field, f"TYPE_{kind.upper()}")
    return field


def _file() -> Any:
    """The FileDescriptorProto of the table."""
    file = descriptor_pb2.FileDescriptorProto(name="open_inference.proto", package=PACKAGE, syntax="proto3")
    made: dict[str, Any] = {}
    for name, fields in MESSAGES.items():
        outer, _, inner = name.rpartition(".")
        message = made[name] = made[outer].nested_type.add(name=inner) if outer else file.message_type.add(name=name)
        if name in ONE_OF:
            message.oneof_decl.add(name=ONE_OF[name])
        for number, one in enumerate(filter(None, fields.split(", ")), 1):
            kind, field = one.split()
            if kind.endswith("[]"):
                entry = message.nested_type.add(name=f"{field.title()}Entry")
                entry.options.map_entry = True
                _field(entry, "key", 1, "string")
                _field(entry, "value", 2, kind.removesuffix("[]"))
                kind = f".{PACKAGE}.{name}.{entry.name}*"
            added = _field(message, field, number, kind)
            if name in ONE_OF:
                added.oneof_index = 0
    return file


def _classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_file())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in MESSAGES}


CLASSES = _classes()  # message name -> class
METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
