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
    generation_.fetch_add(1);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  for (Scratch& scratch : scratch_) std::free(scratch.data);
}

void ThreadPool::dispatch(Invoke invoke, const void* context) {
  invoke_ = invoke;
  context_ = context;
  pending_.store(count_ - 1, std::memory_order_relaxed);
  generation_.fetch_add(1);
  if (sleeping_.load() > 0) {
    std::lock_guard<std::mutex> lock(mutex_);
    wake_.notify_all();
  }
  invoke(context, 0);
  for (int spin = 0; pending_.load(std::memory_order_acquire) > 0; spin++) {
    if (spin < kSpins * 16) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::work(int thread) {
  uint64_t seen = 0;
  for (;;) {
    for (int spin = 0; generation_.load(std::memory_order_acquire) == seen && spin < kSpins; spin++) pause();
    if (generation_.load() == seen) {
      std::unique_lock<std::mutex> lock(mutex_);
      sleeping_.fetch_add(1);
      wake_.wait(lock, [&] { return generation_.load() != seen; });
      sleeping_.fetch_sub(1);
    }
    if (stopping_.load()) return;
    seen++;
    invoke_(context_, thread);
    pending_.fetch_sub(1, std::memory_order_release);
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
