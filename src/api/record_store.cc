#include "api/record_store.h"

#include <algorithm>

namespace pensieve::api {
namespace {

constexpr int64_t kRecordOverheadBytes = 256;  // nodes, hash entries, allocator

}  // namespace

int64_t RecordStore::SizeOf(const std::string& owner, const Record& record) {
  return static_cast<int64_t>(owner.size() + 2 * record.id.size() + record.text.size()) + kRecordOverheadBytes;
}

void RecordStore::Remove(Owners::iterator owner, std::list<Record>::iterator record) {
  const int64_t size = SizeOf(owner->first, *record);
  bytes_ -= size;
  --records_;
  owner->second.bytes -= size;
  owner->second.by_id.erase(record->id);
  owner->second.records.erase(record);
  if (owner->second.records.empty()) owners_.erase(owner);
}

void RecordStore::MakeRoom() {
  while (bytes_ > options_.bytes_max || records_ > options_.records_max) {
    const auto largest = std::max_element(owners_.begin(), owners_.end(),
                                          [](const auto& a, const auto& b) { return a.second.bytes < b.second.bytes; });
    Remove(largest, std::prev(largest->second.records.end()));
  }
}

bool RecordStore::Put(std::string_view owner, std::string_view id, std::string text) {
  Record record{.id = std::string(id), .text = std::move(text)};
  const int64_t size = SizeOf(std::string(owner), record);
  if (size > options_.bytes_max || options_.records_max < 1) return false;
  const MutexLock lock(mutex_);
  if (const auto known = owners_.find(owner); known != owners_.end()) {
    const auto same = known->second.by_id.find(record.id);
    if (same != known->second.by_id.end()) Remove(known, same->second);
  }
  Owner& mine = owners_[std::string(owner)];
  mine.records.push_front(std::move(record));
  mine.by_id[mine.records.front().id] = mine.records.begin();
  mine.bytes += size;
  bytes_ += size;
  ++records_;
  MakeRoom();
  return true;
}

std::optional<std::string> RecordStore::Get(std::string_view owner, std::string_view id) {
  const MutexLock lock(mutex_);
  const auto mine = owners_.find(owner);
  if (mine == owners_.end()) return std::nullopt;
  const auto found = mine->second.by_id.find(std::string(id));
  if (found == mine->second.by_id.end()) return std::nullopt;
  auto& records = mine->second.records;
  records.splice(records.begin(), records, found->second);
  return found->second->text;
}

bool RecordStore::Erase(std::string_view owner, std::string_view id) {
  const MutexLock lock(mutex_);
  const auto mine = owners_.find(owner);
  if (mine == owners_.end()) return false;
  const auto found = mine->second.by_id.find(std::string(id));
  if (found == mine->second.by_id.end()) return false;
  Remove(mine, found->second);
  return true;
}

int64_t RecordStore::bytes() const {
  const MutexLock lock(mutex_);
  return bytes_;
}

int64_t RecordStore::records() const {
  const MutexLock lock(mutex_);
  return records_;
}

}  // namespace pensieve::api
