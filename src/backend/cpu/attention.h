// Attention over the KV cache or inside an encoder's texts, and storing keys and values. Engine-thread-only.
#pragma once

#include <span>
#include <vector>

#include "backend/cpu/compute.h"
#include "backend/cpu/kv_cache.h"
#include "backend/cpu/scratch.h"
#include "backend/matrix_view.h"

namespace pensieve::backend::cpu {

class Attention {
 public:
  explicit Attention(const Compute& compute)
      : kernels_(compute.kernels),
        pool_(compute.pool),
        mode_(compute.mode),
        scratch_(static_cast<size_t>(compute.pool.threads())) {}

  void Store(const CpuKvCache& cache, int64_t layer, std::span<const SequenceRows> sequences, MatrixView k,
             MatrixView v);
  // Rows before step.precise_rows, and all in the exact modes, are multiplied in f32.
  void Paged(const CpuKvCache& cache, int64_t layer, const StepInputs& step, const AttentionParams& params,
             MatrixView q, MatrixView out);
  struct EncoderInputs {
    int64_t head_dim;
    MatrixView q, k, v;
  };
  void Encoder(const EncoderInputs& inputs, const StepInputs& step, const AttentionParams& params, MatrixView out);

 private:
  struct WorkerScratch {
    Scratch task;
    Scratch row;
  };
  struct Task {
    int64_t sequence;
    int64_t kv_head;
    int64_t first_row;  // within the sequence
    int64_t num_rows;
  };
  // Running softmax of a task's rows.
  struct SoftmaxState {
    float* mixed = nullptr;    // [rows][stride]
    float* sum = nullptr;      // [rows]
    float* largest = nullptr;  // [rows]

    static void Reserve(ScratchCutter& cutter, int64_t rows, int64_t stride);
    static SoftmaxState Take(ScratchCutter& cutter, int64_t rows, int64_t stride);
    void Reset(int64_t rows, int64_t stride) const;
  };
  // One segment of a task that is split.
  struct Part {
    size_t task;
    int64_t segment;
    SoftmaxState state;
  };
  struct Work;
  struct PairMemory;
  struct TaskScratch;

  void Run(const Work& work);
  void AttendTask(const Work& work, const Task& task, int worker);
  void AttendSplit(const Work& work);
  void AttendSegment(const Work& work, const Task& task, int64_t segment, TaskScratch& scratch);

  const KernelTable& kernels_;
  WorkerPool& pool_;
  const InputPrecision mode_;
  std::vector<WorkerScratch> scratch_;  // one a worker

  // Kept from step to step, so that steps allocate nothing.
  std::vector<Task> tasks_;
  std::vector<Part> parts_;
  Scratch states_;
};

}  // namespace pensieve::backend::cpu
