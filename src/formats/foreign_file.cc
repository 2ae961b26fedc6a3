#include "formats/foreign_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <string_view>

#include "formats/printable.h"

namespace pensieve::formats {
namespace {

using std::string_view_literals::operator""sv;

constexpr std::string_view kOtherWeights =
    "only safetensors and GGUF weights are read: download or convert to one of them";
constexpr std::string_view kUnpack = "unpack it and give what is inside";
constexpr std::string_view kDownloadAgain = "download the file again";

// A format that begins with `magic`, `offset` bytes from the start.
struct Signature {
  std::string_view magic;
  size_t offset;
  std::string_view what;
  std::string_view advice;
};

constexpr std::array kSignatures = std::to_array<Signature>({
    {"version https://git-lfs.github.com/spec/"sv, 0, "a git-lfs pointer, a note that stands for the file itself",
     "run \"git lfs pull\" in its repository, or download the file again"},
    {"PK\x03\x04"sv, 0, "a zip archive, as PyTorch writes its checkpoints (.bin, .pt) and NumPy its .npz",
     kOtherWeights},
    {"\x80\x02"sv, 0, "a Python pickle, as PyTorch writes its checkpoints", kOtherWeights},
    {"\x80\x03"sv, 0, "a Python pickle", kOtherWeights},
    {"\x80\x04"sv, 0, "a Python pickle", kOtherWeights},
    {"\x80\x05"sv, 0, "a Python pickle", kOtherWeights},
    {"\x89HDF\r\n\x1a\n"sv, 0, "an HDF5 file, as Keras and TensorFlow write their weights", kOtherWeights},
    {"\x93NUMPY"sv, 0, "a NumPy array", kOtherWeights},
    {"lmgg"sv, 0, "in GGML's format of before GGUF (August 2023)", "download a GGUF version of the model"},
    {"fmgg"sv, 0, "in GGML's format of before GGUF (August 2023)", "download a GGUF version of the model"},
    {"tjgg"sv, 0, "in GGML's format of before GGUF (August 2023)", "download a GGUF version of the model"},
    {"algg"sv, 0, "a LoRA adapter in GGML's old format", "merge it into its base model and give the merged model"},
    {"\x1f\x8b"sv, 0, "a gzip archive", kUnpack},
    {"BZh"sv, 0, "a bzip2 archive", kUnpack},
    {"\x28\xb5\x2f\xfd"sv, 0, "a zstd archive", kUnpack},
    {"\3757zXZ"sv, 0, "an xz archive", kUnpack},
    {"7z\xbc\xaf\x27\x1c"sv, 0, "a 7z archive", kUnpack},
    {"Rar!"sv, 0, "a rar archive", kUnpack},
    {"ustar"sv, 257, "a tar archive", kUnpack},
    {"\177ELF"sv, 0, "a program", "give a model: of a llamafile, the GGUF file that it was made from"},
    {"MZqFpD"sv, 0, "a program", "give a model: of a llamafile, the GGUF file that it was made from"},
    {"MZ\x90"sv, 0, "a program", "give a model: of a llamafile, the GGUF file that it was made from"},
    {"Entry not found"sv, 0, "a server's answer that there is no such file", kDownloadAgain},
    {"Repository not found"sv, 0, "a server's answer that there is no such repository", kDownloadAgain},
    {"Access to model"sv, 0, "a server's answer that the model needs a login",
     "log in to the hub and download it again"},
    {"Invalid username or password"sv, 0, "a server's answer that the login failed",
     "log in to the hub and download it again"},
});

bool IsWebPage(std::string_view head) {
  head = head.substr(std::min(head.find_first_not_of(" \t\r\n"), head.size()), 16);
  std::string start(head);
  std::transform(start.begin(), start.end(), start.begin(), [](unsigned char c) { return std::tolower(c); });
  return start.starts_with("<!doctype html") || start.starts_with("<html") || start.starts_with("<?xml");
}

// Eight bytes of length, then JSON; perhaps cut.
bool IsSafetensors(std::string_view head) {
  constexpr uint64_t kHeaderBytesMax = 100'000'000;
  uint64_t header_bytes = 0;
  if (head.size() <= sizeof(header_bytes)) return false;
  std::memcpy(&header_bytes, head.data(), sizeof(header_bytes));
  return head[sizeof(header_bytes)] == '{' && header_bytes < kHeaderBytesMax;
}

Status Explain(const std::string& path, std::string_view what, std::string_view advice) {
  return DataLoss(fmt::format("{}: is {}; {}", path, what, advice));
}

}  // namespace

std::optional<Status> ExplainForeignFile(const std::string& path, std::span<const std::byte> bytes, FileFormat wanted) {
  constexpr size_t kHeadBytes = 1024;
  const std::string_view head(reinterpret_cast<const char*>(bytes.data()), std::min(bytes.size(), kHeadBytes));
  if (head.empty()) return Explain(path, "empty: its download or copy was interrupted", kDownloadAgain);
  // These two first: the length that opens a safetensors file may look like anything.
  if (IsSafetensors(head)) {
    if (wanted == FileFormat::kSafetensors) return std::nullopt;
    return Explain(path, "a safetensors file",
                   "give the directory that holds it beside its config.json and tokenizer.json");
  }
  if (head.starts_with("GGUF")) {
    if (wanted == FileFormat::kGguf) return std::nullopt;
    return Explain(path, "a GGUF file under another name", "give it as the model, with a name that ends in .gguf");
  }
  for (const Signature& known : kSignatures) {
    if (head.size() > known.offset && head.substr(known.offset).starts_with(known.magic)) {
      return Explain(path, known.what, known.advice);
    }
  }
  if (IsWebPage(head)) {
    return Explain(path, "a web page: a server answered with it instead of the file", kDownloadAgain);
  }
  const size_t first = head.find_first_not_of(" \t\r\n");
  if (wanted != FileFormat::kJson && first != std::string_view::npos && head[first] == '{') {
    return Explain(path, "JSON text", "give the GGUF file or the directory of the model that it belongs to");
  }
  return std::nullopt;
}

}  // namespace pensieve::formats
