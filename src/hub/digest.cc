#include "hub/digest.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <memory>

#include "base/mapped_file.h"

namespace pensieve::hub {
namespace {

// Bytes between two looks at whether to stop: a few milliseconds' worth.
constexpr size_t kChunkBytes = size_t{8} << 20;

struct ContextFree {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

Result<std::string> HexDigest(const EVP_MD* algorithm, const std::string& prefix, std::span<const std::byte> bytes,
                              const StopCheck& stopped) {
  const std::unique_ptr<EVP_MD_CTX, ContextFree> context(EVP_MD_CTX_new());
  PENSIEVE_CHECK(EVP_DigestInit_ex(context.get(), algorithm, nullptr) == 1);
  PENSIEVE_CHECK(EVP_DigestUpdate(context.get(), prefix.data(), prefix.size()) == 1);
  for (size_t at = 0; at < bytes.size(); at += kChunkBytes) {
    if (stopped && stopped()) return Cancelled("stopped");
    const auto chunk = bytes.subspan(at, std::min(kChunkBytes, bytes.size() - at));
    PENSIEVE_CHECK(EVP_DigestUpdate(context.get(), chunk.data(), chunk.size()) == 1);
  }
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int length = 0;
  PENSIEVE_CHECK(EVP_DigestFinal_ex(context.get(), digest.data(), &length) == 1);
  return fmt::format("{:02x}", fmt::join(digest.begin(), digest.begin() + length, ""));
}

}  // namespace

Result<std::string> Sha256OfFile(const std::string& path, const StopCheck& stopped) {
  PENSIEVE_TRY(const auto file, MappedFile::Open(path));
  auto digest = HexDigest(EVP_sha256(), "", file.bytes(), stopped);
  PENSIEVE_RETURN_IF_ERROR(file.Check());
  return digest;
}

Result<std::string> GitBlobSha1OfFile(const std::string& path, const StopCheck& stopped) {
  PENSIEVE_TRY(const auto file, MappedFile::Open(path));
  std::string prefix = fmt::format("blob {}", file.bytes().size());
  prefix.push_back('\0');
  auto digest = HexDigest(EVP_sha1(), prefix, file.bytes(), stopped);
  PENSIEVE_RETURN_IF_ERROR(file.Check());
  return digest;
}

}  // namespace pensieve::hub
