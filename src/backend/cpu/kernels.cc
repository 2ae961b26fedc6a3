#include "backend/cpu/kernels.h"

#if defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace pensieve::backend::cpu {

extern const KernelTable kScalarKernels;
#if defined(__x86_64__)
extern const KernelTable kAvx2Kernels;
extern const KernelTable kAvxvnniKernels;
extern const KernelTable kAvx512Kernels;
#if defined(__linux__)
const KernelTable& AmxKernels();
#endif

namespace {

struct Cpuid {
  uint32_t eax = 0;
  uint32_t ebx = 0;
  uint32_t ecx = 0;
  uint32_t edx = 0;
};

// Of leaf 7: features that are not among the names that the compiler's check knows.
Cpuid ReadFeatures(uint32_t subleaf) {
  Cpuid id;
  asm volatile("cpuid" : "=a"(id.eax), "=b"(id.ebx), "=c"(id.ecx), "=d"(id.edx) : "a"(7), "c"(subleaf));
  return id;
}

#if defined(__linux__)
// Whether this processor multiplies tiles of bytes, and the system keeps a thread's tiles: Linux does so for a process
// that has asked for it. It refuses where it does not know them, where a filter of system calls does not, and where a
// thread's signal stack is too small for them. All threads have the permission, also those there are already.
bool AsksForTiles() {
  constexpr uint32_t kTilesAndBytes = 3u << 24;
  if ((ReadFeatures(0).edx & kTilesAndBytes) != kTilesAndBytes) return false;
  uint32_t kept = 0;
  uint32_t upper = 0;
  asm volatile("xgetbv" : "=a"(kept), "=d"(upper) : "c"(0));
  constexpr uint32_t kTileState = 3u << 17;
  if ((kept & kTileState) != kTileState) return false;
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM, which older headers lack
  constexpr long kTileData = 18;
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

}  // namespace
#elif defined(__aarch64__)
extern const KernelTable kNeonKernels;
extern const KernelTable kI8mmKernels;

namespace {

struct ArmFeatures {
  bool dot_product = false;
  bool i8mm = false;
};

#if defined(__APPLE__)
bool HasFeature(const char* name) {
  int value = 0;
  size_t size = sizeof(value);
  return ::sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}

ArmFeatures DetectFeatures() {
  return {HasFeature("hw.optional.arm.FEAT_DotProd"), HasFeature("hw.optional.arm.FEAT_I8MM")};
}
#elif defined(__linux__)
ArmFeatures DetectFeatures() {
  return {(::getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0, (::getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0};
}
#else
ArmFeatures DetectFeatures() { return {}; }
#endif

}  // namespace
#endif

KernelTables AvailableKernels() {
  KernelTables result = {};
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512vnni");
#if defined(__linux__)
  static const bool tiles = avx2 && avx512 && AsksForTiles();
  if (tiles) result.tables[result.count++] = &AmxKernels();
#endif
  if (avx2 && avx512) result.tables[result.count++] = &kAvx512Kernels;
  if (avx2 && (ReadFeatures(1).eax >> 4 & 1u) != 0) result.tables[result.count++] = &kAvxvnniKernels;
  if (avx2) result.tables[result.count++] = &kAvx2Kernels;
#elif defined(__aarch64__)
  const ArmFeatures features = DetectFeatures();
  if (features.dot_product && features.i8mm) result.tables[result.count++] = &kI8mmKernels;
  if (features.dot_product) result.tables[result.count++] = &kNeonKernels;
#endif
  result.tables[result.count++] = &kScalarKernels;
  return result;
}

}  // namespace pensieve::backend::cpu
