// Texts that clients may ask for again, by id: bounded in bytes and number, and apart for each owner.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/mutex.h"

namespace pensieve::api {

struct RecordStoreOptions {
  int64_t bytes_max = int64_t{64} << 20;  // of texts, ids and owners together; 0 keeps nothing
  int64_t records_max = 10'000;
};

// When it is full, the owner who holds most loses what it has not used for longest: nobody can push out another's
// records by writing many of his own. In memory only. Thread-safe.
class RecordStore {
 public:
  explicit RecordStore(const RecordStoreOptions& options) : options_(options) {}

  // Keeps or replaces. False when the record alone is more than the store holds.
  bool Put(std::string_view owner, std::string_view id, std::string text);
  // Nothing for an id that this owner does not have (any more).
  std::optional<std::string> Get(std::string_view owner, std::string_view id);
  // Whether it was there.
  bool Erase(std::string_view owner, std::string_view id);

  int64_t bytes() const;
  int64_t records() const;

 private:
  struct Record {
    std::string id;
    std::string text;
  };
  struct Owner {
    std::list<Record> records;  // most recently used first
    std::unordered_map<std::string, std::list<Record>::iterator> by_id;
    int64_t bytes = 0;
  };
  using Owners = std::map<std::string, Owner, std::less<>>;

  static int64_t SizeOf(const std::string& owner, const Record& record);
  // Also forgets an owner without records.
  void Remove(Owners::iterator owner, std::list<Record>::iterator record) PENSIEVE_REQUIRES(mutex_);
  void MakeRoom() PENSIEVE_REQUIRES(mutex_);

  const RecordStoreOptions options_;
  mutable Mutex mutex_;
  Owners owners_ PENSIEVE_GUARDED_BY(mutex_);
  int64_t bytes_ PENSIEVE_GUARDED_BY(mutex_) = 0;
  int64_t records_ PENSIEVE_GUARDED_BY(mutex_) = 0;
};

}  // namespace pensieve::api
