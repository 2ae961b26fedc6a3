// The CPU backend: operations cut into chunks for the worker pool, kernels from the table of the best instruction set.
#pragma once

#include <algorithm>
#include <array>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/kv_cache.h"
#include "backend/cpu/scratch.h"
#include "backend/cpu/sizes.h"
#include "backend/cpu/worker_pool.h"
#include "tensor/buffer.h"

namespace pensieve::backend::cpu {

// The codes of a quantized form, or nothing for a dense one.
std::optional<QuantWeight> AsQuantWeight(const tensor::Weight& weight);

class CpuBackend final : public Backend {
 public:
  CpuBackend(const CpuOptions& options, const KernelTable& kernels, int threads);

  DeviceDescription Describe() const override;

  Result<tensor::Weight> Import(const tensor::Weight& weight) override;
  Result<tensor::Weight> ImportForEncoder(const tensor::Weight& weight) override;
  Result<Matrix> NewMatrix(int64_t rows, int64_t cols) override;
  Result<std::unique_ptr<KvCache>> NewKvCache(const KvShape& shape) override;
  void CopyToDevice(std::span<const float> host, float* device) override;
  void CopyToHost(const float* device, std::span<float> host) override;
  void Synchronize() override {}

  void MatMul(const MatMulInput& input, std::span<const Product> products) override;
  void GatedMatMul(const MatMulInput& input, const tensor::Weight& gate, const tensor::Weight& up,
                   Activation activation, Matrix out) override;
  void Experts(const MatMulInput& input, Matrix logits, const ExpertLayer& layer, Matrix out) override;

  void EmbedRows(const tensor::Weight& table, std::span<const int32_t> ids, float scale, Matrix out,
                 bool add) override;
  void RmsNorm(Matrix x, const float* weight, float eps, Matrix out) override;
  void RmsNormHeads(Matrix x, int64_t head_dim, const float* weight, float eps) override;
  void LayerNorm(Matrix x, const float* weight, const float* bias, float eps, Matrix out) override;
  void Rope(Matrix x, int64_t head_dim, std::span<const int32_t> positions, const RopeTable& table) override;
  void Add(Matrix x, Matrix out) override;
  void Scale(Matrix x, float factor) override;
  void Softcap(Matrix x, float cap) override;
  void GatherRows(Matrix x, std::span<const int32_t> rows, Matrix out) override;

  void StoreKv(KvCache& cache, int64_t layer, std::span<const SequenceRows> sequences, Matrix k, Matrix v) override;
  void PagedAttention(const KvCache& cache, int64_t layer, std::span<const SequenceRows> sequences,
                      const AttentionParams& params, Matrix q, Matrix out) override;
  void EncoderAttention(std::span<const SequenceRows> sequences, int64_t head_dim, const AttentionParams& params,
                        Matrix q, Matrix k, Matrix v, Matrix out) override;

  void Pool(Matrix x, std::span<const SequenceRows> sequences, Pooling pooling, Matrix out) override;
  void L2Normalize(Matrix x) override;

 private:
  // One weight of a product and how it is multiplied.
  struct Operand {
    const tensor::Weight* weight = nullptr;
    std::optional<QuantWeight> quant;  // nothing: dense
    const QuantRows* rows = nullptr;   // the input's planes; null: multiply in f32
    bool direct = false;               // codes are used as they are read (decode_tile)
  };
  struct WorkerScratch {
    Scratch codes;                 // QuantPanel
    Scratch floats;                // f32 panel
    std::array<Scratch, 2> tiles;  // two for gated products
    Scratch attention;
    Scratch row;
    Scratch experts;
  };
  struct RopeAngles;
  // A row that chose an expert, and how much of the expert it takes.
  struct ChosenRow {
    int32_t row;
    float weight;
  };

  Operand MakeOperand(const MatMulInput& input, const tensor::Weight& weight);
  const QuantRows* QuantizeInput(const MatMulInput& input, int group);
  int64_t FineRows(const MatMulInput& input) const;
  // Whether decode_tile may take the rows.
  bool FewFineRows(const MatMulInput& input) const;
  int64_t RowBlock(int64_t rows, int64_t cols, int64_t panels) const;
  int64_t PanelRun(int64_t rows, int64_t panels) const;
  // multiply_panel(panel, rows, worker) for every panel and block of rows, shared among the workers.
  struct RowRange {
    int64_t first;
    int64_t end;
  };
  template <typename Fn>
  void ForPanels(int64_t rows, int64_t cols, int64_t panels, Fn multiply_panel);

  struct ChannelRange {
    int64_t first;
    int64_t count;
  };
  QuantPanel NewPanel(const Operand& operand, int64_t first, Scratch& scratch) const;
  void MultiplyCodes(const QuantPanel& panel, const Operand& operand, int64_t fine_rows, RowRange rows,
                     float* tile) const;
  void MultiplyFloats(const MatMulInput& input, const Operand& operand, ChannelRange channels, RowRange rows, float* tile,
                      WorkerScratch& scratch) const;
  // The sums [rows, panel] of a panel's channels, in tile_memory.
  const float* MultiplyPanel(const MatMulInput& input, const Operand& operand, ChannelRange channels, RowRange rows,
                             Scratch& tile_memory, int worker);
  const RopeAngles& AnglesFor(std::span<const int32_t> positions, const RopeTable& table);
  // fn(row) for every row, in chunks of at least `least` values.
  template <typename Fn>
  void ForRows(int64_t rows, int64_t cols, Fn fn);

  void RouteRows(Matrix logits, const ExpertLayer& layer);
  Matrix GatherChosen(Matrix x, std::span<const ChosenRow> chosen);
  Matrix ExpertInner(const MatMulInput& input, const Expert& expert, const ExpertLayer& layer);
  void ActivatePairs(Matrix both, const ExpertLayer& layer, Matrix inner);

  struct AttentionTask;
  struct AttentionWork;
  void RunAttention(const AttentionWork& work);
  void AttendTask(const AttentionWork& work, const AttentionTask& task, int worker);
  void AttendSplit(const AttentionWork& work);
  struct PairMemory;
  struct AttentionScratch;
  void AttendSegment(const AttentionWork& work, const AttentionTask& task, int64_t segment, AttentionScratch& scratch);

  const KernelTable& kernels_;
  ActivationMode mode_;
  WorkerPool pool_;
  std::deque<tensor::Buffer> buffers_;
  tensor::BufferArena encoder_weights_;
  std::vector<WorkerScratch> scratch_;  // one a worker

  // The planes of the present input, by activation group: 16, 32, 64. Valid within one call.
  struct QuantizedInput {
    bool valid = false;
    Scratch memory;
    QuantRows rows;
  };
  std::array<QuantizedInput, 3> quantized_;

  // The rows of every expert, expert by expert, and the matrices between its products. Valid within one call.
  struct ExpertWork {
    std::vector<ChosenRow> chosen;      // [rows * top_k]: the rows of expert e are [first[e], first[e + 1])
    std::vector<int64_t> first;         // [experts + 1]
    std::vector<int32_t> expert_of;     // [rows * top_k], row by row, experts ascending
    std::vector<float> weight_of;
    Scratch gathered;
    Scratch both;
    Scratch inner;
    Scratch result;
  };
  ExpertWork expert_work_;

  // Angles of the present step. Every layer asks for the same ones, twice; models with two kinds of layers for two.
  struct RopeAngles {
    std::vector<int32_t> positions;
    std::vector<float> frequencies;
    float magnitude = 0.0f;
    std::vector<float> cosines;  // [rows, pairs]
    std::vector<float> sines;
  };
  std::array<RopeAngles, 2> angles_;
  size_t oldest_angles_ = 0;

  struct AttentionTask {
    int64_t sequence;
    int64_t kv_head;
    int64_t first_row;  // within the sequence
    int64_t num_rows;
  };
  std::vector<AttentionTask> attention_tasks_;

  // Running softmax of a task's rows.
  struct SoftmaxState {
    float* mixed = nullptr;    // [rows][stride]
    float* sum = nullptr;      // [rows]
    float* largest = nullptr;  // [rows]

    static void Reserve(ScratchCutter& cutter, int64_t rows, int64_t stride);
    static SoftmaxState Take(ScratchCutter& cutter, int64_t rows, int64_t stride);
    void Reset(int64_t rows, int64_t stride) const;
  };
  // One segment of a task that is split. Kept from step to step, so that steps allocate nothing.
  struct AttentionPart {
    size_t task;
    int64_t segment;
    SoftmaxState state;
  };
  std::vector<AttentionPart> attention_parts_;
  Scratch attention_states_;
};

// Values that are worth waking a worker for: some ten microseconds of work.
inline constexpr int64_t kChunkValues = 16384;

template <typename Fn>
void CpuBackend::ForRows(int64_t rows, int64_t cols, Fn fn) {
  const int64_t step = std::max<int64_t>(1, kChunkValues / std::max<int64_t>(1, cols));
  pool_.Run(CeilDiv(rows, step), [&](int64_t chunk, int worker) {
    for (int64_t r = chunk * step; r < std::min(rows, (chunk + 1) * step); ++r) fn(r, worker);
  });
}

}  // namespace pensieve::backend::cpu
