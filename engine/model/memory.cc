#include "engine/model/memory.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <sys/mman.h>

#include <exception>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace acuity::engine {

void ConfigureLibTorch() { at::set_num_threads(1); }

absl::StatusOr<Memory> Memory::Allocate(std::string_view what, int64_t bytes) {
  try {
    auto tensor = std::make_shared<at::Tensor>(at::empty({bytes}, at::kByte));
    Memory memory;
    memory.data_ = static_cast<std::byte*>(tensor->mutable_data_ptr());
    memory.bytes_ = bytes;
    memory.owner_ = std::move(tensor);
    return memory;
  } catch (const std::exception&) {  // c10::Error, std::bad_alloc
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", bytes, " bytes for ",
                                                     absl::string_view(what.data(), what.size())));
  }
}

void Memory::PreferHugePages() const {
  constexpr uintptr_t kHugePage = uintptr_t{2} << 20;
  const auto address = reinterpret_cast<uintptr_t>(data_);
  const uintptr_t begin = (address + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (address + static_cast<uintptr_t>(bytes_)) / kHugePage * kHugePage;
  // Advice: the pages stay small if it is refused.
  if (begin < end) {
    static_cast<void>(madvise(As<char>() + (begin - address), end - begin, MADV_HUGEPAGE));
  }
}

}  // namespace acuity::engine
