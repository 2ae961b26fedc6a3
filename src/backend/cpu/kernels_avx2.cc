#define PENSIEVE_ISA isa_avx2
#include "backend/cpu/kernels-inl.h"

namespace pensieve::backend::cpu {
extern const KernelTable kAvx2Kernels;
const KernelTable kAvx2Kernels = isa_avx2::MakeTable("avx2");
}  // namespace pensieve::backend::cpu
