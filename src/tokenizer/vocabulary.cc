#include "tokenizer/vocabulary.h"

#include <algorithm>

#include "fmt/format.h"

namespace pensieve::tokenizer {

Result<Vocabulary> Vocabulary::Create(std::vector<VocabularyEntry> entries, Duplicates spellings) {
  Vocabulary vocabulary;
  int64_t highest = -1;
  for (const VocabularyEntry& entry : entries) {
    if (entry.id < 0 || entry.id > kTokenIdMax) {
      return DataLoss(fmt::format("token \"{}\" has the id {}, outside 0..{}", entry.text, entry.id, kTokenIdMax));
    }
    highest = std::max(highest, entry.id);
  }
  vocabulary.texts_.resize(static_cast<size_t>(highest + 1));
  std::vector<bool> taken(static_cast<size_t>(highest + 1));
  vocabulary.ids_.reserve(entries.size());
  for (VocabularyEntry& entry : entries) {
    const auto index = static_cast<size_t>(entry.id);
    if (taken[index]) return DataLoss(fmt::format("id {} is given twice, again to token \"{}\"", index, entry.text));
    taken[index] = true;
    vocabulary.texts_[index] = std::move(entry.text);
    const std::string& text = vocabulary.texts_[index];
    vocabulary.longest_bytes_ = std::max(vocabulary.longest_bytes_, text.size());
    const auto [found, inserted] = vocabulary.ids_.emplace(text, static_cast<int32_t>(index));
    if (inserted) continue;
    if (spellings == Duplicates::kRefused) return DataLoss(fmt::format("token \"{}\" is given twice", text));
    vocabulary.shadowed_ids_.push_back(found->second);
    found->second = static_cast<int32_t>(index);
  }
  return vocabulary;
}

const std::string& Vocabulary::Text(int32_t id) const {
  static const std::string none;
  return id < 0 || id >= size() ? none : texts_[static_cast<size_t>(id)];
}

}  // namespace pensieve::tokenizer
