// Small model files written by tests: a temporary directory, and writers of raw safetensors and GGUF bytes that can
// be told to lie.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

namespace pensieve::formats {

// A directory of its own for one test, removed at the end.
class TempDirectory {
 public:
  TempDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "pensieve-test-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TempDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;

  std::string Path(std::string_view name) const { return (path_ / name).string(); }
  // Writes a file (and its folders); returns its path.
  std::string Write(std::string_view name, std::string_view bytes) const {
    const std::filesystem::path path = path_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << bytes;
    return path.string();
  }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

template <typename T>
void AppendRaw(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

// Length, header, data.
inline std::string SafetensorsBytes(std::string_view header, std::string_view data) {
  std::string out;
  AppendRaw<uint64_t>(out, header.size());
  out.append(header).append(data);
  return out;
}

// Builds the bytes of a GGUF file. Counts are what was added unless overridden.
class GgufWriter {
 public:
  uint32_t magic = 0x46554747;
  uint32_t version = 3;
  int64_t num_tensors = -1;  // -1: as many as were added
  int64_t num_values = -1;
  uint64_t alignment = 32;

  static void AppendString(std::string& out, std::string_view text) {
    AppendRaw<uint64_t>(out, text.size());
    out.append(text);
  }
  // A value of any type, its bytes given raw.
  GgufWriter& Raw(std::string_view key, uint32_t type, std::string_view bytes) {
    AppendString(values_, key);
    AppendRaw<uint32_t>(values_, type);
    values_.append(bytes);
    ++values_added_;
    return *this;
  }
  GgufWriter& U32(std::string_view key, uint32_t value) { return Scalar(key, 4, value); }
  GgufWriter& F32(std::string_view key, float value) { return Scalar(key, 6, value); }
  GgufWriter& Bool(std::string_view key, bool value) { return Scalar<uint8_t>(key, 7, value ? 1 : 0); }
  GgufWriter& String(std::string_view key, std::string_view text) {
    std::string bytes;
    AppendString(bytes, text);
    return Raw(key, 8, bytes);
  }
  GgufWriter& Strings(std::string_view key, const std::vector<std::string>& strings) {
    std::string bytes;
    AppendRaw<uint32_t>(bytes, 8);
    AppendRaw<uint64_t>(bytes, strings.size());
    for (const std::string& text : strings) AppendString(bytes, text);
    return Raw(key, 9, bytes);
  }
  template <typename T>
  GgufWriter& Scalar(std::string_view key, uint32_t type, T value) {
    std::string bytes;
    AppendRaw(bytes, value);
    return Raw(key, type, bytes);
  }
  // `dims` in the file's order (columns first). The data is placed at the next multiple of the alignment.
  GgufWriter& Tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type, std::string_view bytes,
                     int64_t offset = -1) {
    data_.resize((data_.size() + alignment - 1) / alignment * alignment, '\0');
    AppendString(infos_, name);
    AppendRaw<uint32_t>(infos_, static_cast<uint32_t>(dims.size()));
    for (const uint64_t dim : dims) AppendRaw(infos_, dim);
    AppendRaw(infos_, type);
    AppendRaw<uint64_t>(infos_, offset >= 0 ? static_cast<uint64_t>(offset) : data_.size());
    data_.append(bytes);
    ++tensors_added_;
    return *this;
  }
  std::string Bytes() const {
    std::string out;
    AppendRaw(out, magic);
    AppendRaw(out, version);
    AppendRaw<uint64_t>(out, static_cast<uint64_t>(num_tensors >= 0 ? num_tensors : tensors_added_));
    AppendRaw<uint64_t>(out, static_cast<uint64_t>(num_values >= 0 ? num_values : values_added_));
    out += values_ + infos_;
    out.resize((out.size() + alignment - 1) / alignment * alignment, '\0');
    return out + data_;
  }

 private:
  std::string values_;
  std::string infos_;
  std::string data_;
  int64_t values_added_ = 0;
  int64_t tensors_added_ = 0;
};

// One sentence that holds all of `parts`.
inline void ExpectMessage(const std::string& message, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) EXPECT_NE(message.find(part), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

}  // namespace pensieve::formats
