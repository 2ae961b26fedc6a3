// SHA-256 of files, for checking what came over the network.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "base/status.h"

namespace pensieve::hub {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(std::span<const std::byte> bytes);
  // Lower-case hex of everything so far; the object is finished after it.
  std::string HexDigest();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

Result<std::string> Sha256OfFile(const std::string& path);

}  // namespace pensieve::hub
