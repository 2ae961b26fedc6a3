// Matrix products: y = x . W^T. The input is quantized once for each size of group that its weights have; then panels of
// output channels are shared among the workers.
//
// A task is one panel of one weight and a block of rows. A part of the panel (kDepthColumns columns) is unpacked into the
// worker's cache and multiplied with all rows of the block, then the next part. So a weight is read from memory once for
// each block of rows. docs/glossary.md has the words, and one product worked out by hand.
#include <algorithm>

#include "backend/cpu/products.h"
#include "base/check.h"

namespace pensieve::backend::cpu {
namespace {

// Most rows of a task: two tiles of their sums stay in the L2 cache.
constexpr int64_t kMostTaskRows = 768;
// Most bytes of one plane of a task's rows, unless they are but kLeastTaskRows: every panel reads them all again.
constexpr int64_t kMostTaskBytes = 1 << 20;
constexpr int64_t kLeastTaskRows = 192;
// Blocks of rows are multiples of this, which the micro kernels' 6 and 4 divide.
constexpr int64_t kRowStep = 96;
// Columns of an f32 panel: 24 KB stay in the L1 cache. A multiple of every group.
constexpr int64_t kFloatDepth = 192;
// Up to so many decode rows, unpacking codes anew for every two beats writing them down.
constexpr int64_t kMostDirectRows = 2;

}  // namespace

int64_t Products::PreciseRows(const ProductInput& input) const {
  return mode_ == InputPrecision::kInt16 ? input.x.rows : input.precise_rows;
}

bool Products::FewPreciseRows(const ProductInput& input) const {
  return input.x.rows <= kMostDirectRows && PreciseRows(input) == input.x.rows;
}

const QuantRows* Products::QuantizeInput(const ProductInput& input, int group) {
  QuantizedInput& q = quantized_[group == 16 ? 0 : group == 32 ? 1 : 2];
  if (q.valid) return &q.rows;
  const int64_t rows = input.x.rows;
  const int64_t cols = input.x.cols;
  const int64_t groups = cols / group;
  ScratchCutter cutter;
  cutter.Reserve<int8_t>(rows * cols);
  cutter.Reserve<int8_t>(rows * cols);
  cutter.Reserve<QuantGroup>(rows * groups);
  const bool split = FewPreciseRows(input);
  if (split) {
    cutter.Reserve<int8_t>(rows * cols);
    cutter.Reserve<int8_t>(rows * cols);
  }
  cutter.Allocate(q.memory);
  q.rows.cols = cols;
  q.rows.groups = groups;
  q.rows.first.low = cutter.Take<int8_t>(rows * cols);
  q.rows.first.high = cutter.Take<int8_t>(rows * cols);
  q.rows.first.groups = cutter.Take<QuantGroup>(rows * groups);
  q.rows.split_high = split ? cutter.Take<int8_t>(rows * cols) : nullptr;
  q.rows.split_low = split ? cutter.Take<int8_t>(rows * cols) : nullptr;
  q.valid = true;
  const int64_t precise = PreciseRows(input);
  // Four rows a chunk: a few microseconds of work against a tenth of one for a claim.
  constexpr int64_t kChunk = 4;
  pool_.Run(CeilDiv(rows, kChunk), [&](int64_t chunk, int) {
    for (int64_t r = chunk * kChunk; r < std::min(rows, (chunk + 1) * kChunk); ++r) {
      QuantRow row = q.rows.first;
      row.low += r * cols;
      row.high += r * cols;
      row.groups += r * groups;
      kernels_.quantize_row(input.x.row(r), cols, group, r < precise, row);
      if (!split) continue;
      kernels_.split_quads(row.high, cols, q.rows.split_high + r * cols);
      kernels_.split_quads(row.low, cols, q.rows.split_low + r * cols);
    }
  });
  return &q.rows;
}

Products::Operand Products::MakeOperand(const ProductInput& input, const CpuWeight& weight) {
  Operand operand;
  operand.weight = &weight;
  if (weight.quant && mode_ != InputPrecision::kF32) {
    operand.rows = QuantizeInput(input, weight.quant->activation_group());
    operand.direct = DecodesDirectly(*weight.quant) && FewPreciseRows(input);
  }
  return operand;
}

QuantPanel Products::NewPanel(const Operand& operand, int64_t first, Scratch& scratch) const {
  const QuantWeight& weight = *operand.weight->quant;
  QuantPanel panel;
  panel.cols = weight.cols;
  panel.group = weight.activation_group();
  panel.code_max = weight.code_max();
  const int64_t groups = weight.cols / panel.group;
  ScratchCutter cutter;
  cutter.Reserve<uint8_t>(kDepthColumns * kernels_.panel);
  cutter.Reserve<float>(groups * kernels_.panel);
  cutter.Reserve<float>(groups * kernels_.panel);
  cutter.Allocate(scratch);
  panel.codes = cutter.Take<uint8_t>(kDepthColumns * kernels_.panel);
  panel.scales = cutter.Take<float>(groups * kernels_.panel);
  panel.biases = cutter.Take<float>(groups * kernels_.panel);
  panel.ahead = weight.codes + (first + kernels_.panel) * weight.row_bytes;
  panel.ahead_per_group = kernels_.panel * weight.row_bytes / groups;
  return panel;
}

// The present columns of a panel with every row.
void Products::MultiplyCodes(const QuantPanel& panel, const Operand& operand, int64_t precise_rows, RowRange rows,
                             float* tile) const {
  const int64_t count = rows.end - rows.first;
  const int64_t precise = std::clamp<int64_t>(precise_rows - rows.first, 0, count);
  if (precise > 0) kernels_.quant_tile(panel, *operand.rows, rows.first, precise, true, tile);
  if (precise < count) {
    kernels_.quant_tile(panel, *operand.rows, rows.first + precise, count - precise, false,
                        tile + precise * kernels_.panel);
  }
}

// In f32: dense weights, and quantized ones in exact mode. The panel's columns a few at a time, for the L1 cache.
void Products::MultiplyFloats(const ProductInput& input, const Operand& operand, ChannelRange channels, RowRange rows,
                              float* tile, WorkerScratch& scratch) const {
  const int64_t cols = input.x.cols;
  float* floats = scratch.floats.Need<float>(kFloatDepth * kernels_.panel);
  const float* panel = floats;
  QuantPanel codes;
  if (operand.weight->quant) {
    codes = NewPanel(operand, channels.first, scratch.codes);
    kernels_.unpack_groups(*operand.weight->quant, channels.first, channels.count, codes);
  }
  for (int64_t k = 0; k < cols; k += kFloatDepth) {
    const int64_t depth = std::min(kFloatDepth, cols - k);
    if (operand.weight->quant) {
      codes.first_group = k / codes.group;
      codes.end_group = (k + depth) / codes.group;
      kernels_.unpack_codes(*operand.weight->quant, channels.first, channels.count, codes);
      kernels_.dequantize_panel(codes, floats);
    } else if (operand.weight->panels != nullptr) {
      panel = operand.weight->panels + channels.first * cols + k * kernels_.panel;
    } else {
      const auto& dense = std::get<tensor::DenseWeight>(operand.weight->weight);
      kernels_.unpack_dense(dense, channels.first, channels.count, k, depth, floats);
    }
    kernels_.f32_tile(input.x.row(rows.first) + k, input.x.stride, rows.end - rows.first, panel, depth, k > 0, tile);
  }
}

const float* Products::MultiplyPanel(const ProductInput& input, const Operand& operand, ChannelRange channels,
                                     RowRange rows, Scratch& tile_memory, int worker) {
  WorkerScratch& scratch = scratch_[static_cast<size_t>(worker)];
  const int64_t count = rows.end - rows.first;
  float* tile = tile_memory.Need<float>(count * kernels_.panel);
  if (operand.direct) {
    kernels_.decode_tile(*operand.weight->quant, channels.first, channels.count, *operand.rows, rows.first, count,
                         tile);
    return tile;
  }
  if (operand.rows == nullptr) {
    MultiplyFloats(input, operand, channels, rows, tile, scratch);
    return tile;
  }
  QuantPanel panel = NewPanel(operand, channels.first, scratch.codes);
  kernels_.unpack_groups(*operand.weight->quant, channels.first, channels.count, panel);
  const int64_t groups = panel.cols / panel.group;
  const int64_t step =
      CeilDiv(groups, CeilDiv(panel.cols, kDepthColumns));  // equal ones: short runs of groups cost most
  for (; panel.first_group < groups; panel.first_group = panel.end_group) {
    panel.end_group = std::min(groups, panel.first_group + step);
    kernels_.unpack_codes(*operand.weight->quant, channels.first, channels.count, panel);
    MultiplyCodes(panel, operand, PreciseRows(input), rows, tile);
  }
  return tile;
}

// All rows with every panel, unless there are very many, or so few panels that workers would idle.
int64_t Products::RowBlock(int64_t rows, int64_t cols, int64_t panels) const {
  const int64_t most = std::clamp(kMostTaskBytes / cols, kLeastTaskRows, kMostTaskRows);
  const int64_t wanted = pool_.threads() == 1 ? 1 : CeilDiv(4 * pool_.threads(), panels);
  const int64_t blocks = std::max(std::min(wanted, rows / kRowStep), CeilDiv(rows, most));
  return blocks <= 1 ? rows : CeilDiv(CeilDiv(rows, blocks), kRowStep) * kRowStep;
}

// Panels a task takes one after another. Many rows: one. Few: neighbours, for the next panel is fetched while one is
// multiplied, and had better be wanted by the same core; yet enough tasks to even out the workers.
int64_t Products::PanelRun(int64_t rows, int64_t panels) const {
  constexpr int64_t kMostRowsThatWait = 64;  // for memory, that is
  if (rows > kMostRowsThatWait) return 1;
  return std::clamp<int64_t>(panels / (pool_.threads() * 4), 1, 16);
}

template <typename Fn>
void Products::ForPanels(int64_t rows, int64_t cols, int64_t panels, Fn multiply_panel) {
  const int64_t row_block = RowBlock(rows, cols, panels);
  const int64_t run = PanelRun(rows, panels);
  const int64_t runs = CeilDiv(panels, run);
  pool_.Run(runs * CeilDiv(rows, row_block), [&](int64_t chunk, int worker) {
    const int64_t first_row = chunk / runs * row_block;
    const RowRange range = {first_row, std::min(rows, first_row + row_block)};
    const int64_t first_panel = chunk % runs * run;
    for (int64_t p = first_panel; p < std::min(panels, first_panel + run); ++p) multiply_panel(p, range, worker);
  });
}

void Products::Multiply(const ProductInput& input, std::span<const ProductTask> tasks) {
  PENSIEVE_CHECK(tasks.size() <= kMostTasks);
  const int64_t rows = input.x.rows;
  if (rows == 0) return;
  const int64_t panel_channels = kernels_.panel;
  for (QuantizedInput& q : quantized_) q.valid = false;
  std::array<Operand, kMostTasks> operands;
  std::array<int64_t, kMostTasks + 1> first_panel = {0};
  for (size_t i = 0; i < tasks.size(); ++i) {
    operands[i] = MakeOperand(input, *tasks[i].weight);
    first_panel[i + 1] = first_panel[i] + CeilDiv(tasks[i].out.cols, panel_channels);
  }
  const auto multiply_panel = [&](int64_t panel, RowRange range, int worker) {
    size_t i = 0;
    while (panel >= first_panel[i + 1]) ++i;
    const ProductTask& task = tasks[i];
    const int64_t channel = (panel - first_panel[i]) * panel_channels;
    const int64_t count = std::min<int64_t>(panel_channels, task.out.cols - channel);
    Scratch& memory = scratch_[static_cast<size_t>(worker)].tiles[0];
    const float* tile = MultiplyPanel(input, operands[i], {channel, count}, range, memory, worker);
    kernels_.store_tile(tile, panel_channels,
                        {task.bias == nullptr ? nullptr : task.bias + channel, task.activation, task.accumulate,
                         task.out.row(range.first) + channel, task.out.stride, range.end - range.first, count});
  };
  ForPanels(rows, input.x.cols, first_panel[tasks.size()], multiply_panel);
}

void Products::MultiplyGated(const ProductInput& input, const CpuWeight& gate, const CpuWeight& up,
                             Activation activation, MatrixView out) {
  const int64_t rows = input.x.rows;
  if (rows == 0) return;
  const int64_t panel_channels = kernels_.panel;
  for (QuantizedInput& q : quantized_) q.valid = false;
  const Operand gate_operand = MakeOperand(input, gate);
  const Operand up_operand = MakeOperand(input, up);
  const auto multiply_panel = [&](int64_t panel, RowRange range, int worker) {
    const int64_t channel = panel * panel_channels;
    const int64_t count = std::min<int64_t>(panel_channels, out.cols - channel);
    WorkerScratch& scratch = scratch_[static_cast<size_t>(worker)];
    const float* gates = MultiplyPanel(input, gate_operand, {channel, count}, range, scratch.tiles[0], worker);
    const float* ups = MultiplyPanel(input, up_operand, {channel, count}, range, scratch.tiles[1], worker);
    kernels_.store_gated(
        gates, ups, panel_channels,
        {nullptr, activation, false, out.row(range.first) + channel, out.stride, range.end - range.first, count});
  };
  ForPanels(rows, input.x.cols, CeilDiv(out.cols, panel_channels), multiply_panel);
}

}  // namespace pensieve::backend::cpu
