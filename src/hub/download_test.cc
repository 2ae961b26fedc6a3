#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>

#include "base/mapped_file.h"
#include "hub/digest.h"
#include "hub/download.h"
#include "hub/file_lock.h"
#include "hub/http_get.h"
#include "hub/loopback_server.h"

namespace pensieve::hub {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// Bytes that no shifted copy of themselves equals.
std::string Pattern(size_t bytes) {
  std::string text(bytes, '\0');
  uint32_t state = 1;
  for (char& c : text) {
    state = state * 1664525 + 1013904223;
    c = static_cast<char>(state >> 24);
  }
  return text;
}

class DownloadTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = fs::temp_directory_path() / ("pensieve_download_test_" + std::to_string(::getpid()));
    fs::create_directories(directory_);
  }
  void TearDown() override { fs::remove_all(directory_); }
  std::string Path(const std::string& name) const { return directory_ / name; }
  std::string Sha256(const std::string& text) const {
    std::ofstream(Path("digest"), std::ios::binary) << text;
    return *Sha256OfFile(Path("digest"));
  }
  std::string Contents(const std::string& name) const {
    const auto text = ReadFile(Path(name), size_t{1} << 26);
    return text.has_value() ? *text : "(" + text.error().message() + ")";
  }
  FileRequest File(const std::string& url, const std::string& name, int64_t bytes = -1) const {
    return {.url = url, .destination = Path(name), .bytes = bytes, .sha256 = "", .git_sha1 = ""};
  }
  void ExpectNothingLeft(const std::string& name) const {
    for (const char* ending : {"", ".part", ".part.json"}) EXPECT_FALSE(fs::exists(Path(name + ending))) << ending;
  }

  fs::path directory_;
};

TEST_F(DownloadTest, DigestsOfAbc) {
  std::ofstream(Path("abc")) << "abc";
  EXPECT_EQ(*Sha256OfFile(Path("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  // echo -n abc | git hash-object --stdin
  EXPECT_EQ(*GitBlobSha1OfFile(Path("abc")), "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f");
  EXPECT_EQ(Sha256OfFile(Path("abc"), [] { return true; }).error().code(), StatusCode::kCancelled);
}

TEST_F(DownloadTest, ResumesACutDownload) {
  const std::string body = Pattern(100'000);
  std::mutex mutex;
  std::vector<std::string> ranges;
  LoopbackServer server([&](const std::string& head, int connection) {
    const std::lock_guard lock(mutex);
    ranges.push_back(HeaderOf(head, "Range") + " " + HeaderOf(head, "If-Range"));
    const std::string reply = ServeFile(head, body);
    return connection == 0 ? reply.substr(0, reply.size() - 60'000) : reply;
  });
  auto file = File(server.url("/f"), "f", 100'000);
  file.sha256 = Sha256(body);
  const auto status = Download({file}, {});
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(Contents("f"), body);
  EXPECT_THAT(ranges, testing::ElementsAre(" ", "bytes=40000-99999 \"v1\""));
  EXPECT_FALSE(fs::exists(Path("f.part")));
  EXPECT_FALSE(fs::exists(Path("f.part.json")));
}

TEST_F(DownloadTest, ALaterRunGoesOn) {
  const std::string body = Pattern(100'000);
  std::atomic<bool> cut = true;
  std::atomic<size_t> sent = 0;
  LoopbackServer server([&](const std::string& head, int) {
    if (cut && !HeaderOf(head, "Range").empty()) return Reply("404 Not Found", "", 0);
    const std::string reply = ServeFile(head, body);
    if (!cut) sent += reply.size();
    return cut ? reply.substr(0, 70'000) : reply;
  });
  auto file = File(server.url("/f"), "f", 100'000);
  file.sha256 = Sha256(body);
  EXPECT_EQ(Download({file}, {}).code(), StatusCode::kNotFound);
  EXPECT_TRUE(fs::exists(Path("f.part")));
  EXPECT_FALSE(fs::exists(Path("f")));
  cut = false;
  EXPECT_TRUE(Download({file}, {}).ok());
  EXPECT_EQ(Contents("f"), body);
  EXPECT_LT(sent, 40'000u);
}

TEST_F(DownloadTest, LargeFilesComeInPiecesAndManyAtOnce) {
  const std::string big = Pattern(1'000'001);
  std::mutex mutex;
  std::set<std::string> ranges;
  LoopbackServer server([&](const std::string& head, int connection) {
    const std::lock_guard lock(mutex);
    ranges.insert(HeaderOf(head, "Range"));
    const std::string reply = ServeFile(head, head.starts_with("GET /small") ? "small" : big);
    // Every third connection breaks somewhere.
    return connection % 3 == 2 ? reply.substr(0, reply.size() / 2) : reply;
  });
  std::vector<FileRequest> files = {File(server.url("/big"), "big", 1'000'001)};
  files[0].sha256 = Sha256(big);
  for (int i = 0; i < 20; ++i)
    files.push_back(File(server.url("/small" + std::to_string(i)), "small" + std::to_string(i), 5));
  files.push_back(File(server.url("/big"), "undeclared"));
  DownloadOptions options;
  options.segment_bytes = 100'000;
  std::atomic<int64_t> last = 0;
  options.progress = [&](const DownloadProgress& progress) {
    EXPECT_GE(progress.done_bytes, last.load());
    last = progress.done_bytes;
    return true;
  };
  const auto status = Download(files, options);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(Contents("big"), big);
  EXPECT_EQ(Contents("undeclared"), big);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Contents("small" + std::to_string(i)), "small");
  EXPECT_TRUE(ranges.contains("bytes=900000-999999"));
  EXPECT_TRUE(ranges.contains("bytes=1000000-1000000"));
}

TEST_F(DownloadTest, PiecesAreResumedEach) {
  const std::string body = Pattern(500'000);
  std::atomic<int> answers = 3;
  LoopbackServer server([&](const std::string& head, int) {
    return answers-- > 0 ? ServeFile(head, body) : Reply("404 Not Found", "", 0);
  });
  auto file = File(server.url("/f"), "f", 500'000);
  file.sha256 = Sha256(body);
  DownloadOptions options;
  options.segment_bytes = 100'000;
  options.connections = 2;
  EXPECT_EQ(Download({file}, options).code(), StatusCode::kNotFound);
  answers = 2;  // just those that are missing
  const auto status = Download({file}, options);
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(Contents("f"), body);
}

TEST_F(DownloadTest, AServerWithoutRangesSendsItWhole) {
  const std::string body = Pattern(500'000);
  std::atomic<int> requests = 0;
  LoopbackServer server([&](const std::string&, int) {
    const std::string reply = Reply("200 OK", body, body.size());
    return ++requests == 1 ? reply.substr(0, 200'000) : reply;
  });
  DownloadOptions options;
  options.segment_bytes = 100'000;
  const auto status = Download({File(server.url("/f"), "f", 500'000)}, options);
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(Contents("f"), body);
  EXPECT_EQ(requests, 2);
}

TEST_F(DownloadTest, AFileThatChangedStartsOver) {
  const std::string body = Pattern(100'000);
  const std::string fresh(100'000, 'n');
  LoopbackServer server([&](const std::string& head, int connection) {
    return connection == 0 ? ServeFile(head, body, "\"v1\"").substr(0, 50'000) : ServeFile(head, fresh, "\"v2\"");
  });
  const auto status = Download({File(server.url("/f"), "f", 100'000)}, {});
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(Contents("f"), fresh);
}

TEST_F(DownloadTest, DamagedLeftoversAreFetchedAgain) {
  const std::string body = Pattern(100'000);
  std::atomic<bool> cut = true;
  LoopbackServer server([&](const std::string& head, int) {
    if (cut && !HeaderOf(head, "Range").empty()) return Reply("404 Not Found", "", 0);
    const std::string reply = ServeFile(head, body);
    return cut ? reply.substr(0, 70'000) : reply;
  });
  auto file = File(server.url("/f"), "f", 100'000);
  file.sha256 = Sha256(body);
  EXPECT_FALSE(Download({file}, {}).ok());
  std::fstream(Path("f.part"), std::ios::in | std::ios::out | std::ios::binary) << "damage";
  cut = false;
  const auto status = Download({file}, {});
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(Contents("f"), body);
}

TEST_F(DownloadTest, SenselessNotesAreNoReasonToFail) {
  for (const char* note : {"", "{}", "[1]", R"({"url":1,"bytes":[],"etag":0,"segments":{}})",
                           R"({"url":"URL","bytes":5,"sha256":"","etag":"","segments":[[0,5,99]]})",
                           R"({"url":"URL","bytes":5,"sha256":"","etag":"","segments":[[0,3,3],[4,5,0]]})",
                           R"({"url":"URL","bytes":5,"sha256":"","etag":"","segments":[[0,5,-1]]})",
                           R"({"url":"URL","bytes":5,"sha256":"","etag":"","segments":[[0,9223372036854775807,4]]})"}) {
    LoopbackServer server([](const std::string& head, int) { return ServeFile(head, "fresh"); });
    std::string text = note;
    if (const size_t at = text.find("URL"); at != std::string::npos) text.replace(at, 3, server.url("/f"));
    std::ofstream(Path("f.part")) << "stale bytes that are longer than the file itself";
    std::ofstream(Path("f.part.json")) << text;
    const auto status = Download({File(server.url("/f"), "f", 5)}, {});
    EXPECT_TRUE(status.ok()) << note << status.message();
    EXPECT_EQ(Contents("f"), "fresh") << note;
  }
}

TEST_F(DownloadTest, AWrongChecksumLeavesNothingBehind) {
  LoopbackServer server([](const std::string&, int) { return Reply("200 OK", "evil", 4); });
  auto file = File(server.url("/f"), "f", 4);
  file.sha256 = std::string(64, '0');
  auto status = Download({file}, {});
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_THAT(status.message(), HasSubstr("SHA-256"));
  ExpectNothingLeft("f");
  file.sha256.clear();
  file.git_sha1 = std::string(40, '0');
  EXPECT_EQ(Download({file}, {}).code(), StatusCode::kDataLoss);
  ExpectNothingLeft("f");
}

TEST_F(DownloadTest, SizesThatAreLiesAreRefused) {
  const std::string chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
  const std::string endless = [] {
    std::string chunks;
    for (int i = 0; i < 100; ++i) chunks += "400\r\n" + std::string(1024, 'x') + "\r\n";
    return chunks;
  }();
  LoopbackServer server([&](const std::string& head, int) {
    if (head.starts_with("GET /more")) return Reply("200 OK", std::string(5000, 'x'), 5000);
    if (head.starts_with("GET /less")) return Reply("200 OK", "xx", 2);
    if (head.starts_with("GET /endless")) return chunked + endless;
    return Reply("206 Partial Content", "0123456789", 10, "Content-Range: bytes 7-16/1000\r\n");
  });
  EXPECT_EQ(Download({File(server.url("/more"), "f", 1000)}, {}).code(), StatusCode::kDataLoss);
  ExpectNothingLeft("f");
  EXPECT_EQ(Download({File(server.url("/less"), "f", 1000)}, {}).code(), StatusCode::kDataLoss);
  ExpectNothingLeft("f");
  EXPECT_EQ(Download({File(server.url("/endless"), "f", 1000)}, {}).code(), StatusCode::kDataLoss);
  auto undeclared = File(server.url("/endless"), "f");
  undeclared.undeclared_bytes_max = 50'000;
  EXPECT_EQ(Download({undeclared}, {}).code(), StatusCode::kDataLoss);
  undeclared.url = server.url("/more");
  undeclared.undeclared_bytes_max = 4999;
  EXPECT_EQ(Download({undeclared}, {}).code(), StatusCode::kDataLoss);
  DownloadOptions pieces;
  pieces.segment_bytes = 100;
  EXPECT_EQ(Download({File(server.url("/range"), "f", 1000)}, pieces).code(), StatusCode::kDataLoss);
  const auto status = Download({File(server.url("/more"), "f", int64_t{1} << 60)}, {});
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("GiB left"));
  ExpectNothingLeft("f");
}

TEST_F(DownloadTest, NamesTheHttpErrorAndStopsWhenAsked) {
  LoopbackServer server([](const std::string& head, int) {
    return head.starts_with("GET /missing") ? Reply("404 Not Found", "", 0)
                                            : Reply("200 OK", std::string(1 << 20, 'x'), 1 << 30);
  });
  const auto missing = Download({File(server.url("/missing"), "f")}, {});
  EXPECT_EQ(missing.code(), StatusCode::kNotFound);
  EXPECT_THAT(missing.message(), HasSubstr("404"));
  DownloadOptions options;
  options.progress = [](const DownloadProgress&) { return false; };
  EXPECT_EQ(Download({File(server.url("/big"), "g", 1 << 30)}, options).code(), StatusCode::kCancelled);
}

TEST_F(DownloadTest, PlacesThatCannotBeWrittenAreNamed) {
  LoopbackServer server([](const std::string&, int) { return Reply("200 OK", "x", 1); });
  const auto status = Download({File(server.url("/f"), "no/such/directory/f", 1)}, {});
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(status.message(), HasSubstr("no/such/directory"));
  // A link in the place of the partial file leads nowhere.
  std::ofstream(Path("precious")) << "precious";
  fs::create_symlink(Path("precious"), Path("f.part"));
  EXPECT_FALSE(Download({File(server.url("/f"), "f", 1)}, {}).ok());
  EXPECT_EQ(Contents("precious"), "precious");
}

// Files of this process end at `bytes` while it lives, as on a disk that is full.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : action_(std::signal(SIGXFSZ, SIG_IGN)) {
    EXPECT_EQ(::getrlimit(RLIMIT_FSIZE, &before_), 0);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, action_);
  }

 private:
  void (*action_)(int);
  rlimit before_{};
};

TEST_F(DownloadTest, AFullDiskIsToldAndALaterRunGoesOn) {
  const std::string body = Pattern(1'000'000);
  std::atomic<size_t> sent = 0;
  LoopbackServer server([&](const std::string& head, int) {
    const std::string reply = ServeFile(head, body);
    sent += reply.size();
    return reply;
  });
  auto file = File(server.url("/f"), "f", 1'000'000);
  file.sha256 = Sha256(body);
  {
    const FileSizeLimit limit(600'000);
    const auto status = Download({file}, {});
    EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status.message();
    EXPECT_THAT(status.message(), testing::AllOf(HasSubstr("f.part"), HasSubstr("cannot write")));
  }
  EXPECT_FALSE(fs::exists(Path("f")));
  EXPECT_TRUE(fs::exists(Path("f.part")));
  sent = 0;
  EXPECT_TRUE(Download({file}, {}).ok());
  EXPECT_EQ(Contents("f"), body);
  EXPECT_LT(sent, 600'000u);
}

TEST_F(DownloadTest, TransientErrorsAreTriedAgain) {
  LoopbackServer server([](const std::string&, int connection) {
    if (connection == 0) return Reply("503 Service Unavailable", "busy", 4);
    if (connection == 1) return Reply("429 Too Many Requests", "", 0, "Retry-After: 0\r\n");
    return connection == 2 ? std::string() : Reply("200 OK", "fine", 4);
  });
  const auto status = Download({File(server.url("/f"), "f", 4)}, {});
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(Contents("f"), "fine");
}

class HttpGetTest : public testing::Test {
 protected:
  static Result<std::string> Get(const std::string& url, const std::string& token = "") {
    HttpReply reply;
    return FetchText(
        {.url = url, .bearer_token = token, .credentials = {}, .bytes_max = 1000, .attempts = 1, .stopped = {}}, reply);
  }
};

TEST_F(HttpGetTest, ATokenStaysWithItsHost) {
  std::mutex mutex;
  std::vector<std::string> tokens;
  const auto note = [&](const std::string& head) {
    const std::lock_guard lock(mutex);
    tokens.push_back(HeaderOf(head, "Authorization"));
  };
  LoopbackServer other([&](const std::string& head, int) {
    note(head);
    return Reply("200 OK", "other", 5);
  });
  LoopbackServer server([&](const std::string& head, int) {
    note(head);
    if (head.starts_with("GET /here")) return Reply("302 Found", "", 0, "Location: /there\r\n");
    if (head.starts_with("GET /there"))
      return Reply("307 Temporary Redirect", "body", 4, "Location: " + other.url("/x?signature=1") + "\r\n");
    return Reply("200 OK", "", 0);
  });
  EXPECT_EQ(*Get(server.url("/here"), "secret"), "other");
  EXPECT_THAT(tokens, testing::ElementsAre("Bearer secret", "Bearer secret", ""));
}

TEST_F(HttpGetTest, CredentialsStayWithTheirHostAndOutOfMessages) {
  std::mutex mutex;
  std::vector<std::string> sent;
  const auto note = [&](const std::string& head) {
    const std::lock_guard lock(mutex);
    sent.push_back(HeaderOf(head, "Authorization"));
  };
  LoopbackServer other([&](const std::string& head, int) {
    note(head);
    return Reply("403 Forbidden", "", 0);
  });
  LoopbackServer server([&](const std::string& head, int) {
    note(head);
    return Reply("302 Found", "", 0, "Location: " + other.url("/x?signature=1") + "\r\n");
  });
  HttpReply reply;
  const auto text = FetchText({.url = server.url("/here?token=abc"),
                               .bearer_token = "",
                               .credentials = {"ada", "secret"},
                               .bytes_max = 1000,
                               .attempts = 1,
                               .stopped = {}},
                              reply);
  ASSERT_FALSE(text.has_value());
  for (const char* secret : {"abc", "secret", "signature"}) EXPECT_THAT(text.error().message(), Not(HasSubstr(secret)));
  EXPECT_THAT(sent, testing::ElementsAre("Basic YWRhOnNlY3JldA==", ""));
}

TEST_F(HttpGetTest, BadRedirectsAreRefused) {
  LoopbackServer server([](const std::string& head, int) {
    if (head.starts_with("GET /loop")) return Reply("302 Found", "", 0, "Location: /loop\r\n");
    if (head.starts_with("GET /file")) return Reply("302 Found", "", 0, "Location: file:///etc/passwd\r\n");
    return Reply("302 Found", "", 0);
  });
  EXPECT_THAT(Get(server.url("/loop")).error().message(), HasSubstr("redirects"));
  EXPECT_THAT(Get(server.url("/file")).error().message(), HasSubstr("file"));
  EXPECT_EQ(Get(server.url("/nowhere")).error().code(), StatusCode::kFailedPrecondition);
  EXPECT_FALSE(Get("file:///etc/passwd").has_value());
  EXPECT_FALSE(Get("not a url").has_value());
}

TEST_F(HttpGetTest, WhereRedirectsMayLead) {
  EXPECT_TRUE(CheckRedirect("http://a/x", "http://b/y").ok());
  EXPECT_TRUE(CheckRedirect("http://a/x", "https://a/x").ok());
  EXPECT_TRUE(CheckRedirect("https://a/x", "https://b/y").ok());
  EXPECT_FALSE(CheckRedirect("https://a/x", "http://a/x").ok());
  EXPECT_FALSE(CheckRedirect("https://a/x", "HTTP://a/x").ok());
  for (const char* to : {"ftp://a/x", "file:///x", "x", "", "javascript:x"})
    EXPECT_FALSE(CheckRedirect("https://a/x", to).ok()) << to;
}

TEST_F(HttpGetTest, DocumentsAreBounded) {
  LoopbackServer server([](const std::string&, int) { return Reply("200 OK", std::string(1001, 'x'), 1001); });
  EXPECT_EQ(Get(server.url("/f")).error().code(), StatusCode::kDataLoss);
}

TEST_F(DownloadTest, ALockIsHeldByOneAtATime) {
  auto first = FileLock::Acquire(Path("lock"), {});
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(FileLock::Acquire(Path("lock"), [] { return false; }).error().code(), StatusCode::kCancelled);
  { const FileLock freed = *std::move(first); }
  EXPECT_TRUE(FileLock::Acquire(Path("lock"), [] { return false; }).has_value());
}

}  // namespace
}  // namespace pensieve::hub
