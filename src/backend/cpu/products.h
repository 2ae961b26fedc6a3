// Matrix products of one model. Engine-thread-only; work is shared among the device's workers.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "backend/cpu/compute.h"
#include "backend/cpu/scratch.h"
#include "backend/cpu/weight.h"
#include "backend/matrix_view.h"

namespace pensieve::backend::cpu {

struct ProductInput {
  MatrixView x;              // [M, K]
  int64_t precise_rows = 0;  // the first ones
};

// y = act(x . W^T + bias), stored into out or added to it.
struct ProductTask {
  const CpuWeight* weight = nullptr;
  const float* bias = nullptr;  // or null
  MatrixView out;
  Activation activation = Activation::kNone;
  bool accumulate = false;
};

class Products {
 public:
  static constexpr size_t kMostTasks = 16;

  explicit Products(const Compute& compute)
      : kernels_(compute.kernels),
        pool_(compute.pool),
        mode_(compute.mode),
        scratch_(static_cast<size_t>(compute.pool.threads())) {}

  // All over one input, which is quantized once. At most kMostTasks.
  void Multiply(const ProductInput& input, std::span<const ProductTask> tasks);
  // out = act(x . gate^T) * (x . up^T).
  void MultiplyGated(const ProductInput& input, const CpuWeight& gate, const CpuWeight& up, Activation activation,
                     MatrixView out);

 private:
  // One weight of a product and how it is multiplied.
  struct Operand {
    const CpuWeight* weight = nullptr;
    const QuantRows* rows = nullptr;  // the input's planes; null: multiply in f32
    bool direct = false;              // codes are used as they are read (decode_tile)
  };
  struct WorkerScratch {
    Scratch codes;                 // QuantPanel
    Scratch floats;                // f32 panel
    std::array<Scratch, 2> tiles;  // two for gated products
  };
  struct RowRange {
    int64_t first;
    int64_t end;
  };
  struct ChannelRange {
    int64_t first;
    int64_t count;
  };

  Operand MakeOperand(const ProductInput& input, const CpuWeight& weight);
  const QuantRows* QuantizeInput(const ProductInput& input, int group);
  int64_t PreciseRows(const ProductInput& input) const;
  // Whether decode_tile may take the rows.
  bool FewPreciseRows(const ProductInput& input) const;
  int64_t RowBlock(int64_t rows, int64_t cols, int64_t panels) const;
  int64_t PanelRun(int64_t rows, int64_t panels) const;
  // multiply_panel(panel, rows, worker) for every panel and block of rows, shared among the workers.
  template <typename Fn>
  void ForPanels(int64_t rows, int64_t cols, int64_t panels, Fn multiply_panel);

  QuantPanel NewPanel(const Operand& operand, int64_t first, Scratch& scratch) const;
  void MultiplyCodes(const QuantPanel& panel, const Operand& operand, int64_t precise_rows, RowRange rows,
                     float* tile) const;
  void MultiplyFloats(const ProductInput& input, const Operand& operand, ChannelRange channels, RowRange rows,
                      float* tile, WorkerScratch& scratch) const;
  // The sums [rows, panel] of a panel's channels, in tile_memory.
  const float* MultiplyPanel(const ProductInput& input, const Operand& operand, ChannelRange channels, RowRange rows,
                             Scratch& tile_memory, int worker);

  const KernelTable& kernels_;
  WorkerPool& pool_;
  const InputPrecision mode_;
  std::vector<WorkerScratch> scratch_;  // one a worker

  // The planes of the present input, by activation group: 16, 32, 64. Valid within one call.
  struct QuantizedInput {
    bool valid = false;
    Scratch memory;
    QuantRows rows;
  };
  std::array<QuantizedInput, 3> quantized_;
};

}  // namespace pensieve::backend::cpu
