// The launches of a step, kept as data until they are wanted, and the CUDA graphs of steps that came before.
//
// Launching some four hundred small kernels one by one costs about a millisecond; the graph of all of them costs a tenth.
// A model issues the same operations in every step. So a list whose launches all have the same arguments as an earlier
// list's is run as that list's graph: pointers and sizes are compared, what lies in memory is not.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <list>
#include <type_traits>
#include <vector>

namespace pensieve::backend::cuda {

// Engine-thread-only.
class OperationList {
 public:
  ~OperationList();

  bool empty() const { return launches_.empty(); }
  // Where the list stands; ReturnTo takes back what was added since, which no Run may have come between.
  struct Mark {
    size_t size = 0;
    uint64_t key = 0;
    bool operator==(const Mark&) const = default;
  };
  Mark Here() const { return {launches_.size(), key_}; }
  void ReturnTo(const Mark& mark) {
    launches_.resize(mark.size);
    key_ = mark.key;
  }
  // launch(args..., stream) launches kernels only, and depends on nothing but its arguments.
  template <typename... Params, typename... Args>
  void Add(void (*launch)(Params...), const Args&... args) {
    static_assert((std::is_trivially_copyable_v<Args> && ...));
    const auto address = reinterpret_cast<uintptr_t>(launch);
    Note(&address, sizeof(address));
    (Note(&args, sizeof(args)), ...);
    launches_.push_back([launch, args...](cudaStream_t stream) { launch(args..., stream); });
  }
  // Launches all and forgets them.
  cudaError_t Run(cudaStream_t stream);

 private:
  struct Graph {
    uint64_t key;
    cudaGraphExec_t exec;  // null until the list comes a second time
  };

  void Note(const void* bytes, size_t size);
  cudaError_t RunDirectly(cudaStream_t stream);
  cudaError_t Capture(cudaStream_t stream, cudaGraphExec_t* exec);

  std::vector<std::function<void(cudaStream_t)>> launches_;
  uint64_t key_ = kFirstKey;
  std::list<Graph> graphs_;  // the latest used first

  static constexpr uint64_t kFirstKey = 0xcbf29ce484222325u;
};

}  // namespace pensieve::backend::cuda
