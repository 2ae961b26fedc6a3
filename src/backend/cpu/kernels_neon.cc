#define PENSIEVE_ISA isa_neon
#define PENSIEVE_NEON
#include "backend/cpu/kernels-inl.h"

namespace pensieve::backend::cpu {
extern const KernelTable kNeonKernels;
const KernelTable kNeonKernels = isa_neon::MakeTable("neon");
}  // namespace pensieve::backend::cpu
