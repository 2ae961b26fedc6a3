#include "backend/cuda/operation_list.h"

#include <algorithm>

namespace pensieve::backend::cuda {
namespace {

// Fewer launches than these are not worth a graph.
constexpr size_t kLeastLaunches = 8;
// Graphs kept: batches of 1 to 64 sequences, a few lengths each. One takes some 100 KB a hundred launches.
constexpr size_t kMostGraphs = 96;

}  // namespace

OperationList::~OperationList() {
  for (const Graph& graph : graphs_) {
    if (graph.exec != nullptr) cudaGraphExecDestroy(graph.exec);
  }
}

// A 64-bit mix of everything noted, eight bytes at a time. Lists that differ get the same key once in 2^64 / pairs.
void OperationList::Note(const void* bytes, size_t size) {
  const auto* from = static_cast<const unsigned char*>(bytes);
  for (size_t i = 0; i < size; i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, from + i, std::min<size_t>(8, size - i));
    key_ = (key_ ^ word) * 0x9e3779b97f4a7c15u;
    key_ ^= key_ >> 29;
  }
  key_ = (key_ ^ size) * 0xff51afd7ed558ccdu;
}

cudaError_t OperationList::RunDirectly(cudaStream_t stream) {
  for (const auto& launch : launches_) launch(stream);
  return cudaGetLastError();
}

cudaError_t OperationList::Capture(cudaStream_t stream, cudaGraphExec_t* exec) {
  cudaError_t error = cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
  if (error != cudaSuccess) return error;
  error = RunDirectly(stream);
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
  if (error == cudaSuccess) error = ended;
  if (error == cudaSuccess) error = cudaGraphInstantiate(exec, graph, 0);
  if (graph != nullptr) cudaGraphDestroy(graph);
  return error;
}

cudaError_t OperationList::Run(cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  if (launches_.size() < kLeastLaunches) {
    error = RunDirectly(stream);
  } else {
    const auto found =
        std::find_if(graphs_.begin(), graphs_.end(), [&](const Graph& graph) { return graph.key == key_; });
    if (found == graphs_.end()) {
      graphs_.push_front({key_, nullptr});
      error = RunDirectly(stream);
    } else {
      graphs_.splice(graphs_.begin(), graphs_, found);
      if (found->exec == nullptr) error = Capture(stream, &found->exec);
      if (error == cudaSuccess) error = cudaGraphLaunch(found->exec, stream);
    }
    if (graphs_.size() > kMostGraphs) {
      if (graphs_.back().exec != nullptr) cudaGraphExecDestroy(graphs_.back().exec);
      graphs_.pop_back();
    }
  }
  launches_.clear();
  key_ = kFirstKey;
  return error;
}

}  // namespace pensieve::backend::cuda
