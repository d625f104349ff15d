// How kernels use more than one core: they are handed this callback and never start threads.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace acuity::kernels {

// Calls body(ctx, i) once for each i in [0, count), on any threads, and returns when all are done.
// What a task computes never depends on the number of threads, so results do not either.
struct ParallelFor {
  using Body = void (*)(void* ctx, int64_t index);
  void (*run)(void* self, int64_t count, Body body, void* ctx) = nullptr;
  void* self = nullptr;
  int num_threads = 1;  // that `run` may use at a time: how finely work is worth cutting

  // Runs function(index) for each index; without `run`, in order on the calling thread.
  template <typename Function>
  void operator()(int64_t count, Function&& function) const {
    using Callable = std::remove_reference_t<Function>;
    if (run == nullptr || count <= 1) {
      for (int64_t i = 0; i < count; ++i) function(i);
      return;
    }
    const Body body = [](void* ctx, int64_t index) { (*static_cast<Callable*>(ctx))(index); };
    run(self, count, body, const_cast<void*>(static_cast<const void*>(std::addressof(function))));
  }
};

}  // namespace acuity::kernels
