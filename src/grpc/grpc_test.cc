// A real gRPC server on a free port and its generated client; behind the service seam stands a deterministic fixture.
#include "grpc/grpc_server.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <sstream>
#include <thread>

#include "akidb/embedding/v1/embedding.grpc.pb.h"

#if defined(__SANITIZE_THREAD__)
// Debian's gRPC is not built for ThreadSanitizer, which therefore sees none of its locks: every hand-over between two
// of its threads looks like a race. Reports with the library in a stack say nothing; all others still count.
extern "C" const char* __tsan_default_suppressions() {
  return "race:libgrpc\nrace:libgpr\nrace:libabsl\nrace:libprotobuf\nrace:^grpc::\n";
}
#endif

namespace pensieve::grpc_server {
namespace {

namespace wire = ::akidb::embedding::v1;
using ::testing::HasSubstr;

// Model "busy" is refused, "broken" fails, "throws" throws, "hold" waits to be cancelled; any other text t gives {length of t, 0.5}.
class EmbedFixture final : public service::Service {
 public:
  Status AddModel(const std::string&, std::vector<std::string>, std::unique_ptr<model::LoadedModel>) override {
    return Unimplemented("the fixture has its own models");
  }
  void SetLoading(std::optional<service::LoadProgress> progress) override { loading = std::move(progress); }
  void SetKvBytesMax(int64_t) override {}
  Result<std::unique_ptr<service::Generation>> Chat(service::ChatRequest) override { return Unimplemented("no chat"); }
  Result<std::unique_ptr<service::Generation>> Complete(service::CompletionRequest) override {
    return Unimplemented("no completion");
  }
  Result<int64_t> CountTokens(const service::ChatRequest&) override { return Unimplemented("no chat"); }
  Result<std::string> Render(const service::ChatRequest&) override { return Unimplemented("no chat"); }

  std::function<void()> Embed(service::EmbedRequest request,
                              std::function<void(Result<service::EmbedResult>)> done) override {
    if (request.model == "busy") done(ResourceExhausted("full").WithReason(ErrorReason::kQueueFull));
    else if (request.model == "broken") done(Internal("lost the device"));
    else if (request.model == "throws") throw std::runtime_error("no memory");
    else if (request.model == "hold") return Hold(std::move(done));
    else Answer(std::move(request), std::move(done));
    return [] {};
  }

  std::vector<service::ModelDescription> Models() const override { return {}; }
  Result<service::ModelDescription> FindModel(const std::string&, bool) const override {
    if (!ready) return NotFound("no embedding model is loaded");
    service::ModelDescription model;
    model.name = "tiny-embed";
    model.dimension = 2;
    model.embed_context_max = 8192;
    return model;
  }
  service::Health GetHealth() const override {
    service::Health health;
    health.ready = ready && !loading;
    health.loading = loading;
    return health;
  }
  std::vector<service::ModelMetrics> GetMetrics() const override { return {}; }
  void ClearCaches() override {}
  bool Drain(int64_t) override { return true; }

  // Waits as long as only a hanging server needs.
  bool WaitHeld(int count) {
    return Wait([&] { return held_ >= count; });
  }
  bool WaitCancelled(int count) {
    return Wait([&] { return cancelled_ >= count; });
  }

  void Join() {
    const std::lock_guard lock(mutex_);
    threads_.clear();
  }

  std::atomic<bool> ready = true;
  std::optional<service::LoadProgress> loading;  // set while no request is under way

 private:
  // From a thread of its own, as the real service does.
  void Answer(service::EmbedRequest request, std::function<void(Result<service::EmbedResult>)> done) {
    const std::lock_guard lock(mutex_);
    threads_.emplace_back([request = std::move(request), done = std::move(done)] { done(ResultOf(request)); });
  }

  static service::EmbedResult ResultOf(const service::EmbedRequest& request) {
    service::EmbedResult result{
        .model_name = "tiny-embed", .dimension = 2, .embeddings = {}, .tokens = {}, .prompt_tokens = 4, .total_s = 0.5};
    for (const std::string& text : request.texts) result.embeddings.push_back({static_cast<float>(text.size()), 0.5f});
    return result;
  }

  std::function<void()> Hold(std::function<void(Result<service::EmbedResult>)> done) {
    {
      const std::lock_guard lock(mutex_);
      ++held_;
    }
    changed_.notify_all();
    return [this, done = std::move(done), once = std::make_shared<std::once_flag>()] {
      std::call_once(*once, [&] {
        done(Cancelled("cancelled"));
        {
          const std::lock_guard lock(mutex_);
          ++cancelled_;
        }
        changed_.notify_all();
      });
    };
  }

  template <typename Condition>
  bool Wait(Condition condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(60), condition);
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  int held_ = 0;                       // guarded by mutex_
  int cancelled_ = 0;                  // guarded by mutex_
  std::vector<std::jthread> threads_;  // guarded by mutex_
};

// The messages of grpc.health.v1 and of server reflection, written by hand: their generated classes are no part of the
// Debian package. Field 1 of HealthCheckRequest is the name; field 1 of HealthCheckResponse is the status, 1 = SERVING.
std::string LengthDelimited(int field, const std::string& bytes) {
  return std::string(1, static_cast<char>(field << 3 | 2)) + static_cast<char>(bytes.size()) + bytes;
}
std::string BytesOf(const ::grpc::ByteBuffer& buffer) {
  std::vector<::grpc::Slice> slices;
  EXPECT_TRUE(buffer.Dump(&slices).ok());
  std::string bytes;
  for (const auto& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

class GrpcTest : public ::testing::Test {
 protected:
  GrpcTest() { options_.port = 0; }
  ~GrpcTest() override {
    server_.reset();
    service_.Join();
  }

  void Start() {
    logger_ = *Logger::Create({.level = "info", .format = "json", .stream = &log_});
    metrics_ = Metrics::Create("9", nullptr);
    auto server = GrpcServer::Start(options_, {.service = service_, .logger = *logger_, .metrics = *metrics_});
    ASSERT_TRUE(server.has_value()) << server.error().ToString();
    server_ = *std::move(server);
  }
  std::shared_ptr<::grpc::Channel> Channel() {
    if (!server_) Start();
    return ::grpc::CreateChannel(fmt::format("127.0.0.1:{}", server_->port()), ::grpc::InsecureChannelCredentials());
  }
  std::unique_ptr<wire::EmbeddingService::Stub> Stub() { return wire::EmbeddingService::NewStub(Channel()); }

  ::grpc::Status Embed(const wire::EmbedRequest& request, wire::EmbedResponse* response, const std::string& key = "") {
    ::grpc::ClientContext context;
    if (!key.empty()) context.AddMetadata("authorization", "Bearer " + key);
    return Stub()->Embed(&context, request, response);
  }
  ::grpc::Status EmbedTexts(const std::vector<std::string>& texts, const std::string& model = "") {
    wire::EmbedRequest request;
    for (const std::string& text : texts) request.add_texts(text);
    if (!model.empty()) request.set_model(model);
    wire::EmbedResponse response;
    return Embed(request, &response);
  }

  // A unary call by its path, for services whose classes we do not have.
  std::pair<::grpc::Status, std::string> Call(const std::string& path, const std::string& message) {
    const ::grpc::Slice slice(message);
    const ::grpc::ByteBuffer request(&slice, 1);
    ::grpc::ByteBuffer response;
    ::grpc::ClientContext context;
    ::grpc::CompletionQueue queue;
    ::grpc::Status status;
    const auto channel = Channel();
    ::grpc::TemplatedGenericStub<::grpc::ByteBuffer, ::grpc::ByteBuffer> stub(channel);
    auto call = stub.PrepareUnaryCall(&context, path, request, &queue);
    call->StartCall();
    call->Finish(&response, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    return {status, status.ok() ? BytesOf(response) : ""};
  }
  // The status of an Embed call that never sends its message.
  ::grpc::Status CallWithoutMessage(const std::string& key) {
    ::grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::seconds(60));  // only a hanging server needs it
    if (!key.empty()) context.AddMetadata("x-api-key", key);
    ::grpc::CompletionQueue queue;
    ::grpc::GenericStub stub(Channel());
    auto call = stub.PrepareCall(&context, "/akidb.embedding.v1.EmbeddingService/Embed", &queue);
    void* tag = nullptr;
    bool ok = false;
    call->StartCall(nullptr);
    queue.Next(&tag, &ok);
    ::grpc::Status status;
    call->Finish(&status, nullptr);
    queue.Next(&tag, &ok);
    return status;
  }
  std::pair<::grpc::Status, std::string> CheckHealth(const std::string& name) {
    return Call("/grpc.health.v1.Health/Check", name.empty() ? "" : LengthDelimited(1, name));
  }

  GrpcOptions options_;
  EmbedFixture service_;
  std::ostringstream log_;
  std::unique_ptr<Logger> logger_;
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<GrpcServer> server_;
};

TEST_F(GrpcTest, Embed) {
  wire::EmbedRequest request;
  request.add_texts("Hello gRPC");
  request.add_texts("");
  wire::EmbedResponse response;
  ASSERT_TRUE(Embed(request, &response).ok());
  ASSERT_EQ(response.embeddings_size(), 2);
  EXPECT_EQ(response.embeddings(0).values(0), 10.0f);
  EXPECT_EQ(response.embeddings(1).values(0), 0.0f);
  EXPECT_EQ(response.model(), "qwen3-0.6b-4bit");
  EXPECT_EQ(response.dimension(), 2u);
  EXPECT_EQ(response.usage().total_tokens(), 2u);
  EXPECT_EQ(response.usage().duration_ms(), 500u);
  request.set_model("any name");
  ASSERT_TRUE(Embed(request, &response).ok());
  EXPECT_EQ(response.model(), "any name");
}

TEST_F(GrpcTest, InvalidArguments) {
  const ::grpc::Status none = EmbedTexts({});
  EXPECT_EQ(none.error_code(), ::grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(none.error_message(), "texts cannot be empty");
  EXPECT_EQ(EmbedTexts(std::vector<std::string>(33, "x")).error_message(), "Maximum 32 texts per request");
  EXPECT_TRUE(EmbedTexts(std::vector<std::string>(32, "x")).ok());
  wire::EmbedRequest request;
  request.add_texts("x");
  request.set_pooling("best");
  wire::EmbedResponse response;
  EXPECT_EQ(Embed(request, &response).error_code(), ::grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(GrpcTest, Failures) {
  const ::grpc::Status busy = EmbedTexts({"x"}, "busy");
  EXPECT_EQ(busy.error_code(), ::grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(busy.error_message(),
            "Embedding model is currently processing another request. Please retry with exponential backoff.");
  const ::grpc::Status broken = EmbedTexts({"x"}, "broken");
  EXPECT_EQ(broken.error_code(), ::grpc::StatusCode::INTERNAL);
  EXPECT_EQ(broken.error_message(), "Embedding generation failed: lost the device");
  EXPECT_NE(EmbedTexts({std::string(5 << 20, 'x')}).error_code(), ::grpc::StatusCode::OK);
  EXPECT_TRUE(EmbedTexts({"x"}).ok());
  EXPECT_EQ(Call("/akidb.embedding.v1.EmbeddingService/Nothing", "").first.error_code(),
            ::grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_FALSE(Call("/akidb.embedding.v1.EmbeddingService/Embed", "\xff\xff\xff\xff").first.ok());
  const std::string text = metrics_->PrometheusText();
  EXPECT_THAT(text, HasSubstr("status=\"UNAVAILABLE\"} 1"));
  EXPECT_THAT(text, HasSubstr("akidb_embedding_busy_rejections_total 1"));
  EXPECT_THAT(log_.str(), HasSubstr("\"transport\":\"grpc\""));
}

TEST_F(GrpcTest, ModelInfo) {
  ::grpc::ClientContext context;
  wire::GetModelInfoResponse response;
  ASSERT_TRUE(Stub()->GetModelInfo(&context, {}, &response).ok());
  EXPECT_EQ(response.model(), "tiny-embed");
  EXPECT_EQ(response.dimension(), 2u);
  EXPECT_EQ(response.max_tokens(), 512u);
  service_.ready = false;
  ::grpc::ClientContext second;
  const ::grpc::Status status = Stub()->GetModelInfo(&second, {}, &response);
  EXPECT_EQ(status.error_message(), "Failed to get model info: no embedding model is loaded");
}

TEST_F(GrpcTest, CancellationAndDeadlineReachTheService) {
  const auto stub = Stub();
  wire::EmbedRequest request;
  request.add_texts("x");
  request.set_model("hold");
  {
    ::grpc::ClientContext context;
    std::jthread canceller([&] {
      EXPECT_TRUE(service_.WaitHeld(1));
      context.TryCancel();
    });
    wire::EmbedResponse response;
    EXPECT_EQ(stub->Embed(&context, request, &response).error_code(), ::grpc::StatusCode::CANCELLED);
  }
  EXPECT_TRUE(service_.WaitCancelled(1));
  ::grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  wire::EmbedResponse response;
  EXPECT_EQ(stub->Embed(&context, request, &response).error_code(), ::grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(GrpcTest, ManyCallsAtOnce) {
  const auto stub = Stub();
  std::vector<std::jthread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&stub, t] {
      for (int i = 0; i < 20; ++i) {
        wire::EmbedRequest request;
        request.add_texts(std::string(static_cast<size_t>(t), 'x'));
        wire::EmbedResponse response;
        ::grpc::ClientContext context;
        ASSERT_TRUE(stub->Embed(&context, request, &response).ok());
        EXPECT_EQ(response.embeddings(0).values(0), static_cast<float>(t));
      }
    });
}

TEST_F(GrpcTest, ApiKeys) {
  options_.api_keys = {"alpha"};
  wire::EmbedRequest request;
  request.add_texts("x");
  wire::EmbedResponse response;
  EXPECT_EQ(Embed(request, &response).error_code(), ::grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(Embed(request, &response, "alph").error_code(), ::grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_TRUE(Embed(request, &response, "alpha").ok());
  EXPECT_TRUE(CheckHealth("").first.ok());
}

// A call without a key costs its metadata and nothing more.
TEST_F(GrpcTest, TheKeyIsCheckedBeforeTheMessageIsRead) {
  options_.api_keys = {"alpha"};
  EXPECT_EQ(CallWithoutMessage("").error_code(), ::grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(CallWithoutMessage("beta").error_code(), ::grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(GrpcTest, AMessageThatDoesNotComeIsNotWaitedForLong) {
  options_.request_timeout_ms = 200;
  EXPECT_EQ(CallWithoutMessage("").error_code(), ::grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(EmbedTexts({"x"}).ok());
}

TEST_F(GrpcTest, CallsAndTheirBytesAreBounded) {
  options_.calls_max = 1;
  options_.messages_bytes_max = 1000;
  EXPECT_EQ(EmbedTexts({std::string(2000, 'x')}).error_code(), ::grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(EmbedTexts({std::string(900, 'x')}).ok());
  EXPECT_TRUE(EmbedTexts({std::string(900, 'x')}).ok());
  ::grpc::ClientContext context;
  std::jthread holder([&, stub = Stub()] {
    wire::EmbedRequest request;
    request.add_texts("x");
    request.set_model("hold");
    wire::EmbedResponse response;
    EXPECT_EQ(stub->Embed(&context, request, &response).error_code(), ::grpc::StatusCode::CANCELLED);
  });
  ASSERT_TRUE(service_.WaitHeld(1));
  EXPECT_EQ(EmbedTexts({"x"}).error_code(), ::grpc::StatusCode::UNAVAILABLE);
  context.TryCancel();
}

// A string takes two bytes of the message and fifty of memory.
TEST_F(GrpcTest, CountlessTextsAreRefusedBeforeTheyAreBuilt) {
  EXPECT_EQ(EmbedTexts(std::vector<std::string>(1'000'000)).error_message(), "Maximum 32 texts per request");
}

TEST_F(GrpcTest, AnExceptionIsThatCallsError) {
  EXPECT_EQ(EmbedTexts({"x"}, "throws").error_code(), ::grpc::StatusCode::INTERNAL);
  EXPECT_TRUE(EmbedTexts({"x"}).ok());
}

TEST_F(GrpcTest, HealthFollowsReadiness) {
  const std::string serving("\x08\x01", 2);
  for (const char* name : {"", "akidb.embedding.v1.EmbeddingService"}) {
    const auto [status, answer] = CheckHealth(name);
    EXPECT_TRUE(status.ok());
    EXPECT_EQ(answer, serving);
  }
  EXPECT_EQ(CheckHealth("no.such.Service").first.error_code(), ::grpc::StatusCode::NOT_FOUND);
  service_.ready = false;
  bool turned = false;
  for (int i = 0; i < 600 && !turned; ++i) {
    turned = CheckHealth("").second == std::string("\x08\x02", 2);
    if (!turned) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  EXPECT_TRUE(turned);
}

TEST_F(GrpcTest, ReflectionListsAndDescribes) {
  const auto ask = [&](const std::string& message) {
    ::grpc::ClientContext context;
    ::grpc::CompletionQueue queue;
    ::grpc::GenericStub stub(Channel());
    auto stream = stub.PrepareCall(&context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
    void* tag = nullptr;
    bool ok = false;
    const auto wait = [&] { return queue.Next(&tag, &ok) && ok; };
    stream->StartCall(nullptr);
    EXPECT_TRUE(wait());
    const ::grpc::Slice slice(message);
    stream->Write(::grpc::ByteBuffer(&slice, 1), nullptr);
    EXPECT_TRUE(wait());
    ::grpc::ByteBuffer response;
    stream->Read(&response, nullptr);
    EXPECT_TRUE(wait());
    stream->WritesDone(nullptr);
    EXPECT_TRUE(wait());
    ::grpc::Status status;
    stream->Finish(&status, nullptr);
    queue.Next(&tag, &ok);
    EXPECT_TRUE(status.ok());
    return BytesOf(response);
  };
  const std::string services = ask(LengthDelimited(7, ""));  // list_services
  EXPECT_THAT(services, HasSubstr("akidb.embedding.v1.EmbeddingService"));
  EXPECT_THAT(services, HasSubstr("grpc.health.v1.Health"));
  const std::string file = ask(LengthDelimited(4, "akidb.embedding.v1.EmbeddingService"));  // file_containing_symbol
  EXPECT_THAT(file, HasSubstr("EmbedRequest"));
}

TEST_F(GrpcTest, TurnedOffEmbeddings) {
  options_.embedding_enabled = false;
  EXPECT_EQ(EmbedTexts({"x"}).error_code(), ::grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(GrpcTest, PortInUse) {
  Start();
  GrpcOptions second = options_;
  second.port = server_->port();
  const auto other = GrpcServer::Start(second, {.service = service_, .logger = *logger_, .metrics = *metrics_});
  ASSERT_FALSE(other.has_value());
  EXPECT_EQ(other.error().code(), StatusCode::kUnavailable);
  EXPECT_THAT(other.error().message(), HasSubstr("server.grpc_port"));
}

TEST_F(GrpcTest, ShutdownCancelsWhatIsLeft) {
  const auto stub = Stub();
  std::jthread caller([&] {
    wire::EmbedRequest request;
    request.add_texts("x");
    request.set_model("hold");
    wire::EmbedResponse response;
    ::grpc::ClientContext context;
    EXPECT_FALSE(stub->Embed(&context, request, &response).ok());
  });
  ASSERT_TRUE(service_.WaitHeld(1));
  server_->Shutdown(10);
  EXPECT_TRUE(service_.WaitCancelled(1));
}

}  // namespace
}  // namespace pensieve::grpc_server
