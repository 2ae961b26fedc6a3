// Checks for our own bugs. Input from outside is never checked with these: it gets a Status.
#pragma once

namespace pensieve {
// Prints "file:line: check failed: condition" to stderr and aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);
}  // namespace pensieve

// Aborts in every build when `condition` is false.
#define PENSIEVE_CHECK(condition) ((condition) ? (void)0 : ::pensieve::CheckFailed(__FILE__, __LINE__, #condition))

// For hot loops only: gone in release builds.
#ifdef NDEBUG
#define PENSIEVE_DCHECK(condition) ((void)sizeof(!(condition)))
#else
#define PENSIEVE_DCHECK(condition) PENSIEVE_CHECK(condition)
#endif

#define PENSIEVE_UNREACHABLE() ::pensieve::CheckFailed(__FILE__, __LINE__, "unreachable code reached")
