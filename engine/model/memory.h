// Memory that LibTorch owns. No LibTorch header: the tensor is held behind a pointer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "absl/status/statusor.h"

namespace acuity::engine {

// Keeps LibTorch from starting threads of its own: kernels::ParallelFor is the one pool.
// Idempotent.
void ConfigureLibTorch();

// Move-only, aligned to 64 bytes, not initialised. Large blocks come straight from the operating
// system, which backs a page only when it is first written.
class Memory {
 public:
  Memory() = default;
  Memory(Memory&& other) noexcept = default;
  Memory& operator=(Memory&& other) noexcept = default;

  // ResourceExhausted names `what` if LibTorch cannot provide `bytes`.
  static absl::StatusOr<Memory> Allocate(std::string_view what, int64_t bytes);
  // Asks for 2 MB pages, before the first write: what is streamed at every step then misses the TLB
  // less (decoding one sequence: 10 % less time). Not for memory that is used in part. Does nothing
  // where the system has none.
  void PreferHugePages() const;

  template <typename T>
  T* As() const {
    return reinterpret_cast<T*>(data_);
  }
  int64_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<void> owner_;  // an at::Tensor
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace acuity::engine
