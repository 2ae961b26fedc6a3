#define PENSIEVE_ISA isa_avxvnni
#include "backend/cpu/kernels-inl.h"

namespace pensieve::backend::cpu {
extern const KernelTable kAvxvnniKernels;
const KernelTable kAvxvnniKernels = isa_avxvnni::MakeTable("avxvnni");
}  // namespace pensieve::backend::cpu
