// URLs that may hold secrets: what is sent, and what may be shown and noted.
#pragma once

#include <string>

namespace pensieve::hub {

// For HTTP's basic authentication.
struct Credentials {
  std::string user;
  std::string password;

  bool empty() const { return user.empty() && password.empty(); }
};

// "https://user:pass@host/path" -> "https://host/path" and the two, percent escapes resolved.
struct UrlWithCredentials {
  std::string url;
  Credentials credentials;
};
UrlWithCredentials SplitCredentials(const std::string& url);

// The URL as messages and notes may hold it: without credentials, and "?..." for a query, which may hold a signature.
// Control characters are escaped.
std::string PublicUrl(const std::string& url);

}  // namespace pensieve::hub
