// Matrix products: the input quantized once per activation group, then panels of output channels shared among workers.
//
// A task is one panel of one product and a block of rows: the panel is unpacked into the worker's cache and multiplied
// with all rows of the block, so weights are read from memory once per row block.
#include <algorithm>

#include "backend/checks.h"
#include "backend/cpu/cpu_backend.h"
#include "base/check.h"

namespace pensieve::backend::cpu {
namespace {

// Rows finished before their sums are stored: 96 x 32 floats stay in the L1 cache, and 12 and 4 divide them.
constexpr int64_t kTileBlock = 96;
// Up to so many decode rows, unpacking codes anew for every two beats writing them down.
constexpr int64_t kMostDirectRows = 2;

QuantWeight FromAffine(const tensor::AffineWeight& w) {
  QuantWeight q;
  q.rows = w.rows;
  q.cols = w.cols;
  q.bits = w.bits;
  q.group = w.group;
  q.codes = w.codes;
  q.row_bytes = w.row_bytes();
  q.scale_dtype = w.scale_dtype;
  q.scales = static_cast<const uint8_t*>(w.scales);
  q.biases = static_cast<const uint8_t*>(w.biases);
  q.zero = static_cast<float>(1 << (w.bits - 1));
  return q;
}

QuantWeight FromMxfp4(const tensor::Mxfp4Weight& w) {
  QuantWeight q;
  q.rows = w.rows;
  q.cols = w.cols;
  q.group = 32;
  q.fp4 = true;
  q.codes = w.codes;
  q.row_bytes = w.cols / 2;
  q.scale_dtype = tensor::DType::kU8;
  q.scales = w.scales;
  q.zero = 12.0f;
  q.scale_factor = 0.5f;
  return q;
}

}  // namespace

std::optional<QuantWeight> AsQuantWeight(const tensor::Weight& weight) {
  if (const auto* affine = std::get_if<tensor::AffineWeight>(&weight)) return FromAffine(*affine);
  if (const auto* fp4 = std::get_if<tensor::Mxfp4Weight>(&weight)) return FromMxfp4(*fp4);
  return std::nullopt;
}

int64_t CpuBackend::FineRows(const MatMulInput& input) const {
  return mode_ == ActivationMode::kInt16 ? input.x.rows : input.fine_rows;
}

bool CpuBackend::FewFineRows(const MatMulInput& input) const {
  return input.x.rows <= kMostDirectRows && FineRows(input) == input.x.rows;
}

const QuantRows* CpuBackend::QuantizeInput(const MatMulInput& input, int group) {
  QuantizedInput& q = quantized_[group == 16 ? 0 : group == 32 ? 1 : 2];
  if (q.valid) return &q.rows;
  const int64_t rows = input.x.rows;
  const int64_t cols = input.x.cols;
  const int64_t groups = cols / group;
  ScratchCutter cutter;
  cutter.Reserve<int8_t>(rows * cols);
  cutter.Reserve<int8_t>(rows * cols);
  cutter.Reserve<QuantGroup>(rows * groups);
  const bool split = FewFineRows(input);
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
  const int64_t fine = FineRows(input);
  // Four rows a chunk: a few microseconds of work against a tenth of one for a claim.
  constexpr int64_t kChunk = 4;
  pool_.Run(CeilDiv(rows, kChunk), [&](int64_t chunk, int) {
    for (int64_t r = chunk * kChunk; r < std::min(rows, (chunk + 1) * kChunk); ++r) {
      QuantRow row = q.rows.first;
      row.low += r * cols;
      row.high += r * cols;
      row.groups += r * groups;
      kernels_.quantize_row(input.x.row(r), cols, group, r < fine, row);
      if (!split) continue;
      kernels_.split_quads(row.high, cols, q.rows.split_high + r * cols);
      kernels_.split_quads(row.low, cols, q.rows.split_low + r * cols);
    }
  });
  return &q.rows;
}

CpuBackend::Operand CpuBackend::MakeOperand(const MatMulInput& input, const tensor::Weight& weight) {
  Operand operand;
  operand.weight = &weight;
  operand.quant = AsQuantWeight(weight);
  if (operand.quant && mode_ != ActivationMode::kF32) {
    operand.rows = QuantizeInput(input, operand.quant->activation_group());
    operand.direct = DecodesDirectly(*operand.quant) && FewFineRows(input);
  }
  return operand;
}

CpuBackend::PreparedPanel CpuBackend::Prepare(const Operand& operand, int64_t first, int64_t count, int slot,
                                              int worker) {
  WorkerScratch& scratch = scratch_[static_cast<size_t>(worker)];
  const auto index = static_cast<size_t>(slot);
  const int64_t cols = tensor::Cols(*operand.weight);
  PreparedPanel prepared;
  prepared.first = first;
  prepared.count = count;
  if (!operand.quant) {
    float* panel = scratch.floats[index].Need<float>(cols * kernels_.panel);
    kernels_.unpack_dense(std::get<tensor::DenseWeight>(*operand.weight), first, count, 0, cols, panel);
    prepared.f32 = panel;
    return prepared;
  }
  if (operand.direct) return prepared;
  QuantPanel& codes = prepared.codes;
  codes.cols = cols;
  codes.group = operand.quant->activation_group();
  codes.code_max = operand.quant->code_max();
  const int64_t scales = cols / codes.group * kernels_.panel;
  ScratchCutter cutter;
  cutter.Reserve<uint8_t>(cols * kernels_.panel);
  cutter.Reserve<float>(scales);
  cutter.Reserve<float>(scales);
  cutter.Allocate(scratch.codes[index]);
  codes.codes = cutter.Take<uint8_t>(cols * kernels_.panel);
  codes.scales = cutter.Take<float>(scales);
  codes.biases = cutter.Take<float>(scales);
  kernels_.unpack_codes(*operand.quant, first, count, codes);
  if (operand.rows == nullptr) {
    float* panel = scratch.floats[index].Need<float>(cols * kernels_.panel);
    kernels_.dequantize_panel(codes, 0, cols, panel);
    prepared.f32 = panel;
  }
  return prepared;
}

void CpuBackend::MultiplyRows(const PreparedPanel& panel, const Operand& operand, const MatMulInput& input,
                              int64_t first, int64_t count, float* tile) const {
  if (panel.f32 != nullptr) {
    kernels_.f32_tile(input.x.row(first), input.x.stride, count, panel.f32, kernels_.panel, input.x.cols,
                      kernels_.panel, tile, kernels_.panel);
    return;
  }
  if (operand.direct) {
    kernels_.decode_tile(*operand.quant, panel.first, panel.count, *operand.rows, first, count, tile);
    return;
  }
  const int64_t fine = std::clamp<int64_t>(FineRows(input) - first, 0, count);
  if (fine > 0) kernels_.quant_tile(panel.codes, *operand.rows, first, fine, true, tile);
  if (fine < count) {
    kernels_.quant_tile(panel.codes, *operand.rows, first + fine, count - fine, false, tile + fine * kernels_.panel);
  }
}

// All rows with every panel, unless there are so few panels that workers would idle.
int64_t CpuBackend::RowBlock(int64_t rows, int64_t panels) const {
  const int64_t wanted = 4 * pool_.threads();
  if (pool_.threads() == 1 || panels >= wanted || rows <= 2 * kTileBlock) return rows;
  const int64_t blocks = std::min(CeilDiv(wanted, panels), rows / kTileBlock);
  return CeilDiv(CeilDiv(rows, blocks), kTileBlock) * kTileBlock;
}

// Panels a task takes one after another. Many rows: one. Few: neighbours, for the next panel is fetched while one is
// multiplied, and had better be wanted by the same core; yet enough tasks to even out the workers.
int64_t CpuBackend::PanelRun(int64_t rows, int64_t panels) const {
  constexpr int64_t kMostRowsThatWait = 64;  // for memory, that is
  if (rows > kMostRowsThatWait) return 1;
  return std::clamp<int64_t>(panels / (pool_.threads() * 4), 1, 16);
}

template <typename Fn>
void CpuBackend::ForPanels(int64_t rows, int64_t panels, Fn multiply_panel) {
  const int64_t row_block = RowBlock(rows, panels);
  const int64_t run = PanelRun(rows, panels);
  const int64_t runs = CeilDiv(panels, run);
  pool_.Run(runs * CeilDiv(rows, row_block), [&](int64_t chunk, int worker) {
    const int64_t first_row = chunk / runs * row_block;
    const RowRange range = {first_row, std::min(rows, first_row + row_block)};
    const int64_t first_panel = chunk % runs * run;
    for (int64_t p = first_panel; p < std::min(panels, first_panel + run); ++p) multiply_panel(p, range, worker);
  });
}

void CpuBackend::MatMul(const MatMulInput& input, std::span<const Product> products) {
  CheckProducts(input, products);
  constexpr size_t kMostProducts = 16;
  PENSIEVE_CHECK(products.size() <= kMostProducts);
  const int64_t rows = input.x.rows;
  if (rows == 0) return;
  for (QuantizedInput& q : quantized_) q.valid = false;
  std::array<Operand, kMostProducts> operands;
  std::array<int64_t, kMostProducts + 1> first_panel = {0};
  for (size_t i = 0; i < products.size(); ++i) {
    operands[i] = MakeOperand(input, *products[i].weight);
    first_panel[i + 1] = first_panel[i] + CeilDiv(products[i].out.cols, kernels_.panel);
  }
  const auto multiply_panel = [&](int64_t panel, RowRange range, int worker) {
    size_t i = 0;
    while (panel >= first_panel[i + 1]) ++i;
    const Product& product = products[i];
    const int64_t channel = (panel - first_panel[i]) * kernels_.panel;
    const int64_t count = std::min<int64_t>(kernels_.panel, product.out.cols - channel);
    const PreparedPanel prepared = Prepare(operands[i], channel, count, 0, worker);
    float* tile = scratch_[static_cast<size_t>(worker)].tiles[0].Need<float>(kTileBlock * kernels_.panel);
    for (int64_t first = range.first; first < range.end; first += kTileBlock) {
      const int64_t n = std::min(kTileBlock, range.end - first);
      MultiplyRows(prepared, operands[i], input, first, n, tile);
      kernels_.store_tile(tile, kernels_.panel,
                          {product.bias == nullptr ? nullptr : product.bias + channel, product.activation,
                           product.accumulate, product.out.row(first) + channel, product.out.stride, n, count});
    }
  };
  ForPanels(rows, first_panel[products.size()], multiply_panel);
}

void CpuBackend::GatedMatMul(const MatMulInput& input, const tensor::Weight& gate, const tensor::Weight& up,
                             Activation activation, Matrix out) {
  CheckGated(input, gate, up, out);
  const int64_t rows = input.x.rows;
  if (rows == 0) return;
  for (QuantizedInput& q : quantized_) q.valid = false;
  const Operand gate_operand = MakeOperand(input, gate);
  const Operand up_operand = MakeOperand(input, up);
  const auto multiply_panel = [&](int64_t panel, RowRange range, int worker) {
    const int64_t channel = panel * kernels_.panel;
    const int64_t count = std::min<int64_t>(kernels_.panel, out.cols - channel);
    const PreparedPanel gate_panel = Prepare(gate_operand, channel, count, 0, worker);
    const PreparedPanel up_panel = Prepare(up_operand, channel, count, 1, worker);
    WorkerScratch& scratch = scratch_[static_cast<size_t>(worker)];
    float* gate_tile = scratch.tiles[0].Need<float>(kTileBlock * kernels_.panel);
    float* up_tile = scratch.tiles[1].Need<float>(kTileBlock * kernels_.panel);
    for (int64_t first = range.first; first < range.end; first += kTileBlock) {
      const int64_t n = std::min(kTileBlock, range.end - first);
      MultiplyRows(gate_panel, gate_operand, input, first, n, gate_tile);
      MultiplyRows(up_panel, up_operand, input, first, n, up_tile);
      kernels_.store_gated(gate_tile, up_tile, kernels_.panel,
                           {nullptr, activation, false, out.row(first) + channel, out.stride, n, count});
    }
  };
  ForPanels(rows, CeilDiv(out.cols, kernels_.panel), multiply_panel);
}

}  // namespace pensieve::backend::cpu
