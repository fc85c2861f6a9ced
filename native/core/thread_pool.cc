#include "core/thread_pool.h"

#include <cstdlib>
#include <new>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace slipstream {

namespace {

// About 50 microseconds: longer than the gap between two kernels, shorter than a person's patience with a
// busy core.
constexpr int kSpins = 2000;

constexpr uint64_t kJoined = 0xffff, kOpen = 0x10000, kLowHalf = 0xffffffff, kOneJob = uint64_t{1} << 32;

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) : count_(threads < 1 ? 1 : threads), scratch_(count_) {
  for (int thread = 1; thread < count_; thread++) {
    workers_.emplace_back([this, thread] { work(thread); });
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_.store(true);
    state_.fetch_add(kOneJob);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  for (Scratch& scratch : scratch_) std::free(scratch.data);
}

void ThreadPool::dispatch(Invoke invoke, const void* context) {
  invoke_ = invoke;
  context_ = context;
  failure_ = nullptr;
  // No worker is active here, so only this thread changes the state.
  state_.store((state_.load() & ~kLowHalf) + kOneJob + kOpen);
  if (sleeping_.load() > 0) {
    std::lock_guard<std::mutex> lock(mutex_);
    wake_.notify_all();
  }
  std::exception_ptr own_failure;
  try {
    invoke(context, 0);
  } catch (...) {
    own_failure = std::current_exception();
  }
  state_.fetch_and(~kOpen);
  for (int spin = 0; (state_.load(std::memory_order_acquire) & kJoined) != 0; spin++) {
    if (spin < kSpins) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
  if (own_failure == nullptr) own_failure = failure_;
  if (own_failure != nullptr) std::rethrow_exception(own_failure);
}

void ThreadPool::work(int thread) {
  uint64_t seen = 0;
  const auto job = [&] { return state_.load() / kOneJob; };
  for (;;) {
    for (int spin = 0; job() == seen && spin < kSpins; spin++) pause();
    if (job() == seen) {
      std::unique_lock<std::mutex> lock(mutex_);
      sleeping_.fetch_add(1);
      wake_.wait(lock, [&] { return job() != seen; });
      sleeping_.fetch_sub(1);
    }
    if (stopping_.load()) return;
    uint64_t state = state_.load();
    seen = state / kOneJob;
    // Joins while the job is open; a job that closed first did without this worker.
    bool joined = false;
    while ((state & kOpen) != 0 && state / kOneJob == seen && !joined) {
      joined = state_.compare_exchange_weak(state, state + 1);
    }
    if (!joined) continue;
    try {
      invoke_(context_, thread);
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex_);
      if (failure_ == nullptr) failure_ = std::current_exception();
    }
    state_.fetch_sub(1, std::memory_order_release);
  }
}

void* ThreadPool::scratch(int thread, size_t bytes) {
  Scratch& scratch = scratch_[thread];
  if (scratch.bytes < bytes) {
    std::free(scratch.data);
    const size_t rounded = (bytes + 4095) / 4096 * 4096;
    scratch.data = std::aligned_alloc(4096, rounded);
    if (scratch.data == nullptr) throw std::bad_alloc();
    scratch.bytes = rounded;
  }
  return scratch.data;
}

size_t ThreadPool::scratch_bytes() const {
  size_t total = 0;
  for (const Scratch& scratch : scratch_) total += scratch.bytes;
  return total;
}

}  // namespace slipstream
