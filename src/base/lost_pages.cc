#include "base/lost_pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <utility>

#include "base/mapped_range.h"

namespace pensieve {
namespace {

constexpr int kSlots = 4096;

struct Slot {
  std::atomic<bool> taken{false};
  std::atomic<uintptr_t> begin{0};  // 0: not in use (yet)
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> lost{false};
};

// Globals, because a signal handler can be given nothing. Slots are used again; the handler sees only numbers.
std::array<Slot, kSlots> g_slots;
std::atomic<int> g_slots_used{0};  // all taken slots lie below
uintptr_t g_page = 4096;
struct sigaction g_before {};

// Only what may be done in a signal handler: atomics and system calls.
void OnSigbus(int signal, siginfo_t* info, void* context) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  const int used = g_slots_used.load(std::memory_order_acquire);
  for (int i = 0; i < used; ++i) {
    Slot& slot = g_slots[static_cast<size_t>(i)];
    const uintptr_t begin = slot.begin.load(std::memory_order_acquire);
    const uintptr_t end = slot.end.load(std::memory_order_acquire);
    if (begin == 0 || address < begin || address >= end) continue;
    slot.lost.store(true, std::memory_order_release);
    // All behind it is lost with it: one fault instead of one for each page. The kernel maps whole pages.
    const uintptr_t page = address / g_page * g_page;
    void* const zeros =
        ::mmap(reinterpret_cast<void*>(page), end - page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (zeros != MAP_FAILED) return;
    break;
  }
  // Not ours, or beyond help.
  if ((g_before.sa_flags & SA_SIGINFO) != 0 && g_before.sa_sigaction != nullptr) {
    g_before.sa_sigaction(signal, info, context);
    return;
  }
  ::signal(SIGBUS, SIG_DFL);
  ::raise(SIGBUS);
}

bool InstallHandler() {
  g_page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  struct sigaction action {};
  action.sa_sigaction = &OnSigbus;
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  return ::sigaction(SIGBUS, &action, &g_before) == 0;
}

}  // namespace

LostPagesGuard::LostPagesGuard(void* address, size_t size) {
  static const bool installed = InstallHandler();
  if (!installed || address == nullptr || size == 0) return;
  for (int i = 0; i < kSlots; ++i) {
    Slot& slot = g_slots[static_cast<size_t>(i)];
    bool free = false;
    if (!slot.taken.compare_exchange_strong(free, true)) continue;
    slot.lost.store(false);
    slot.end.store(reinterpret_cast<uintptr_t>(address) + size);
    slot.begin.store(reinterpret_cast<uintptr_t>(address), std::memory_order_release);
    int used = g_slots_used.load();
    while (used < i + 1 && !g_slots_used.compare_exchange_weak(used, i + 1)) {}
    slot_ = i;
    return;
  }
}

LostPagesGuard::LostPagesGuard(LostPagesGuard&& other) noexcept : slot_(std::exchange(other.slot_, -1)) {}

LostPagesGuard& LostPagesGuard::operator=(LostPagesGuard&& other) noexcept {
  std::swap(slot_, other.slot_);
  return *this;
}

LostPagesGuard::~LostPagesGuard() {
  if (slot_ < 0) return;
  Slot& slot = g_slots[static_cast<size_t>(slot_)];
  slot.begin.store(0);
  slot.end.store(0);
  slot.taken.store(false, std::memory_order_release);
}

bool LostPagesGuard::lost() const {
  return slot_ >= 0 && g_slots[static_cast<size_t>(slot_)].lost.load(std::memory_order_acquire);
}

void AdviseMappedDone(std::span<const std::byte> range) {
  const auto begin = reinterpret_cast<uintptr_t>(range.data());
  const uintptr_t end = begin + range.size();
  for (int i = 0; i < g_slots_used.load(); ++i) {
    const Slot& slot = g_slots[static_cast<size_t>(i)];
    const uintptr_t first = slot.begin.load(std::memory_order_acquire);
    if (first == 0 || begin < first || end > slot.end.load()) continue;
    // Only whole pages inside the range: neighbours may still be in use.
    const uintptr_t first_page = (begin + g_page - 1) / g_page * g_page;
    const uintptr_t end_page = end / g_page * g_page;
    if (first_page < end_page) { ::madvise(reinterpret_cast<void*>(first_page), end_page - first_page, MADV_DONTNEED); }
    return;
  }
}

}  // namespace pensieve
