#include "hub/sha256.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>

#include "base/mapped_file.h"

namespace pensieve::hub {

struct Sha256::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(evp); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  PENSIEVE_CHECK(EVP_DigestInit_ex(context_->evp, EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() = default;

void Sha256::Update(std::span<const std::byte> bytes) {
  PENSIEVE_CHECK(EVP_DigestUpdate(context_->evp, bytes.data(), bytes.size()) == 1);
}

std::string Sha256::HexDigest() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int length = 0;
  PENSIEVE_CHECK(EVP_DigestFinal_ex(context_->evp, digest.data(), &length) == 1);
  std::string hex;
  for (unsigned int i = 0; i < length; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

Result<std::string> Sha256OfFile(const std::string& path) {
  PENSIEVE_TRY(const auto file, MappedFile::Open(path));
  Sha256 sha;
  sha.Update(file.bytes());
  return sha.HexDigest();
}

}  // namespace pensieve::hub
