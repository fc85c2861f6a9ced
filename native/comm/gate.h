// A gate that the members of a group pass together, any number of times. Passing and failing exclude each
// other for all of them at once: a gate that failed lets nobody through, and one that opened lets everybody
// through.
#pragma once

#include <atomic>
#include <cstdint>

namespace slipstream::comm {

class Gate {
 public:
  explicit Gate(int members) : members_(static_cast<uint64_t>(members)) {}

  static constexpr uint64_t kRefused = ~uint64_t{0};

  // Arrives and returns the opening to wait for, or kRefused where the gate has failed.
  uint64_t arrive() {
    uint64_t state = state_.load(std::memory_order_acquire);
    for (;;) {
      if ((state & kFailed) != 0) return kRefused;
      const uint64_t opening = state >> 32;
      const uint64_t count = (state & 0xffffffffu) + 1;
      const uint64_t next = count == members_ ? ((opening + 1) & 0x7fffffffu) << 32 : (opening << 32) | count;
      if (state_.compare_exchange_weak(state, next, std::memory_order_acq_rel)) return opening;
    }
  }
  bool has_opened(uint64_t opening) const {
    return ((state_.load(std::memory_order_acquire) & ~kFailed) >> 32) != opening;
  }
  bool has_failed() const { return (state_.load(std::memory_order_acquire) & kFailed) != 0; }
  void fail() { state_.fetch_or(kFailed, std::memory_order_acq_rel); }

 private:
  static constexpr uint64_t kFailed = uint64_t{1} << 63;
  const uint64_t members_;
  std::atomic<uint64_t> state_{0};  // failed, 31 bits of openings, 32 bits of arrivals
};

}  // namespace slipstream::comm
