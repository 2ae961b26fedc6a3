// Arm processors with dot products of mixed sign too: codes above 127 need no lowering, all else as in kernels_neon.cc.
// i8mm's 2x8 by 8x2 products would halve the tile's 192 dot products, but want quads of a channel and rows side by side
// in pairs, where large quads want them apart and scaling wants whole rows: about 220 instructions instead of 290, for
// a layout of its own.
#define PENSIEVE_ISA isa_i8mm
#define PENSIEVE_NEON
#include "backend/cpu/kernels-inl.h"

namespace pensieve::backend::cpu {
extern const KernelTable kI8mmKernels;
const KernelTable kI8mmKernels = isa_i8mm::MakeTable("i8mm");
}  // namespace pensieve::backend::cpu
