#include "convert/pickle_globals.h"

#include <utility>

#include "absl/container/flat_hash_map.h"

namespace quire {
namespace {

constexpr PickleGlobal Row(const char* module, const char* name, GlobalRole role,
                           const char* note = "") {
  return {module, name, role, DType::kU8, false, false, note};
}
constexpr PickleGlobal Storage(const char* module, const char* name, DType dtype) {
  return {module, name, GlobalRole::kStorageType, dtype, true, false, ""};
}
constexpr PickleGlobal Bytes(const char* name) {
  return {"torch.storage", name, GlobalRole::kStorageType, DType::kU8, true, true, ""};
}
constexpr PickleGlobal Quantized(const char* name, const char* dtype) {
  return {"torch", name, GlobalRole::kStorageType, DType::kU8, false, false, dtype};
}
constexpr PickleGlobal Element(const char* name, DType dtype) {
  return {"torch", name, GlobalRole::kDType, dtype, true, false, ""};
}
constexpr PickleGlobal NoElement(const char* name) {
  return {"torch", name, GlobalRole::kDType, DType::kU8, false, false, name};
}

constexpr GlobalRole kDict = GlobalRole::kDictClass;
constexpr GlobalRole kList = GlobalRole::kListClass;
constexpr GlobalRole kNamespace = GlobalRole::kNamespaceClass;
constexpr GlobalRole kObject = GlobalRole::kObjectClass;
constexpr GlobalRole kConstant = GlobalRole::kConstant;
constexpr GlobalRole kOther = GlobalRole::kUnsupportedTensor;
constexpr GlobalRole kOtherClass = GlobalRole::kUnsupportedClass;

constexpr PickleGlobal kGlobals[] = {
    // Tensors.
    Row("torch._utils", "_rebuild_tensor", GlobalRole::kRebuildTensor),
    Row("torch._utils", "_rebuild_tensor_v2", GlobalRole::kRebuildTensor),
    Row("torch._utils", "_rebuild_tensor_v3", GlobalRole::kRebuildTensorV3),
    Row("torch._utils", "_rebuild_parameter", GlobalRole::kRebuildParameter),
    Row("torch._utils", "_rebuild_parameter_with_state", GlobalRole::kRebuildParameter),
    Row("torch.nn.parameter", "Parameter", GlobalRole::kRebuildParameter),
    Row("torch.nn", "Parameter", GlobalRole::kRebuildParameter),
    Row("torch.nn.parameter", "Buffer", GlobalRole::kRebuildParameter),
    Row("torch._tensor", "_rebuild_from_type_v2", GlobalRole::kRebuildFromType),
    Row("torch._tensor", "_rebuild_from_type", GlobalRole::kRebuildFromType),
    Row("torch.tensor", "_rebuild_from_type", GlobalRole::kRebuildFromType),
    Row("torch", "Tensor", GlobalRole::kTensorClass),
    Row("torch", "DoubleTensor", GlobalRole::kTensorClass),
    Row("torch", "FloatTensor", GlobalRole::kTensorClass),
    Row("torch", "HalfTensor", GlobalRole::kTensorClass),
    Row("torch", "LongTensor", GlobalRole::kTensorClass),
    Row("torch", "IntTensor", GlobalRole::kTensorClass),
    Row("torch", "ShortTensor", GlobalRole::kTensorClass),
    Row("torch", "CharTensor", GlobalRole::kTensorClass),
    Row("torch", "ByteTensor", GlobalRole::kTensorClass),
    Row("torch", "BoolTensor", GlobalRole::kTensorClass),
    Row("torch", "BFloat16Tensor", GlobalRole::kTensorClass),
    Row("torch.cuda", "DoubleTensor", GlobalRole::kTensorClass),
    Row("torch.cuda", "FloatTensor", GlobalRole::kTensorClass),
    Row("torch.cuda", "HalfTensor", GlobalRole::kTensorClass),
    Row("torch.cuda", "LongTensor", GlobalRole::kTensorClass),
    Row("torch.cuda", "IntTensor", GlobalRole::kTensorClass),
    Row("torch.cuda", "ShortTensor", GlobalRole::kTensorClass),
    Row("torch.cuda", "CharTensor", GlobalRole::kTensorClass),
    Row("torch.cuda", "ByteTensor", GlobalRole::kTensorClass),
    Row("torch.cuda", "BoolTensor", GlobalRole::kTensorClass),
    Row("torch.cuda", "BFloat16Tensor", GlobalRole::kTensorClass),
    Row("torch.sparse", "DoubleTensor", GlobalRole::kTensorClass),
    Row("torch.sparse", "FloatTensor", GlobalRole::kTensorClass),
    Row("torch.sparse", "HalfTensor", GlobalRole::kTensorClass),
    Row("torch.sparse", "BFloat16Tensor", GlobalRole::kTensorClass),
    Row("torch.sparse", "LongTensor", GlobalRole::kTensorClass),
    Row("torch.sparse", "IntTensor", GlobalRole::kTensorClass),
    Row("torch.sparse", "ShortTensor", GlobalRole::kTensorClass),
    Row("torch.sparse", "CharTensor", GlobalRole::kTensorClass),
    Row("torch.sparse", "ByteTensor", GlobalRole::kTensorClass),
    Row("torch.cuda.sparse", "DoubleTensor", GlobalRole::kTensorClass),
    Row("torch.cuda.sparse", "FloatTensor", GlobalRole::kTensorClass),
    Row("torch.cuda.sparse", "HalfTensor", GlobalRole::kTensorClass),
    Row("torch.cuda.sparse", "BFloat16Tensor", GlobalRole::kTensorClass),
    Row("torch.cuda.sparse", "LongTensor", GlobalRole::kTensorClass),
    Row("torch.cuda.sparse", "IntTensor", GlobalRole::kTensorClass),
    Row("torch.cuda.sparse", "ShortTensor", GlobalRole::kTensorClass),
    Row("torch.cuda.sparse", "CharTensor", GlobalRole::kTensorClass),
    Row("torch.cuda.sparse", "ByteTensor", GlobalRole::kTensorClass),

    // Tensors of other kinds.
    Row("torch._utils", "_rebuild_sparse_tensor", kOther, "sparse"),
    Row("torch._utils", "_rebuild_sparse_csr_tensor", kOther, "sparse"),
    Row("torch._utils", "_rebuild_nested_tensor", kOther, "nested"),
    Row("torch.nested._internal.nested_tensor", "_rebuild_njt", kOtherClass, "nested"),
    Row("torch.nested._internal.nested_tensor", "NestedTensor", kOtherClass, "nested"),
    Row("torch._utils", "_rebuild_qtensor", kOther, "quantized"),
    Row("torch._utils", "_rebuild_meta_tensor_no_storage", kOther, "meta (without data)"),
    Row("torch._utils", "_rebuild_wrapper_subclass", kOtherClass, "wrapper-subclass"),
    Row("torch._utils", "_rebuild_device_tensor_from_cpu_tensor", kOther, "other-device"),
    Row("torch._utils", "_rebuild_device_tensor_from_numpy", kOther, "other-device"),
    Row("torch._utils", "_rebuild_xla_tensor", kOther, "XLA"),
    Row("torch.storage", "_load_from_bytes", kOther, "separately pickled"),
    Row("torch.distributed.tensor", "DTensor", kOtherClass, "distributed"),
    Row("torch.distributed._tensor.api", "DTensor", kOtherClass, "distributed"),
    Row("torch.distributed.tensor._api", "DTensor", kOtherClass, "distributed"),
    Row("torch.distributed._shard.sharded_tensor.api", "ShardedTensor", kOtherClass, "distributed"),

    // Storages. Files before 0.4 may name those of CUDA; the bytes are the same.
    Storage("torch", "DoubleStorage", DType::kF64),
    Storage("torch", "FloatStorage", DType::kF32),
    Storage("torch", "HalfStorage", DType::kF16),
    Storage("torch", "BFloat16Storage", DType::kBF16),
    Storage("torch", "LongStorage", DType::kI64),
    Storage("torch", "IntStorage", DType::kI32),
    Storage("torch", "ShortStorage", DType::kI16),
    Storage("torch", "CharStorage", DType::kI8),
    Storage("torch", "ByteStorage", DType::kU8),
    Storage("torch", "BoolStorage", DType::kBool),
    Storage("torch", "ComplexFloatStorage", DType::kComplex64),
    Storage("torch", "ComplexDoubleStorage", DType::kComplex128),
    Storage("torch.cuda", "DoubleStorage", DType::kF64),
    Storage("torch.cuda", "FloatStorage", DType::kF32),
    Storage("torch.cuda", "HalfStorage", DType::kF16),
    Storage("torch.cuda", "BFloat16Storage", DType::kBF16),
    Storage("torch.cuda", "LongStorage", DType::kI64),
    Storage("torch.cuda", "IntStorage", DType::kI32),
    Storage("torch.cuda", "ShortStorage", DType::kI16),
    Storage("torch.cuda", "CharStorage", DType::kI8),
    Storage("torch.cuda", "ByteStorage", DType::kU8),
    Storage("torch.cuda", "BoolStorage", DType::kBool),
    Storage("torch.cuda", "ComplexFloatStorage", DType::kComplex64),
    Storage("torch.cuda", "ComplexDoubleStorage", DType::kComplex128),
    Bytes("UntypedStorage"),
    Bytes("_UntypedStorage"),
    Quantized("QUInt8Storage", "quint8"),
    Quantized("QInt8Storage", "qint8"),
    Quantized("QInt32Storage", "qint32"),
    Quantized("QUInt4x2Storage", "quint4x2"),
    Quantized("QUInt2x4Storage", "quint2x4"),

    // Element types.
    Element("float64", DType::kF64),
    Element("float32", DType::kF32),
    Element("float16", DType::kF16),
    Element("bfloat16", DType::kBF16),
    Element("int64", DType::kI64),
    Element("int32", DType::kI32),
    Element("int16", DType::kI16),
    Element("int8", DType::kI8),
    Element("uint8", DType::kU8),
    Element("bool", DType::kBool),
    Element("uint16", DType::kU16),
    Element("uint32", DType::kU32),
    Element("uint64", DType::kU64),
    Element("float8_e4m3fn", DType::kF8E4M3FN),
    Element("float8_e5m2", DType::kF8E5M2),
    Element("complex64", DType::kComplex64),
    Element("complex128", DType::kComplex128),
    NoElement("float8_e4m3fnuz"),
    NoElement("float8_e5m2fnuz"),
    NoElement("float8_e8m0fnu"),
    NoElement("float4_e2m1fn_x2"),
    NoElement("complex32"),
    NoElement("quint8"),
    NoElement("qint8"),
    NoElement("qint32"),
    NoElement("quint4x2"),
    NoElement("quint2x4"),
    NoElement("bits1x8"),
    NoElement("bits2x4"),
    NoElement("bits4x2"),
    NoElement("bits8"),
    NoElement("bits16"),
    NoElement("uint1"),
    NoElement("uint2"),
    NoElement("uint3"),
    NoElement("uint4"),
    NoElement("uint5"),
    NoElement("uint6"),
    NoElement("uint7"),
    NoElement("int1"),
    NoElement("int2"),
    NoElement("int3"),
    NoElement("int4"),
    NoElement("int5"),
    NoElement("int6"),
    NoElement("int7"),

    // Torch's small change.
    Row("torch", "Size", kList),
    Row("torch", "device", kObject),
    Row("torch.serialization", "_get_layout", kObject),
    Row("torch", "strided", kConstant),
    Row("torch", "sparse_coo", kConstant),
    Row("torch", "per_tensor_affine", kConstant),
    Row("torch", "per_tensor_symmetric", kConstant),
    Row("torch", "per_channel_affine", kConstant),
    Row("torch", "per_channel_symmetric", kConstant),
    Row("torch", "per_channel_affine_float_qparams", kConstant),
    Row("torch.torch_version", "TorchVersion", kObject),

    // Python's own data.
    Row("collections", "OrderedDict", kDict),
    Row("collections", "defaultdict", kDict),
    Row("collections", "Counter", kDict),
    Row("collections", "deque", kList),
    Row("builtins", "dict", kDict),
    Row("builtins", "list", kList),
    Row("builtins", "tuple", kList),
    Row("builtins", "set", kList),
    Row("builtins", "frozenset", kList),
    Row("builtins", "bytearray", kObject),
    Row("builtins", "bytes", kObject),
    Row("builtins", "complex", kObject),
    Row("builtins", "slice", kObject),
    Row("builtins", "range", kObject),
    Row("builtins", "int", kConstant),
    Row("builtins", "float", kConstant),
    Row("builtins", "str", kConstant),
    Row("builtins", "bool", kConstant),
    Row("builtins", "object", kConstant),
    Row("__builtin__", "dict", kDict),
    Row("__builtin__", "list", kList),
    Row("__builtin__", "tuple", kList),
    Row("__builtin__", "set", kList),
    Row("__builtin__", "frozenset", kList),
    Row("__builtin__", "bytearray", kObject),
    Row("__builtin__", "bytes", kObject),  // how protocol 2 spells b''
    Row("__builtin__", "complex", kObject),
    Row("__builtin__", "slice", kObject),
    Row("__builtin__", "xrange", kObject),
    Row("__builtin__", "int", kConstant),
    Row("__builtin__", "long", kConstant),
    Row("__builtin__", "float", kConstant),
    Row("__builtin__", "str", kConstant),
    Row("__builtin__", "unicode", kConstant),
    Row("__builtin__", "bool", kConstant),
    Row("__builtin__", "object", kConstant),
    Row("_codecs", "encode", kObject),
    Row("copy_reg", "_reconstructor", kObject),
    Row("copyreg", "_reconstructor", kObject),
    Row("datetime", "datetime", kObject),
    Row("datetime", "date", kObject),
    Row("datetime", "time", kObject),
    Row("datetime", "timedelta", kObject),
    Row("datetime", "timezone", kObject),
    Row("decimal", "Decimal", kObject),
    Row("fractions", "Fraction", kObject),
    Row("uuid", "UUID", kNamespace),
    Row("pathlib", "PosixPath", kObject),
    Row("pathlib", "PurePosixPath", kObject),
    Row("pathlib", "WindowsPath", kObject),
    Row("pathlib", "PureWindowsPath", kObject),
    Row("pathlib", "Path", kObject),
    Row("pathlib._local", "PosixPath", kObject),
    Row("pathlib._local", "PurePosixPath", kObject),
    Row("pathlib._local", "WindowsPath", kObject),
    Row("pathlib._local", "PureWindowsPath", kObject),
    Row("pathlib._local", "Path", kObject),
    Row("argparse", "Namespace", kNamespace),
    Row("types", "SimpleNamespace", kNamespace),
    Row("typing", "Any", kConstant),
    Row("typing", "Union", kConstant),
    Row("typing", "Optional", kConstant),

    // NumPy: random states, best scores, epoch counts. Arrays are not tensors of the model.
    Row("numpy", "dtype", kObject),
    Row("numpy", "ndarray", kConstant),
    Row("numpy.core.multiarray", "scalar", kObject),
    Row("numpy.core.multiarray", "_reconstruct", kObject),
    Row("numpy.core.numeric", "_frombuffer", kObject),
    Row("numpy._core.multiarray", "scalar", kObject),
    Row("numpy._core.multiarray", "_reconstruct", kObject),
    Row("numpy._core.numeric", "_frombuffer", kObject),
    Row("numpy", "bool_", kConstant),
    Row("numpy", "float16", kConstant),
    Row("numpy", "float32", kConstant),
    Row("numpy", "float64", kConstant),
    Row("numpy", "int8", kConstant),
    Row("numpy", "int16", kConstant),
    Row("numpy", "int32", kConstant),
    Row("numpy", "int64", kConstant),
    Row("numpy", "uint8", kConstant),
    Row("numpy", "uint16", kConstant),
    Row("numpy", "uint32", kConstant),
    Row("numpy", "uint64", kConstant),

    // What training frameworks leave beside the weights.
    Row("omegaconf.dictconfig", "DictConfig", kObject),
    Row("omegaconf.listconfig", "ListConfig", kObject),
    Row("omegaconf.base", "ContainerMetadata", kObject),
    Row("omegaconf.base", "Metadata", kObject),
    Row("omegaconf.base", "SCMode", kObject),
    Row("omegaconf.nodes", "AnyNode", kObject),
    Row("omegaconf.nodes", "ValueNode", kObject),
    Row("omegaconf.nodes", "StringNode", kObject),
    Row("omegaconf.nodes", "IntegerNode", kObject),
    Row("omegaconf.nodes", "FloatNode", kObject),
    Row("omegaconf.nodes", "BooleanNode", kObject),
    Row("omegaconf.nodes", "PathNode", kObject),
    Row("omegaconf.nodes", "EnumNode", kObject),
    Row("lightning_fabric.utilities.data", "AttributeDict", kDict),
    Row("lightning.fabric.utilities.data", "AttributeDict", kDict),
    Row("pytorch_lightning.utilities.parsing", "AttributeDict", kDict),
    Row("lightning.pytorch.utilities.parsing", "AttributeDict", kDict),
    Row("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint", kConstant),
    Row("pytorch_lightning.callbacks.early_stopping", "EarlyStopping", kConstant),
    Row("deepspeed.runtime.fp16.loss_scaler", "LossScaler", kObject),
    Row("deepspeed.runtime.fp16.loss_scaler", "DynamicLossScaler", kObject),
    Row("deepspeed.utils.tensor_fragment", "fragment_address", kObject),
    Row("megatron.model.enums", "AttnMaskType", kObject),
    Row("megatron.model.enums", "ModelType", kObject),
    Row("megatron.model.enums", "PositionEmbeddingType", kObject),
    Row("megatron.core.enums", "ModelType", kObject),
    Row("megatron.core.transformer.enums", "AttnMaskType", kObject),
    Row("megatron.core.transformer.enums", "AttnBackend", kObject),
};

}  // namespace

const PickleGlobal* FindPickleGlobal(absl::string_view module, absl::string_view name) {
  using Key = std::pair<absl::string_view, absl::string_view>;
  static const auto* const rows = [] {
    auto* map = new absl::flat_hash_map<Key, const PickleGlobal*>();
    for (const PickleGlobal& row : kGlobals) map->emplace(Key(row.module, row.name), &row);
    return map;
  }();
  auto it = rows->find(Key(module, name));
  return it == rows->end() ? nullptr : it->second;
}

}  // namespace quire
