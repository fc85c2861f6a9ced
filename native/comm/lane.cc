#include "comm/lane.h"

#include <chrono>

namespace slipstream::comm {

namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Lane::~Lane() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  queued_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Lane::Ticket Lane::submit(std::function<void()> work, std::function<void(std::exception_ptr)> done) {
  Ticket ticket;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ticket = next_++;
    items_.push_back({ticket, std::move(work), std::move(done)});
    if (!thread_.joinable()) thread_ = std::thread([this] { this->work(); });
  }
  queued_.notify_one();
  return ticket;
}

void Lane::wait(Ticket ticket) {
  std::unique_lock<std::mutex> lock(mutex_);
  finished_.wait(lock, [&] { return finished_through_ >= ticket; });
  if (const auto span = spans_.find(ticket); span != spans_.end()) {
    last_waited_ = span->second;
    spans_.erase(span);
  }
  const auto failure = failures_.find(ticket);
  if (failure == failures_.end()) return;
  const std::exception_ptr error = failure->second;
  failures_.erase(failure);
  std::rethrow_exception(error);
}

void Lane::run(const std::function<void()>& work) {
  {
    std::unique_lock<std::mutex> lock(mutex_);
    if (busy_ || !items_.empty()) {
      lock.unlock();
      wait(submit(work));
      return;
    }
    busy_ = true;
    visitor_ = std::this_thread::get_id();
  }
  std::exception_ptr failure;
  try {
    work();
  } catch (...) {
    failure = std::current_exception();
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    busy_ = false;
    visitor_ = {};
  }
  queued_.notify_one();
  if (failure != nullptr) std::rethrow_exception(failure);
}

bool Lane::is_current() const {
  std::lock_guard<std::mutex> lock(mutex_);
  const std::thread::id self = std::this_thread::get_id();
  return thread_.get_id() == self || visitor_ == self;
}

Lane::Span Lane::last_waited() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return last_waited_;
}

void Lane::work() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    queued_.wait(lock, [&] { return !busy_ && (stopping_ || !items_.empty()); });
    if (items_.empty()) return;
    Item item = std::move(items_.front());
    items_.pop_front();
    busy_ = true;
    lock.unlock();
    std::exception_ptr failure;
    const double begin = now();
    try {
      item.work();
    } catch (...) {
      failure = std::current_exception();
    }
    const double end = now();
    if (item.done != nullptr) item.done(failure);
    lock.lock();
    if (item.done == nullptr) {
      spans_[item.ticket] = {begin, end};
      if (failure != nullptr) failures_[item.ticket] = failure;
    }
    finished_through_ = item.ticket;
    busy_ = false;
    finished_.notify_all();
  }
}

}  // namespace slipstream::comm
