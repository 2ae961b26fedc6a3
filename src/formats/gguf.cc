#include "formats/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "formats/foreign_file.h"
#include "formats/printable.h"

namespace pensieve::formats {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF", little-endian
constexpr int64_t kDimsMax = 4;
constexpr int kArrayDepthMax = 4;
constexpr int64_t kSplitsMax = 10'000;
constexpr uint64_t kAlignmentMax = 1 << 20;
constexpr size_t kNameBytesMax = 512;  // of keys and tensors; real ones have at most 64

enum class ValueType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// Fewest bytes that one value of the type takes in a file; 0 for an unknown type.
uint64_t ValueBytesMin(ValueType type) {
  switch (type) {
    case ValueType::kU8:
    case ValueType::kI8:
    case ValueType::kBool: return 1;
    case ValueType::kU16:
    case ValueType::kI16: return 2;
    case ValueType::kU32:
    case ValueType::kI32:
    case ValueType::kF32: return 4;
    case ValueType::kString:
    case ValueType::kU64:
    case ValueType::kI64:
    case ValueType::kF64: return 8;
    case ValueType::kArray: return 12;
  }
  return 0;
}

// Reads forward through a file; the first step over its end is remembered and everything later reads as zero.
class Cursor {
 public:
  explicit Cursor(const MappedFile& file) : path_(file.path()), bytes_(file.bytes()) {}

  template <typename T>
  T Read(std::string_view what) {
    T value{};
    if (Take(sizeof(T), what)) std::memcpy(&value, bytes_.data() + position_ - sizeof(T), sizeof(T));
    return value;
  }
  std::string_view ReadString(std::string_view what) {
    const auto length = Read<uint64_t>(what);
    if (!Take(length, what)) return {};
    return {reinterpret_cast<const char*>(bytes_.data()) + position_ - length, static_cast<size_t>(length)};
  }
  // False, and an error, when `count` things of at least `bytes_min` each cannot be in the rest of the file.
  bool CanHold(uint64_t count, uint64_t bytes_min, std::string_view what) {
    if (!status_.ok()) return false;
    if (count <= remaining() / bytes_min) return true;
    Fail(fmt::format("{} is {}, more than the remaining {} bytes can hold", what, count, remaining()));
    return false;
  }
  // A key or a tensor's name: short, printable ASCII.
  std::string ReadName(std::string_view what) {
    const std::string_view name = ReadString(what);
    if (ok() && (name.size() > kNameBytesMax || Printable(name, kNameBytesMax) != name)) {
      Fail(fmt::format("{} is no name: \"{}\"", what, Printable(name, 40)));
    }
    return std::string(ok() ? name : "");
  }
  void Fail(std::string_view problem) {
    if (status_.ok()) status_ = DataLoss(fmt::format("{}: at byte {}: {}", path_, position_, problem));
  }
  uint64_t remaining() const { return bytes_.size() - position_; }
  size_t position() const { return position_; }
  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }

 private:
  bool Take(uint64_t count, std::string_view what) {
    if (!status_.ok()) return false;
    if (count > remaining()) {
      Fail(fmt::format("{} needs {} bytes, but only {} are left (truncated?)", what, count, remaining()));
      return false;
    }
    position_ += static_cast<size_t>(count);
    return true;
  }

  const std::string path_;
  const std::span<const std::byte> bytes_;
  size_t position_ = 0;
  Status status_;
};

int64_t ReadInt(Cursor& in, ValueType type, std::string_view what) {
  switch (type) {
    case ValueType::kU8: return in.Read<uint8_t>(what);
    case ValueType::kI8: return in.Read<int8_t>(what);
    case ValueType::kU16: return in.Read<uint16_t>(what);
    case ValueType::kI16: return in.Read<int16_t>(what);
    case ValueType::kU32: return in.Read<uint32_t>(what);
    case ValueType::kI32: return in.Read<int32_t>(what);
    case ValueType::kU64: return static_cast<int64_t>(std::min<uint64_t>(in.Read<uint64_t>(what), INT64_MAX));
    case ValueType::kI64: return in.Read<int64_t>(what);
    case ValueType::kBool: return in.Read<uint8_t>(what) != 0 ? 1 : 0;
    default: PENSIEVE_UNREACHABLE();
  }
}

GgufValue ReadArray(Cursor& in, std::string_view key, int depth) {
  const auto type = static_cast<ValueType>(in.Read<uint32_t>(key));
  const auto count = in.Read<uint64_t>(key);
  if (!in.ok()) return {};
  if (ValueBytesMin(type) == 0) {
    in.Fail(fmt::format("array \"{}\" has the unknown element type {}", key, static_cast<uint32_t>(type)));
    return {};
  }
  if (depth > kArrayDepthMax) in.Fail(fmt::format("array \"{}\" is nested deeper than {}", key, kArrayDepthMax));
  if (!in.CanHold(count, ValueBytesMin(type), fmt::format("length of array \"{}\"", key))) return {};
  const auto length = static_cast<size_t>(count);
  if (type == ValueType::kArray) {
    for (size_t i = 0; i < length && in.ok(); ++i) ReadArray(in, key, depth + 1);
    return {};
  }
  if (type == ValueType::kString) {
    std::vector<std::string_view> strings(length);
    for (size_t i = 0; i < length && in.ok(); ++i) strings[i] = in.ReadString(key);
    return strings;
  }
  if (type == ValueType::kF32 || type == ValueType::kF64) {
    std::vector<double> floats(length);
    for (double& value : floats) value = type == ValueType::kF32 ? in.Read<float>(key) : in.Read<double>(key);
    return floats;
  }
  std::vector<int64_t> integers(length);
  for (int64_t& value : integers) value = ReadInt(in, type, key);
  return integers;
}

GgufValue ReadValue(Cursor& in, std::string_view key) {
  const auto type = static_cast<ValueType>(in.Read<uint32_t>(key));
  switch (type) {
    case ValueType::kF32: return static_cast<double>(in.Read<float>(key));
    case ValueType::kF64: return in.Read<double>(key);
    case ValueType::kBool: return in.Read<uint8_t>(key) != 0;
    case ValueType::kString: return in.ReadString(key);
    case ValueType::kArray: return ReadArray(in, key, 1);
    default: break;
  }
  if (ValueBytesMin(type) != 0) return ReadInt(in, type, key);
  in.Fail(fmt::format("metadata \"{}\" has the unknown type {}", key, static_cast<uint32_t>(type)));
  return {};
}

using Metadata = std::map<std::string, GgufValue, std::less<>>;

// What the header of one file holds; tensor bytes are still offsets.
struct Header {
  uint32_t version = 0;
  Metadata metadata;
  std::vector<GgufTensor> tensors;
  std::vector<uint64_t> offsets;  // of each tensor from the start of the data
  std::vector<uint64_t> lengths;  // bytes of each tensor
};

// Shape and type of one tensor; false after an error.
bool ReadTensorInfo(Cursor& in, Header& header) {
  GgufTensor tensor;
  tensor.name = in.ReadName("a tensor's name");
  const auto dims = in.Read<uint32_t>("a tensor's dimension count");
  if (!in.ok()) return false;
  if (dims < 1 || dims > kDimsMax) {
    in.Fail(fmt::format("tensor \"{}\" has {} dimensions, not 1 to {}", tensor.name, dims, kDimsMax));
    return false;
  }
  int64_t elements = 1;
  for (uint32_t i = 0; i < dims; ++i) {
    const auto extent = in.Read<uint64_t>("a tensor's shape");
    if (!in.ok()) return false;
    const bool fits = extent >= 1 && extent <= INT64_MAX;
    if (!fits || __builtin_mul_overflow(elements, static_cast<int64_t>(extent), &elements)) {
      in.Fail(fmt::format("tensor \"{}\" has an impossible shape (dimension {} is {})", tensor.name, i, extent));
      return false;
    }
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(extent));
  }
  const auto type = in.Read<uint32_t>("a tensor's type");
  const auto offset = in.Read<uint64_t>("a tensor's offset");
  if (!in.ok()) return false;
  tensor.type = FindGgmlType(type);
  if (tensor.type == nullptr) {
    in.Fail(fmt::format("tensor \"{}\" has the unknown type {}", tensor.name, type));
    return false;
  }
  int64_t bytes = 0;
  if (tensor.shape.back() % tensor.type->block_elements != 0 ||
      __builtin_mul_overflow(elements / tensor.type->block_elements, tensor.type->block_bytes, &bytes)) {
    in.Fail(fmt::format("tensor \"{}\" has rows of {} elements, which do not fit {} blocks of {}", tensor.name,
                        tensor.shape.back(), tensor.type->name, tensor.type->block_elements));
    return false;
  }
  header.tensors.push_back(std::move(tensor));
  header.offsets.push_back(offset);
  header.lengths.push_back(static_cast<uint64_t>(bytes));
  return true;
}

Status CheckVersion(const std::string& path, uint32_t magic, uint32_t version) {
  if (magic != kMagic) return DataLoss(fmt::format("{}: does not start with \"GGUF\": no GGUF file", path));
  if (version == 2 || version == 3) return OkStatus();
  if ((version & 0xffffu) == 0) {
    return Unimplemented(fmt::format("{}: a big-endian GGUF file; only little-endian ones are supported", path));
  }
  return Unimplemented(fmt::format("{}: GGUF version {}; versions 2 and 3 are supported", path, version));
}

uint64_t Alignment(const Header& header) {
  const auto it = header.metadata.find("general.alignment");
  if (it == header.metadata.end()) return 32;
  const auto* value = std::get_if<int64_t>(&it->second);
  const bool good =
      value != nullptr && *value > 0 && static_cast<uint64_t>(*value) <= kAlignmentMax && (*value & (*value - 1)) == 0;
  return good ? static_cast<uint64_t>(*value) : 0;
}

// Turns offsets into spans of the mapping, after checking them.
Status PlaceTensors(const MappedFile& file, size_t infos_end, Header& header) {
  const uint64_t alignment = Alignment(header);
  if (alignment == 0) {
    return DataLoss(
        fmt::format("{}: metadata \"general.alignment\" must be a power of two up to {}", file.path(), kAlignmentMax));
  }
  const uint64_t data_begin = (infos_end + alignment - 1) / alignment * alignment;
  const uint64_t data_bytes = file.bytes().size() > data_begin ? file.bytes().size() - data_begin : 0;
  for (size_t i = 0; i < header.tensors.size(); ++i) {
    const uint64_t offset = header.offsets[i];
    if (offset % alignment != 0) {
      return DataLoss(fmt::format("{}: tensor \"{}\" starts at {}, not a multiple of the alignment {}", file.path(),
                                  header.tensors[i].name, offset, alignment));
    }
    if (offset > data_bytes || header.lengths[i] > data_bytes - offset) {
      return DataLoss(
          fmt::format("{}: tensor \"{}\" takes {} bytes from {}, but the file's data has only {} (truncated?)",
                      file.path(), header.tensors[i].name, header.lengths[i], offset, data_bytes));
    }
    header.tensors[i].bytes =
        file.bytes().subspan(static_cast<size_t>(data_begin + offset), static_cast<size_t>(header.lengths[i]));
  }
  std::vector<const GgufTensor*> order;
  for (const GgufTensor& tensor : header.tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->bytes.data() < b->bytes.data(); });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i - 1]->bytes.data() + order[i - 1]->bytes.size() > order[i]->bytes.data()) {
      return DataLoss(
          fmt::format("{}: tensors \"{}\" and \"{}\" overlap", file.path(), order[i - 1]->name, order[i]->name));
    }
  }
  return OkStatus();
}

Result<Header> ReadHeader(const MappedFile& file) {
  Cursor in(file);
  Header header;
  const auto magic = in.Read<uint32_t>("the magic number");
  header.version = in.Read<uint32_t>("the version");
  PENSIEVE_RETURN_IF_ERROR(in.status());
  PENSIEVE_RETURN_IF_ERROR(CheckVersion(file.path(), magic, header.version));
  const auto num_tensors = in.Read<uint64_t>("the tensor count");
  const auto num_values = in.Read<uint64_t>("the metadata count");
  constexpr uint64_t kValueBytesMin = 8 + 4 + 1;           // key length, type, one byte
  constexpr uint64_t kTensorBytesMin = 8 + 4 + 8 + 4 + 8;  // name length, dims, one dim, type, offset
  if (!in.CanHold(num_values, kValueBytesMin, "the metadata count")) return in.status();
  if (!in.CanHold(num_tensors, kTensorBytesMin, "the tensor count")) return in.status();
  for (uint64_t i = 0; i < num_values && in.ok(); ++i) {
    const std::string key = in.ReadName("a metadata key");
    GgufValue value = ReadValue(in, key);
    if (in.ok() && !header.metadata.emplace(key, std::move(value)).second) {
      in.Fail(fmt::format("metadata \"{}\" is there twice", key));
    }
  }
  for (uint64_t i = 0; i < num_tensors && in.ok(); ++i) ReadTensorInfo(in, header);
  PENSIEVE_RETURN_IF_ERROR(in.status());
  PENSIEVE_RETURN_IF_ERROR(PlaceTensors(file, in.position(), header));
  return header;
}

// "name-00002-of-00003.gguf" cut into "name", 2, 3 and "-of-00003.gguf", as the file spells it.
struct SplitName {
  std::string stem;
  int64_t part = 0;
  int64_t parts = 0;
  std::string ending;

  std::string PathOf(int64_t number) const { return fmt::format("{}-{:05d}{}", stem, number, ending); }
};

std::optional<SplitName> ParseSplitName(const std::string& path) {
  constexpr std::string_view kPattern = "-00000-of-00000.gguf";
  if (path.size() <= kPattern.size()) return std::nullopt;
  const std::string tail = path.substr(path.size() - kPattern.size());
  for (size_t i = 0; i < kPattern.size(); ++i) {
    const bool digit = tail[i] >= '0' && tail[i] <= '9';
    const char lower = tail[i] >= 'A' && tail[i] <= 'Z' ? static_cast<char>(tail[i] - 'A' + 'a') : tail[i];
    if (kPattern[i] == '0' ? !digit : lower != kPattern[i]) return std::nullopt;
  }
  return SplitName{path.substr(0, path.size() - kPattern.size()), std::stoll(tail.substr(1, 5)),
                   std::stoll(tail.substr(10, 5)), tail.substr(6)};
}

// Pieces that were cut without regard to the format ("x.gguf.part1of2", "x.gguf-split-a"): only together are they a
// file.
bool IsCutPiece(const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  return name.find(".gguf.part") != std::string::npos || name.find(".gguf-split-") != std::string::npos;
}

Status CheckMagic(const MappedFile& file) {
  if (IsCutPiece(file.path())) {
    return Unimplemented(
        fmt::format("{}: is one piece of a file that was cut; join all pieces in their order "
                    "(cat PIECES > model.gguf) and give the whole",
                    file.path()));
  }
  const auto foreign = ExplainForeignFile(file.path(), file.bytes(), FileFormat::kGguf);
  return foreign ? *foreign : OkStatus();
}

// What a file says of its place among the parts of a model against what its name says.
Status CheckSplit(const std::string& path, const Metadata& metadata, int64_t part, int64_t parts) {
  const auto number = [&metadata](std::string_view key, int64_t fallback) {
    const auto it = metadata.find(key);
    const auto* value = it == metadata.end() ? nullptr : std::get_if<int64_t>(&it->second);
    return value == nullptr ? fallback : *value;
  };
  const int64_t declared_parts = number("split.count", parts);
  const int64_t declared_no = number("split.no", part - 1);  // counted from zero
  if (parts == 1 && declared_parts > 1) {
    return DataLoss(
        fmt::format("{}: is one of {} files of a split model (metadata \"split.count\"), but its name does not "
                    "say so; give the files their names NAME-00001-of-{:05d}.gguf and so on again",
                    path, declared_parts, declared_parts));
  }
  if (parts == 1 || (declared_parts == parts && declared_no == part - 1)) return OkStatus();
  return DataLoss(
      fmt::format("{}: is named as part {} of {}, but its metadata says otherwise (\"split.no\" {}, counted "
                  "from 0, \"split.count\" {}); give the files their own names again",
                  path, part, parts, declared_no, declared_parts));
}

}  // namespace

Status GgufFile::Append(const std::string& path, int64_t part, int64_t parts) {
  PENSIEVE_TRY(MappedFile file, MappedFile::Open(path));
  PENSIEVE_RETURN_IF_ERROR(CheckMagic(file));
  PENSIEVE_TRY(Header header, ReadHeader(file));
  PENSIEVE_RETURN_IF_ERROR(CheckSplit(path, header.metadata, part, parts));
  for (GgufTensor& tensor : header.tensors) {
    tensor.file = files_.size();
    if (!tensor_index_.emplace(tensor.name, tensors_.size()).second) {
      return DataLoss(fmt::format("{}: tensor \"{}\" is there twice", path, tensor.name));
    }
    tensors_.push_back(std::move(tensor));
  }
  if (files_.empty()) {
    version_ = header.version;
    metadata_ = std::move(header.metadata);
  }
  files_.push_back(std::move(file));
  return OkStatus();
}

Result<GgufFile> GgufFile::Open(const std::string& path) {
  GgufFile file;
  const auto split = ParseSplitName(path);
  if (!split) {
    PENSIEVE_RETURN_IF_ERROR(file.Append(path, 1, 1));
    return file;
  }
  if (split->parts < 1 || split->parts > kSplitsMax || split->part < 1 || split->part > split->parts) {
    return InvalidArgument(fmt::format("{}: names part {} of {}", path, split->part, split->parts));
  }
  for (int64_t part = 1; part <= split->parts; ++part) {
    const std::string part_path = split->PathOf(part);
    const Status appended = file.Append(part_path, part, split->parts);
    if (appended.code() == StatusCode::kNotFound) {
      return NotFound(
          fmt::format("{}: is not there, but the model has {} parts, which must lie in one directory; "
                      "download the missing ones",
                      part_path, split->parts));
    }
    PENSIEVE_RETURN_IF_ERROR(appended);
  }
  GgufFields fields(file);
  const auto total = fields.OptionalInt("split.tensors.count", {0, INT64_MAX});
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  if (total && static_cast<size_t>(*total) != file.tensors_.size()) {
    return fields.Error("split.tensors.count",
                        fmt::format("is {}, but the parts hold {} tensors", *total, file.tensors_.size()));
  }
  return file;
}

const GgufTensor* GgufFile::FindTensor(std::string_view name) const {
  const auto it = tensor_index_.find(name);
  return it == tensor_index_.end() ? nullptr : &tensors_[it->second];
}

const GgufValue* GgufFile::FindValue(std::string_view key) const {
  const auto it = metadata_.find(key);
  return it == metadata_.end() ? nullptr : &it->second;
}

Status GgufFields::Error(std::string_view key, std::string_view problem) const {
  return DataLoss(fmt::format("{}: metadata \"{}\" {}", file_.files().front().path(), key, Printable(problem, 400)));
}

template <typename T>
const T* GgufFields::Get(std::string_view key, const char* kind) {
  const GgufValue* value = file_.FindValue(key);
  if (value == nullptr) return nullptr;
  const T* typed = std::get_if<T>(value);
  if (typed == nullptr) Fail(Error(key, fmt::format("must be {}", kind)));
  return typed;
}

std::optional<int64_t> GgufFields::OptionalInt(std::string_view key, IntRange range) {
  const auto* value = Get<int64_t>(key, "an integer");
  if (value == nullptr) return std::nullopt;
  if (*value >= range.min && *value <= range.max) return *value;
  Fail(Error(key, fmt::format("is {}, not between {} and {}", *value, range.min, range.max)));
  return std::nullopt;
}

int64_t GgufFields::Int(std::string_view key, int64_t fallback, IntRange range) {
  return OptionalInt(key, range).value_or(fallback);
}

int64_t GgufFields::RequiredInt(std::string_view key, IntRange range) {
  if (!Has(key)) Fail(Error(key, "is missing"));
  return OptionalInt(key, range).value_or(range.min);
}

std::optional<double> GgufFields::OptionalFloat(std::string_view key) {
  const GgufValue* value = file_.FindValue(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* integer = std::get_if<int64_t>(value)) return static_cast<double>(*integer);
  const auto* number = std::get_if<double>(value);
  if (number != nullptr && std::isfinite(*number)) return *number;
  Fail(Error(key, "must be a finite number"));
  return std::nullopt;
}

std::optional<bool> GgufFields::OptionalBool(std::string_view key) {
  const auto* value = Get<bool>(key, "a bool");
  return value == nullptr ? std::nullopt : std::optional(*value);
}

std::string GgufFields::String(std::string_view key, std::string_view fallback) {
  const auto* value = Get<std::string_view>(key, "a string");
  return std::string(value == nullptr ? fallback : *value);
}

const std::vector<std::string_view>* GgufFields::Strings(std::string_view key) {
  return Get<std::vector<std::string_view>>(key, "an array of strings");
}

const std::vector<int64_t>* GgufFields::Ints(std::string_view key) {
  return Get<std::vector<int64_t>>(key, "an array of integers");
}

const std::vector<double>* GgufFields::Floats(std::string_view key) {
  return Get<std::vector<double>>(key, "an array of floats");
}

}  // namespace pensieve::formats
