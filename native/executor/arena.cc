#include "executor/arena.h"

#include <utility>

namespace slipstream {

void Arena::require(size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  // Asked for now, so that what cannot be had is known before the first run; touched only when it is used.
  if (bytes > memory_.bytes() && bytes > larger_.bytes()) larger_ = Memory(bytes);
  required_.insert(bytes);
}

void Arena::give_back(size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = required_.find(bytes);
  if (found != required_.end()) required_.erase(found);
}

void Arena::trim() {
  std::lock_guard<std::mutex> lock(mutex_);
  const size_t needed = required_.empty() ? 0 : *required_.rbegin();
  if (memory_.bytes() > needed) memory_ = Memory();
  if (larger_.bytes() > needed) larger_ = Memory();
}

char* Arena::data() {
  std::lock_guard<std::mutex> lock(mutex_);
  const size_t needed = required_.empty() ? 0 : *required_.rbegin();
  if (larger_.bytes() >= needed && larger_.bytes() > memory_.bytes()) {
    memory_ = Memory();
    memory_ = std::move(larger_);
  }
  larger_ = Memory();
  // The largest program may be gone, or `trim` may have returned everything.
  if (memory_.bytes() != needed) {
    memory_ = Memory();
    memory_ = Memory(needed);
  }
  return memory_.data();
}

}  // namespace slipstream
