#include "config/server_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "config/parse_value.h"

namespace pensieve::config {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ConfigTest : public ::testing::Test {
 protected:
  ConfigTest() {
    std::string pattern = ::testing::TempDir() + "config_test_XXXXXX";
    directory_ = mkdtemp(pattern.data());
    sources_.environment["HOME"] = "/home/ada";
  }
  ~ConfigTest() override { std::filesystem::remove_all(directory_); }

  void File(const std::string& text) {
    sources_.file = directory_ + "/config.toml";
    std::ofstream(sources_.file) << text;
  }
  void Flag(const std::string& key, const std::string& value) {
    for (const KeyDescription& description : DescribeKeys())
      if (description.key == key) sources_.flags[key] = {{value}, description.flag};
  }
  LoadedConfig Load() {
    auto loaded = LoadConfig(sources_);
    EXPECT_TRUE(loaded.has_value()) << (loaded ? "" : loaded.error().ToString());
    return loaded ? *std::move(loaded) : LoadedConfig{};
  }
  std::string Error() {
    const auto loaded = LoadConfig(sources_);
    EXPECT_FALSE(loaded.has_value());
    return loaded ? "" : loaded.error().message();
  }
  static std::string Source(const LoadedConfig& loaded, const std::string& key) {
    for (const Setting& setting : loaded.settings)
      if (setting.key == key) return setting.source;
    return "no such setting";
  }
  static std::string Value(const LoadedConfig& loaded, const std::string& key) {
    for (const Setting& setting : loaded.settings)
      if (setting.key == key) return setting.value;
    return "no such setting";
  }

  std::string directory_;
  ConfigSources sources_;
};

TEST_F(ConfigTest, DefaultsNeedNothing) {
  const LoadedConfig loaded = Load();
  EXPECT_EQ(loaded.config.http_port, 8080);
  EXPECT_EQ(loaded.config.grpc_port, 9090);
  EXPECT_EQ(loaded.config.host, "127.0.0.1");
  EXPECT_EQ(loaded.config.cache_dir, "/home/ada/.cache/pensieve");
  EXPECT_THAT(loaded.warnings, IsEmpty());
  for (const Setting& setting : loaded.settings) EXPECT_EQ(setting.source, "default") << setting.key;
}

TEST_F(ConfigTest, FlagsBeatEnvironmentBeatsFile) {
  File("[server]\nrest_port = 1\ngrpc_port = 2\nhost = \"::1\"\n");
  sources_.environment["AKIDB_REST_PORT"] = "3";
  sources_.environment["AKIDB_GRPC_PORT"] = "4";
  Flag("server.http_port", "5");
  const LoadedConfig loaded = Load();
  EXPECT_EQ(loaded.config.http_port, 5);
  EXPECT_EQ(loaded.config.grpc_port, 4);
  EXPECT_EQ(loaded.config.host, "::1");
  EXPECT_EQ(Source(loaded, "server.http_port"), "flag --port");
  EXPECT_EQ(Source(loaded, "server.grpc_port"), "environment AKIDB_GRPC_PORT");
  EXPECT_EQ(Source(loaded, "server.host"), sources_.file);
  EXPECT_EQ(Source(loaded, "model.threads"), "default");
}

TEST_F(ConfigTest, OurVariableBeatsTheInheritedOne) {
  sources_.environment["AKIDB_REST_PORT"] = "3";
  sources_.environment["PENSIEVE_PORT"] = "6";
  EXPECT_EQ(Load().config.http_port, 6);
}

TEST_F(ConfigTest, SeedVariables) {
  sources_.environment["MODEL_PATH"] = "~/models/a,b.gguf";
  sources_.environment["MAX_CONTEXT_LENGTH"] = "2048";
  sources_.environment["GPU_MEMORY_LIMIT"] = "1.5GB";
  sources_.environment["LOG_LEVEL"] = "DEBUG";
  sources_.environment["AKIDB_CACHE_DIR"] = "/srv/cache";
  sources_.environment["AKIDB_LOG_FORMAT"] = "json";
  const LoadedConfig loaded = Load();
  EXPECT_THAT(loaded.config.models, ElementsAre("/home/ada/models/a,b.gguf"));
  EXPECT_EQ(loaded.config.context_max, 2048);
  EXPECT_EQ(loaded.config.kv_bytes_max, int64_t{3} << 29);
  EXPECT_EQ(loaded.config.log_level, "debug");
  EXPECT_EQ(loaded.config.cache_dir, "/srv/cache");
  EXPECT_EQ(loaded.config.log_format, "json");
}

TEST_F(ConfigTest, AkiDbFileIsTolerated) {
  File(R"([server]
host = "127.0.0.1"
rest_port = 8081
grpc_port = 9091
timeout_seconds = 30
[database]
path = "sqlite://akidb.db"
max_connections = 10
[features]
metrics_enabled = true
[hnsw]
m = 32
[embedding]
enabled = true
model = "qwen3-0.6b-4bit"
dimension = 1024
cache_dir = "~/.cache/akidb"
provider = "mlx"
python_path = "/usr/bin/python3"
[logging]
level = "warn"
format = "json"
)");
  const LoadedConfig loaded = Load();
  EXPECT_THAT(loaded.warnings, IsEmpty());
  EXPECT_EQ(loaded.config.http_port, 8081);
  EXPECT_EQ(loaded.config.embedding_model, "qwen3-0.6b-4bit");
  EXPECT_EQ(loaded.config.cache_dir, "/home/ada/.cache/akidb");
  EXPECT_EQ(loaded.config.log_level, "warn");
}

// The working directory of one test is a fresh one with this ./config.toml.
class DefaultFileTest : public ConfigTest {
 protected:
  void SetUp() override {
    before_ = std::filesystem::current_path();
    std::filesystem::current_path(directory_);
  }
  void TearDown() override { std::filesystem::current_path(before_); }
  void DefaultFile(const std::string& text) { std::ofstream("config.toml") << text; }

  std::filesystem::path before_;
};

TEST_F(DefaultFileTest, OursIsReadAndSaidSo) {
  DefaultFile("[server]\nport = 81\n");
  const LoadedConfig loaded = Load();
  EXPECT_EQ(loaded.config.http_port, 81);
  EXPECT_THAT(loaded.notes, ElementsAre(HasSubstr("read from ./config.toml")));
}

TEST_F(DefaultFileTest, AnotherProgramsIsIgnoredWhateverItHolds) {
  for (const char* text : {"title = \"a site\"\n[params]\nport = 3\n", "[[[ no TOML at all", "host = 1\n", "",
                           "server = 3\n", "[params]\nday = 1979-05-27\n"}) {
    DefaultFile(text);
    const LoadedConfig loaded = Load();
    EXPECT_EQ(loaded.config.http_port, 8080) << text;
    EXPECT_THAT(loaded.warnings, IsEmpty()) << text;
    EXPECT_THAT(loaded.notes, ElementsAre(HasSubstr("./config.toml is ignored"))) << text;
  }
}

TEST_F(DefaultFileTest, OneOfOursMustBeRight) {
  DefaultFile("[server\nport = 1\n");
  EXPECT_THAT(Error(), HasSubstr("line 1"));
  DefaultFile("[server]\nport = \"web\"\n");
  EXPECT_THAT(Error(), HasSubstr("whole number"));
  DefaultFile("[logging]\nlevl = \"info\"\n");
  EXPECT_THAT(Load().warnings, ElementsAre(HasSubstr("logging.levl")));
}

TEST_F(DefaultFileTest, WhatIsNoFileIsIgnored) {
  std::filesystem::create_directory("config.toml");
  EXPECT_THAT(Load().notes, ElementsAre(HasSubstr("ignored")));
  sources_.file = "config.toml";
  EXPECT_THAT(Error(), HasSubstr("is a directory"));
}

TEST_F(DefaultFileTest, PathsMayHoldCommasAndBrackets) {
  for (const char* name : {"a,b.gguf", "[v2].gguf", "[all]", "x", "x,y"}) std::ofstream(name) << "x";
  const auto models = [&](std::vector<std::string> texts) {
    sources_.flags["model.models"] = {std::move(texts), "--model"};
    return Load().config.models;
  };
  EXPECT_THAT(models({"a,b.gguf"}), ElementsAre("a,b.gguf"));
  EXPECT_THAT(models({"[v2].gguf"}), ElementsAre("[v2].gguf"));
  EXPECT_THAT(models({"[all]"}), ElementsAre("[all]"));
  EXPECT_THAT(models({"[new],z"}), ElementsAre("[new]", "z"));
  EXPECT_THAT(models({"x,y,a,b.gguf, org/repo ,x"}), ElementsAre("x,y", "a,b.gguf", "org/repo", "x"));
  EXPECT_THAT(models({"x", "a,b.gguf"}), ElementsAre("x", "a,b.gguf"));
  EXPECT_THAT(models({R"(["a,b", "c"])"}), ElementsAre("a,b", "c"));
  EXPECT_THAT(models({"org/one,org/two"}), ElementsAre("org/one", "org/two"));
  sources_.flags.clear();
  sources_.environment["PENSIEVE_MODELS"] = "a,b.gguf";
  EXPECT_THAT(Load().config.models, ElementsAre("a,b.gguf"));
}

TEST_F(ConfigTest, OnlyTheCacheDirectoryForCommandsThatServeNothing) {
  EXPECT_EQ(CacheDirectory({{"HOME", "/h"}, {"PENSIEVE_PORT", "many"}}), "/h/.cache/pensieve");
  EXPECT_EQ(CacheDirectory({{"HOME", "/h"}, {"AKIDB_CACHE_DIR", "~/a"}}), "/h/a");
  EXPECT_EQ(CacheDirectory({{"PENSIEVE_CACHE_DIR", "/p"}, {"AKIDB_CACHE_DIR", "/a"}}), "/p");
  EXPECT_EQ(CacheDirectory({}), ".cache/pensieve");
}

TEST_F(ConfigTest, UnknownKeysWarn) {
  File("[server]\nhots = \"x\"\n[hnsw]\nq = 1\n");
  sources_.environment["PENSIEVE_PROT"] = "1";
  const LoadedConfig loaded = Load();
  ASSERT_EQ(loaded.warnings.size(), 2u);
  EXPECT_THAT(loaded.warnings[0], HasSubstr("line 2: unknown key server.hots is ignored"));
  EXPECT_THAT(loaded.warnings[1], HasSubstr("PENSIEVE_PROT"));
}

TEST_F(ConfigTest, BadValuesNameKeyValueAndSource) {
  Flag("server.http_port", "99999");
  EXPECT_EQ(Error(), "server.http_port = 99999 (flag --port): must be from 0 to 65535");
  sources_.flags.clear();
  sources_.environment["PENSIEVE_THREADS"] = "many";
  EXPECT_EQ(Error(), "model.threads = many (environment PENSIEVE_THREADS): must be a whole number");
  sources_.environment.erase("PENSIEVE_THREADS");
  File("[server]\n\nrest_port = \"web\"\n");
  EXPECT_THAT(Error(), HasSubstr("config.toml line 3): must be a whole number"));
}

TEST_F(ConfigTest, InheritedVariablesThatAreUnreadableAreIgnoredAloud) {
  sources_.environment["AKIDB_REST_PORT"] = "web";
  sources_.environment["LOG_LEVEL"] = "chatty";
  const LoadedConfig loaded = Load();
  EXPECT_EQ(loaded.config.http_port, 8080);
  EXPECT_EQ(Source(loaded, "server.http_port"), "default");
  EXPECT_THAT(loaded.warnings, ElementsAre(HasSubstr("AKIDB_REST_PORT"), HasSubstr("LOG_LEVEL")));
}

TEST_F(ConfigTest, BrokenFiles) {
  File("[server\nhost = 1");
  EXPECT_THAT(Error(), HasSubstr("line 1"));
  File("server = 3\n");
  EXPECT_THAT(Load().warnings, ElementsAre(HasSubstr("unknown key server ")));
  File("[server]\nhost = 7\n");
  EXPECT_THAT(Error(), HasSubstr("must be a string in quotes"));
  File("[server]\nhost = [\"a\"]\n");
  EXPECT_THAT(Error(), HasSubstr("must not be a list"));
  File("[server]\nrest_port = 1\nhttp_port = 2\n");
  EXPECT_THAT(Error(), HasSubstr("are the same setting"));
  File("[server]\nhost = 2024-01-01\n");
  EXPECT_THAT(Error(), HasSubstr("date"));
  File("[model]\nmodels = [[\"a\"]]\n");
  EXPECT_THAT(Error(), HasSubstr("no plain value"));
  File(std::string("[server]\nhost = \"\xff\"\n"));
  EXPECT_THAT(Error(), HasSubstr("line 2"));
  sources_.file = directory_ + "/none.toml";
  EXPECT_THAT(Error(), HasSubstr("none.toml"));
}

TEST_F(ConfigTest, HugeFileIsRefused) {
  File("# " + std::string(2 << 20, 'x'));
  EXPECT_THAT(Error(), HasSubstr("config.toml"));
}

TEST_F(ConfigTest, SettingsThatDisagree) {
  Flag("server.grpc_port", "8080");
  EXPECT_EQ(Error(), "server.http_port = 8080 (default) and server.grpc_port = 8080 (flag --grpc-port) must differ");
  sources_.flags.clear();
  Flag("memory.emergency_gb", "3");
  EXPECT_THAT(Error(), HasSubstr("must not be above memory.critical_gb = 1.0 (default)"));
  sources_.flags.clear();
  Flag("server.http_port", "0");
  Flag("server.grpc_port", "0");
  Load();
}

TEST_F(ConfigTest, SecretsStaySecret) {
  Flag("server.api_keys", "k-one,k-two");
  const LoadedConfig loaded = Load();
  EXPECT_THAT(loaded.config.api_keys, ElementsAre("k-one", "k-two"));
  EXPECT_EQ(Value(loaded, "server.api_keys"), R"(["***", "***"])");
  Flag("server.api_keys", "[\"k-one\", \"\"]");
  EXPECT_EQ(Error(), "server.api_keys = *** (flag --api-key): must not hold an empty item");
  // An empty key is mostly a shell variable that was not set: it may not open the server.
  for (const char* empty : {"", " ", ","}) {
    Flag("server.api_keys", empty);
    EXPECT_EQ(Error(), "server.api_keys = *** (flag --api-key): must not be empty; [] means none") << empty;
  }
  Flag("server.api_keys", "[]");
  EXPECT_THAT(Load().config.api_keys, IsEmpty());
  sources_.flags.clear();
  sources_.environment["PENSIEVE_API_KEYS"] = "";
  EXPECT_EQ(Error(), "server.api_keys = *** (environment PENSIEVE_API_KEYS): must not be empty; [] means none");
}

TEST_F(ConfigTest, OpenServerWarns) {
  Flag("server.host", "0.0.0.0");
  EXPECT_THAT(Load().warnings, ElementsAre(HasSubstr("server.api_keys is empty")));
  Flag("server.api_keys", "k");
  EXPECT_THAT(Load().warnings, IsEmpty());
}

TEST_F(ConfigTest, Origins) {
  Flag("server.cors_origins", "https://a.example,*");
  Load();
  Flag("server.cors_origins", "a.example");
  EXPECT_THAT(Error(), HasSubstr("is no origin"));
}

TEST(ParseValue, Sizes) {
  EXPECT_EQ(*ParseSize("4GB"), int64_t{4} << 30);
  EXPECT_EQ(*ParseSize(" 1.5 GiB "), int64_t{3} << 29);
  EXPECT_EQ(*ParseSize("512mb"), int64_t{512} << 20);
  EXPECT_EQ(*ParseSize("10k"), 10240);
  EXPECT_EQ(*ParseSize("0"), 0);
  EXPECT_EQ(*ParseSize("7"), 7);
  for (const char* bad : {"", "GB", "-1", "4 apples", "1e400", "9999999999TB", "1.2.3", "nan", "0x10", "4GBGB"})
    EXPECT_FALSE(ParseSize(bad).has_value()) << bad;
}

TEST(ParseValue, Durations) {
  EXPECT_EQ(*ParseDurationMs("30s"), 30'000);
  EXPECT_EQ(*ParseDurationMs("500ms"), 500);
  EXPECT_EQ(*ParseDurationMs("0.5h"), 1'800'000);
  EXPECT_EQ(*ParseDurationMs("2m"), 120'000);
  EXPECT_EQ(*ParseDurationMs("250"), 250);
  for (const char* bad : {"", "s", "-1s", "1d", "1 s s"}) EXPECT_FALSE(ParseDurationMs(bad).has_value()) << bad;
}

TEST(ParseValue, Lists) {
  EXPECT_THAT(*ParseList("a, b ,,c"), ElementsAre("a", "b", "c"));
  EXPECT_THAT(*ParseList(R"(["a,b", "c"])"), ElementsAre("a,b", "c"));
  EXPECT_THAT(*ParseList(""), IsEmpty());
  for (const char* bad : {"[", "[\"a\"", "[{a=1}]", "[1]\nx = 2"}) EXPECT_FALSE(ParseList(bad).has_value()) << bad;
}

TEST(Keys, AreUniqueAndComplete) {
  std::set<std::string> names, flags, variables;
  for (const KeyDescription& key : DescribeKeys()) {
    EXPECT_TRUE(names.insert(key.key).second) << key.key;
    EXPECT_TRUE(flags.insert(key.flag).second) << key.flag;
    EXPECT_EQ(key.flag.rfind("--", 0), 0u);
    ASSERT_FALSE(key.environment.empty()) << key.key;
    EXPECT_EQ(key.environment[0].rfind("PENSIEVE_", 0), 0u) << key.key;
    for (const std::string& variable : key.environment) EXPECT_TRUE(variables.insert(variable).second) << variable;
    EXPECT_FALSE(key.help.empty());
    EXPECT_FALSE(key.type.empty());
  }
}

// What --print-config shows can be pasted into a file and means the same.
TEST_F(ConfigTest, PrintedSettingsReadBack) {
  Flag("model.models", "[\"a,b\", \"c \\\"d\\\"\"]");
  Flag("server.header_timeout_ms", "2m");
  Flag("memory.critical_gb", "2");
  const LoadedConfig first = Load();
  std::string text;
  for (const Setting& setting : first.settings) text += setting.key + " = " + setting.value + "\n";
  sources_.flags.clear();
  File(text);
  const LoadedConfig second = Load();
  ASSERT_EQ(first.settings.size(), second.settings.size());
  for (size_t i = 0; i < first.settings.size(); ++i) EXPECT_EQ(first.settings[i].value, second.settings[i].value);
  EXPECT_THAT(second.warnings, IsEmpty());
}

}  // namespace
}  // namespace pensieve::config
