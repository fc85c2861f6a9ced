// A thread that does one thing after another: the lane on which a group's collectives, or a store's reads and
// writes, run beside the kernels. Work is started with `submit` and waited for with the ticket that it gives.
// The thread begins with the first work and sleeps where there is none.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

namespace slipstream::comm {

class Lane {
 public:
  using Ticket = uint64_t;

  Lane() = default;
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  // Queues work and returns at once. `done`, where given, is called on the lane's thread after the work with
  // what it threw (null: nothing); without it, what was thrown is rethrown by `wait`.
  Ticket submit(std::function<void()> work, std::function<void(std::exception_ptr)> done = nullptr);

  // Waits until that work has ended and rethrows what it threw. Each ticket is waited for once at the most.
  void wait(Ticket ticket);

  // Does work in its turn, like `submit` and `wait`; on the calling thread where nothing is before it, which
  // spares waking the lane's.
  void run(const std::function<void()>& work);

  // Whether the calling thread is the lane's own: `wait` would then never return.
  bool is_current() const;

  // Seconds, of the steady clock, at which the work of a ticket that was waited for began and ended.
  struct Span {
    double begin = 0, end = 0;
  };
  Span last_waited() const;

 private:
  struct Item {
    Ticket ticket;
    std::function<void()> work;
    std::function<void(std::exception_ptr)> done;
  };
  void work();

  mutable std::mutex mutex_;
  std::condition_variable queued_, finished_;
  std::deque<Item> items_;
  std::map<Ticket, std::exception_ptr> failures_;
  std::map<Ticket, Span> spans_;
  Ticket next_ = 1, finished_through_ = 0;
  Span last_waited_;
  bool stopping_ = false;
  bool busy_ = false;        // work is being done
  std::thread::id visitor_;  // the thread that does it in `run`
  std::thread thread_;
};

}  // namespace slipstream::comm
