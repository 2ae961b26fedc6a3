#include "formats/foreign_file.h"

#include <gtest/gtest.h>

#include "formats/config_fields.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "formats/test_files.h"

namespace pensieve::formats {
namespace {

std::string Explain(std::string_view bytes, FileFormat wanted) {
  const auto error = ExplainForeignFile("x/file", std::as_bytes(std::span(bytes)), wanted);
  return error ? error->message() : "";
}

TEST(ForeignFile, IsNamedForWhatItIsInEveryPlace) {
  using namespace std::string_literals;
  const std::vector<std::pair<std::string, std::vector<std::string>>> cases = {
      {"", {"is empty", "download"}},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", {"git-lfs pointer", "git lfs pull"}},
      {"PK\x03\x04rest", {"zip archive", "PyTorch", "safetensors and GGUF"}},
      {"\x80\x02}q", {"pickle", "convert"}},
      {"\x89HDF\r\n\x1a\n", {"HDF5"}},
      {"\x1f\x8b\x08", {"gzip", "unpack"}},
      {std::string(257, 'a') + "ustar", {"tar archive"}},
      {"tjgg\x03", {"before GGUF"}},
      {"\x7f"
       "ELF\x02",
       {"a program"}},
      {"\n<!DOCTYPE HTML><html>", {"web page", "download"}},
      {"Entry not found", {"no such file"}},
  };
  for (const auto& [bytes, message] : cases) {
    for (const FileFormat wanted : {FileFormat::kGguf, FileFormat::kSafetensors, FileFormat::kJson}) {
      SCOPED_TRACE(bytes);
      const std::string error = Explain(bytes, wanted);
      ExpectMessage(error, message);
      EXPECT_TRUE(error.starts_with("x/file: is ")) << error;
    }
  }
}

TEST(ForeignFile, IsNotWhatWasWanted) {
  const std::string gguf = GgufWriter().Bytes();
  const std::string safetensors = SafetensorsBytes("{}", "");
  EXPECT_EQ(Explain(gguf, FileFormat::kGguf), "");
  EXPECT_EQ(Explain(safetensors, FileFormat::kSafetensors), "");
  EXPECT_EQ(Explain("{\"a\":", FileFormat::kJson), "");
  ExpectMessage(Explain(gguf, FileFormat::kSafetensors), {"GGUF file under another name"});
  ExpectMessage(Explain(safetensors, FileFormat::kGguf), {"safetensors file", "directory"});
  ExpectMessage(Explain("{\"a\":", FileFormat::kGguf), {"JSON"});
  EXPECT_EQ(Explain("anything else", FileFormat::kGguf), "");
  // A header of 640 or 35,615 bytes begins like a pickle or a gzip archive.
  for (const size_t length : {size_t{0x0280}, size_t{0x8b1f}}) {
    EXPECT_EQ(Explain(SafetensorsBytes("{" + std::string(length - 1, ' '), ""), FileFormat::kSafetensors), "");
  }
}

TEST(ForeignFile, IsExplainedByTheReaders) {
  const TempDirectory dir;
  const std::string pointer = dir.Write("pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
  ExpectMessage(GgufFile::Open(pointer).error().message(), {pointer, "git-lfs"});
  ExpectMessage(SafetensorsSet::OpenFile(pointer).error().message(), {pointer, "git-lfs"});
  ExpectMessage(ReadJsonObject(pointer, 1000).error().message(), {pointer, "git-lfs"});
  ExpectMessage(GgufFile::Open(dir.Write("a.gguf.part1of2", "GGUF")).error().message(), {"one piece", "cat"});
}

}  // namespace
}  // namespace pensieve::formats
