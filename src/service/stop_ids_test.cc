// What ends a generation is gathered from every file that says something about it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/mapped_file.h"
#include "model/loader.h"
#include "service/served_model.h"

namespace pensieve::service {
namespace {

namespace fs = std::filesystem;

// A copy of a tiny model that is removed again.
class ModelCopy {
 public:
  explicit ModelCopy(const char* name) {
    std::string pattern = (fs::temp_directory_path() / "pensieve-test-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
    fs::copy(std::string(PENSIEVE_SOURCE_DIR "/tests/data/models/") + name, path_, fs::copy_options::recursive);
  }
  ~ModelCopy() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  ModelCopy(const ModelCopy&) = delete;
  ModelCopy& operator=(const ModelCopy&) = delete;

  void Merge(const char* file, const Json& changes) const {
    const std::string path = (path_ / file).string();
    const auto text = ReadFile(path, 1 << 20);
    Json json = text.has_value() ? *ParseJson(*text) : Json::object();
    json.update(changes);
    std::ofstream(path) << DumpJson(json);
  }
  Json Read(const char* file) const { return *ParseJson(*ReadFile((path_ / file).string(), 1 << 20)); }
  std::string path() const { return path_.string(); }

 private:
  fs::path path_;
};

Result<std::shared_ptr<ServedModel>> Serve(const std::string& path) {
  model::LoadOptions load;
  load.rows_max = 8;
  PENSIEVE_TRY(auto loaded, model::Load(path, load));
  engine::EngineOptions options;
  options.kv_bytes_max = 1 << 20;
  return ServedModel::Create("m", {}, std::move(loaded), options);
}

TEST(StopIds, ComeFromEveryFile) {
  const ModelCopy copy("tiny-llama");
  // "a".."e" are 4..8, "z" is 29.
  copy.Merge("config.json", {{"eos_token_id", 4}});
  copy.Merge("generation_config.json", {{"eos_token_id", Json::array({5, 6})}});
  copy.Merge(
      "tokenizer_config.json",
      {{"eos_token", "d"}, {"chat_template", "{% for m in messages %}{{ m.content }}<turn_over>\n{% endfor %}"}});
  Json tokenizer = copy.Read("tokenizer.json");
  tokenizer["model"]["vocab"].erase("z");
  tokenizer["model"]["vocab"]["<turn_over>"] = 29;
  tokenizer["added_tokens"].push_back({{"id", 29}, {"content", "<turn_over>"}, {"special", true}});
  tokenizer["model"]["vocab"].erase("y");
  tokenizer["model"]["vocab"]["<|im_end|>"] = 28;
  tokenizer["added_tokens"].push_back({{"id", 28}, {"content", "<|im_end|>"}, {"special", true}});
  copy.Merge("tokenizer.json", tokenizer);
  const auto served = Serve(copy.path());
  ASSERT_TRUE(served.has_value()) << served.error().ToString();
  // config, generation_config (two), tokenizer_config, a well-known turn end, the template.
  EXPECT_THAT((*served)->text().stop_ids, testing::ElementsAre(4, 5, 6, 7, 28, 29));
}

TEST(StopIds, ATemplateThatClosesWithWordsAddsNone) {
  const ModelCopy copy("tiny-llama");
  copy.Merge("config.json", {{"eos_token_id", 1}});
  copy.Merge("tokenizer_config.json", {{"chat_template", "{% for m in messages %}{{ m.content }} over {% endfor %}"}});
  const auto served = Serve(copy.path());
  ASSERT_TRUE(served.has_value()) << served.error().ToString();
  EXPECT_THAT((*served)->text().stop_ids, testing::ElementsAre(1));
}

TEST(ChatTemplates, OneThatCannotRunIsRefusedWithItsLine) {
  const ModelCopy copy("tiny-llama");
  copy.Merge("tokenizer_config.json", {{"chat_template", "{# one #}\n{{ messages | shuffled }}"}});
  const auto served = Serve(copy.path());
  ASSERT_FALSE(served.has_value());
  EXPECT_THAT(served.error().message(), testing::HasSubstr("line 2: No filter named 'shuffled'"));
  EXPECT_THAT(served.error().message(), testing::HasSubstr(copy.path()));
}

}  // namespace
}  // namespace pensieve::service
