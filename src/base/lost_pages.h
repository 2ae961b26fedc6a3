// Files that shrink or fail while they are mapped. Reading a page that is gone raises SIGBUS, which would end the
// process; here it gives zeros instead, and the mapping is marked as lost, so that who computed with those zeros can
// throw the result away.
//
// Registered ranges stand in a table of fixed size that the signal handler reads without a lock. A SIGBUS anywhere else
// ends the process as before.
#pragma once

#include <cstddef>

namespace pensieve {

// A registered mapping. Thread-safe, but for its end: nobody may read the range then.
class LostPagesGuard {
 public:
  LostPagesGuard() = default;
  // `address` is what mmap gave. Installs the handler of the process with the first one. When more mappings live than
  // the table has places (4,096), the mapping is not guarded.
  LostPagesGuard(void* address, size_t size);
  LostPagesGuard(LostPagesGuard&& other) noexcept;
  LostPagesGuard& operator=(LostPagesGuard&& other) noexcept;
  LostPagesGuard(const LostPagesGuard&) = delete;
  LostPagesGuard& operator=(const LostPagesGuard&) = delete;
  ~LostPagesGuard();

  // Whether a page of the range was read that its file no longer has (or the disk could not give). Stays true. What was
  // read by any thread before this is called has been noted.
  bool lost() const;

 private:
  int slot_ = -1;
};

}  // namespace pensieve
