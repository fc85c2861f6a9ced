#include "core/memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>
#include <utility>

namespace slipstream {

namespace {
constexpr size_t kHugePage = size_t{2} << 20;
}

Memory::Memory(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  // No address space is larger; sums below must not wrap around.
  if (bytes > size_t{1} << 56) throw std::bad_alloc();
  const size_t page = bytes >= kHugePage ? kHugePage : 4096;
  mapped_ = (bytes + page - 1) / page * page;
  // Huge pages begin at multiples of their size: a page more is mapped, and its ends are given back.
  const size_t spare = page == kHugePage ? kHugePage : 0;
  void* mapping = mmap(nullptr, mapped_ + spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  if (spare > 0) {
    char* start = static_cast<char*>(mapping);
    const size_t before = (kHugePage - reinterpret_cast<uintptr_t>(start) % kHugePage) % kHugePage;
    if (before > 0) munmap(start, before);
    if (spare > before) munmap(start + before + mapped_, spare - before);
    mapping = start + before;
  }
#if defined(MADV_HUGEPAGE)
  if (bytes >= kHugePage) madvise(mapping, mapped_, MADV_HUGEPAGE);
#endif
  data_ = static_cast<char*>(mapping);
}

Memory::~Memory() {
  if (data_ != nullptr) munmap(data_, mapped_);
}

Memory::Memory(Memory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      mapped_(std::exchange(other.mapped_, 0)) {}

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

}  // namespace slipstream
