// A temporary file for targets whose input is a file: made once, rewritten for every input, removed at exit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include <stdlib.h>

namespace pensieve::fuzz {

class FuzzDirectory {
 public:
  FuzzDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "pensieve-fuzz-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~FuzzDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  FuzzDirectory(const FuzzDirectory&) = delete;
  FuzzDirectory& operator=(const FuzzDirectory&) = delete;

  std::string path() const { return path_.string(); }
  std::string Write(const std::string& name, const uint8_t* bytes, size_t size) const {
    const std::filesystem::path file = path_ / name;
    std::ofstream(file, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes), static_cast<std::streamsize>(size));
    return file.string();
  }

 private:
  std::filesystem::path path_;
};

}  // namespace pensieve::fuzz
