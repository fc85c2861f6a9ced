#include "comm/local_group.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <deque>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "comm/call.h"
#include "comm/failure.h"
#include "comm/gate.h"
#include "comm/local_data.h"

namespace slipstream::comm {

namespace {

using Clock = std::chrono::steady_clock;

double now() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

Clock::time_point time_point_of(double seconds) {
  return Clock::time_point(
      std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds)));
}

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// One link of every rank.
struct LinkState {
  LinkState(const Link& from, int ranks) : link(from), free_at(static_cast<size_t>(ranks), 0.0) {}

  // Seconds of the clock at which what a rank sends from `start` on is through.
  double occupy(int rank, double start, const Cost& cost) {
    std::lock_guard<std::mutex> lock(mutex);
    double& free = free_at[static_cast<size_t>(rank)];
    free = std::max(start, free) + seconds_of(cost);
    return free;
  }
  double seconds_of(const Cost& cost) const {
    return link.latency * cost.messages + (cost.bytes > 0 ? cost.bytes / link.bandwidth : 0);
  }

  const Link link;
  std::mutex mutex;
  std::vector<double> free_at;  // by rank of the world
};

// The copy of what was sent. Its memory is used again: the system hands out new memory page by page, which
// takes longer than the copy.
struct Parcel {
  std::unique_ptr<char[]> bytes;
  size_t capacity = 0;
};

struct Message {
  Fingerprint fingerprint;
  std::string moment;
  Parcel parcel;
  double ready = 0;  // when it is through the link
};

// What one member has to show to the others.
struct Slot {
  std::atomic<int64_t> arrived{0};  // calls
  std::atomic<bool> left{false};
  int users = 0;  // those who hold this rank's end and have not left, under the meeting's mutex
  // Written before the first gate under the meeting's mutex, and at rest between the gates.
  const CollectiveCall* call = nullptr;
  Fingerprint fingerprint;
  std::string moment;
  double arrival = 0;
  double through[2] = {0, 0};  // when it is through its link, by turns
  // Under the meeting's mutex: what it waits for.
  bool waiting = false;
  int receiving_from = -1;
};

class World;

// What the members of a group share.
struct Meeting {
  Meeting(World& of, std::string called, std::vector<int> who)
      : world(of),
        name(std::move(called)),
        members(std::move(who)),
        slots(members.size()),
        arrival(static_cast<int>(members.size())),
        departure(static_cast<int>(members.size())) {}

  int size() const { return static_cast<int>(members.size()); }

  World& world;
  const std::string name;
  const std::vector<int> members;
  std::vector<Slot> slots;
  Gate arrival, departure;
  std::vector<std::shared_ptr<LinkState>> links;
  std::vector<std::weak_ptr<Group>> ends;

  std::mutex mutex;
  std::condition_variable changed;
  int sleepers = 0;
  std::map<std::pair<int, int>, std::deque<Message>> mail;  // by sender and receiver
  std::vector<Parcel> spare;                                // for messages to come
};

constexpr size_t kSpareParcels = 16;

// Memory for a message of so many bytes: a spare one that is not far too large, or new.
Parcel take_parcel(Meeting& meeting, size_t bytes) {
  {
    std::lock_guard<std::mutex> lock(meeting.mutex);
    for (Parcel& spare : meeting.spare) {
      if (spare.capacity < bytes || spare.capacity > 2 * bytes) continue;
      std::swap(spare, meeting.spare.back());
      Parcel taken = std::move(meeting.spare.back());
      meeting.spare.pop_back();
      return taken;
    }
  }
  return {std::make_unique_for_overwrite<char[]>(bytes), bytes};
}

void keep_parcel(Meeting& meeting, Parcel parcel) {
  std::lock_guard<std::mutex> lock(meeting.mutex);
  if (meeting.spare.size() < kSpareParcels) meeting.spare.push_back(std::move(parcel));
}

class World : public std::enable_shared_from_this<World> {
 public:
  World(int size, const LocalOptions& options)
      : timeout(options.timeout_seconds),
        spins(static_cast<unsigned>(size) <= std::thread::hardware_concurrency()),
        moments_(static_cast<size_t>(size)) {
    for (const auto& [axis, link] : options.links) links_[axis] = std::make_shared<LinkState>(link, size);
  }

  // The group of these members, made at its first mention.
  std::shared_ptr<Meeting> meet(const std::string& name, const std::vector<int>& members, const Link* link) {
    std::lock_guard<std::mutex> lock(mutex_);
    std::shared_ptr<Meeting>& meeting = meetings_[{name, members}];
    if (meeting != nullptr) return meeting;
    meeting = std::make_shared<Meeting>(*this, name, members);
    meeting->ends.resize(members.size());
    if (failure_.has_value()) meeting->arrival.fail();
    for (size_t begin = 0; begin <= name.size();) {
      const size_t end = std::min(name.find('+', begin), name.size());
      // A part of an axis, such as "sequence.inner", has the axis' links.
      const size_t axis_end = std::min(name.find('.', begin), end);
      const auto found = links_.find(name.substr(begin, axis_end - begin));
      if (found != links_.end()) meeting->links.push_back(found->second);
      begin = end + 1;
    }
    if (link != nullptr) {
      meeting->links.push_back(std::make_shared<LinkState>(*link, static_cast<int>(moments_.size())));
    }
    return meeting;
  }

  // Ends all groups, with the first failure that is reported.
  void fail(const GroupError& error) {
    std::vector<std::shared_ptr<Meeting>> meetings;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (failure_.has_value()) return;
      failure_.emplace(error);
      for (const auto& [key, meeting] : meetings_) meetings.push_back(meeting);
    }
    for (const auto& meeting : meetings) {
      meeting->arrival.fail();
      { std::lock_guard<std::mutex> lock(meeting->mutex); }
      meeting->changed.notify_all();
    }
  }

  [[noreturn]] void throw_failure() {
    std::lock_guard<std::mutex> lock(mutex_);
    throw GroupError(*failure_);
  }

  std::string moment_of(int rank) {
    std::lock_guard<std::mutex> lock(mutex_);
    return moments_[static_cast<size_t>(rank)];
  }
  void set_moment(int rank, const std::string& moment) {
    std::lock_guard<std::mutex> lock(mutex_);
    moments_[static_cast<size_t>(rank)] = moment;
  }

  // What ranks that are waited for are doing; where they wait for others, those too.
  std::vector<Testimony> testimonies(Meeting& asking, std::vector<int> ranks) {
    std::vector<Testimony> result;
    std::set<int> told;
    while (!ranks.empty()) {
      const int rank = ranks.front();
      ranks.erase(ranks.begin());
      if (!told.insert(rank).second) continue;
      std::vector<int> next;
      std::string text = wait_of(rank, &next);
      if (text.empty()) text = last_call_of(rank, asking);
      result.push_back({{rank}, moment_of(rank), text});
      ranks.insert(ranks.end(), next.begin(), next.end());
    }
    return result;
  }

  const double timeout;
  const bool spins;

 private:
  std::vector<std::shared_ptr<Meeting>> meetings_of(int rank) {
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<std::shared_ptr<Meeting>> found;
    for (const auto& [key, meeting] : meetings_) {
      if (std::ranges::find(meeting->members, rank) != meeting->members.end()) found.push_back(meeting);
    }
    return found;
  }

  std::string wait_of(int rank, std::vector<int>* waits_for) {
    for (const std::shared_ptr<Meeting>& meeting : meetings_of(rank)) {
      std::lock_guard<std::mutex> lock(meeting->mutex);
      const auto place = std::ranges::find(meeting->members, rank) - meeting->members.begin();
      const Slot& slot = meeting->slots[static_cast<size_t>(place)];
      if (!slot.waiting) continue;
      std::vector<int> others;
      if (slot.receiving_from >= 0) {
        others.push_back(meeting->members[static_cast<size_t>(slot.receiving_from)]);
      } else {
        for (size_t index = 0; index < meeting->slots.size(); index++) {
          if (meeting->slots[index].arrived < slot.arrived) others.push_back(meeting->members[index]);
        }
      }
      if (others.empty()) continue;
      *waits_for = others;
      return "waits for " + list_ranks(others) + " in " + describe(slot.fingerprint) + " of group \"" +
             meeting->name + "\"";
    }
    return "";
  }

  static std::string last_call_of(int rank, Meeting& meeting) {
    std::lock_guard<std::mutex> lock(meeting.mutex);
    const auto found = std::ranges::find(meeting.members, rank);
    if (found == meeting.members.end()) return "is in no collective";
    const Slot& slot = meeting.slots[static_cast<size_t>(found - meeting.members.begin())];
    if (slot.arrived == 0) return "has called nothing in this group";
    return "was last in " + describe(slot.fingerprint) + ", call " + std::to_string(slot.arrived);
  }

  std::mutex mutex_;
  std::map<std::pair<std::string, std::vector<int>>, std::shared_ptr<Meeting>> meetings_;
  std::map<std::string, std::shared_ptr<LinkState>> links_;
  std::vector<std::string> moments_;
  std::optional<GroupError> failure_;
};

class LocalGroup : public Group {
 public:
  LocalGroup(std::shared_ptr<World> world, std::shared_ptr<Meeting> meeting, int rank)
      : world_(std::move(world)), meeting_(std::move(meeting)), rank_(rank) {}

  static std::shared_ptr<Group> join(const std::shared_ptr<World>& world,
                                     const std::shared_ptr<Meeting>& meeting, int rank) {
    std::lock_guard<std::mutex> lock(meeting->mutex);
    std::weak_ptr<Group>& end = meeting->ends[static_cast<size_t>(rank)];
    std::shared_ptr<Group> group = end.lock();
    if (group == nullptr) {
      group = std::make_shared<LocalGroup>(world, meeting, rank);
      end = group;
    }
    Slot& slot = meeting->slots[static_cast<size_t>(rank)];
    slot.users++;
    slot.left = false;
    return group;
  }

  int rank() const override { return rank_; }
  int size() const override { return meeting_->size(); }
  const std::string& name() const override { return meeting_->name; }
  const std::vector<int>& members() const override { return meeting_->members; }

  void run(const CollectiveCall& call) override {
    const double begin = now();
    validate(call, rank_, size());
    if (call.kind == CollectiveKind::send) {
      send(call);
    } else if (call.kind == CollectiveKind::receive) {
      receive(call);
    } else {
      meet(call);
    }
    const Cost cost = cost_of(call, rank_, size());
    std::lock_guard<std::mutex> lock(traffic_mutex_);
    traffic_.bytes += static_cast<int64_t>(cost.bytes);
    traffic_.seconds += now() - begin;
  }

  void abort(const std::string& reason) override {
    Place place = this->place(0);
    world_->fail(aborted(place, world_rank(), reason));
  }

  void leave() override {
    {
      std::lock_guard<std::mutex> lock(meeting_->mutex);
      if (--slot(rank_).users > 0) return;
      slot(rank_).left = true;
    }
    meeting_->changed.notify_all();
  }

  std::shared_ptr<Group> subgroup(const std::string& name, const std::vector<int>& ranks,
                                  const Link* link) override {
    std::vector<int> members;
    int own = -1;
    for (int rank : ranks) {
      if (rank < 0 || rank >= size()) throw std::logic_error("internal: no such rank");
      if (rank == rank_) own = static_cast<int>(members.size());
      members.push_back(meeting_->members[static_cast<size_t>(rank)]);
    }
    if (own < 0) throw std::logic_error("internal: a group without this rank");
    return join(world_, world_->meet(name, members, link), own);
  }

  void set_moment(const std::string& moment) override { world_->set_moment(world_rank(), moment); }

  Traffic traffic() const override {
    std::lock_guard<std::mutex> lock(traffic_mutex_);
    return traffic_;
  }

 private:
  int world_rank() const { return meeting_->members[static_cast<size_t>(rank_)]; }
  Slot& slot(int rank) { return meeting_->slots[static_cast<size_t>(rank)]; }
  Place place(int64_t call) {
    return {meeting_->name, meeting_->members, call, world_->moment_of(world_rank())};
  }

  void meet(const CollectiveCall& call) {
    Slot& own = slot(rank_);
    const std::string moment = world_->moment_of(world_rank());
    {
      std::lock_guard<std::mutex> lock(meeting_->mutex);
      if (meeting_->arrival.has_failed()) world_->throw_failure();
      own.call = &call;
      take_fingerprint(call, &own.fingerprint);
      own.moment = moment;
      own.arrival = now();
      own.arrived.fetch_add(1);
    }
    const int64_t number = own.arrived;
    pass(
        meeting_->arrival, [&] { return missing_from(number); }, number);
    compare(number);
    const size_t turn = static_cast<size_t>(number) & 1;
    std::exception_ptr fault;
    try {
      std::vector<const CollectiveCall*> calls;
      for (const Slot& each : meeting_->slots) calls.push_back(each.call);
      move_data(calls, rank_);
    } catch (...) {
      fault = std::current_exception();
    }
    own.through[turn] = occupy_links(call);
    pass(
        meeting_->departure, [] { return std::vector<int>(); }, 0);
    if (fault != nullptr) {
      abort("a fault inside a collective");
      std::rethrow_exception(fault);
    }
    double through = 0;
    for (const Slot& each : meeting_->slots) through = std::max(through, each.through[turn]);
    sleep_until(through);
  }

  // Passes a gate. With a number of a call: until the timeout, and unless `missing` have left or the world
  // failed. Without: for as long as it takes, for the others are on their way.
  template <class Missing>
  void pass(Gate& gate, const Missing& missing, int64_t number) {
    const uint64_t opening = gate.arrive();
    if (opening == Gate::kRefused) world_->throw_failure();
    if (gate.has_opened(opening)) {
      // The last one wakes the others; the mutex is for those that are about to sleep.
      bool wake;
      {
        std::lock_guard<std::mutex> lock(meeting_->mutex);
        wake = meeting_->sleepers > 0;
      }
      if (wake) meeting_->changed.notify_all();
      return;
    }
    if (world_->spins) {
      for (int turn = 0; turn < 1000; turn++) {
        if (gate.has_opened(opening)) return;
        pause();
      }
    }
    const double deadline = now() + world_->timeout;
    const bool limited = number > 0 && world_->timeout > 0;
    std::unique_lock<std::mutex> lock(meeting_->mutex);
    slot(rank_).waiting = number > 0;
    meeting_->sleepers++;
    while (!gate.has_opened(opening)) {
      if (gate.has_failed()) {
        stop_waiting();
        lock.unlock();
        world_->throw_failure();
      }
      if (number > 0) {
        std::vector<int> gone;
        for (int rank : missing()) {
          if (slot(rank).left) gone.push_back(meeting_->members[static_cast<size_t>(rank)]);
        }
        if (!gone.empty()) {
          const Fingerprint fingerprint = slot(rank_).fingerprint;
          lock.unlock();
          world_->fail(lost(place(number), fingerprint, gone, "closed the group"));
          lock.lock();
          continue;
        }
      }
      if (limited && now() >= deadline) {
        std::vector<int> absent;
        for (int rank : missing()) absent.push_back(meeting_->members[static_cast<size_t>(rank)]);
        const Fingerprint fingerprint = slot(rank_).fingerprint;
        lock.unlock();
        // Those who came at the last moment open the gate.
        if (!absent.empty()) fail_for_absence(fingerprint, absent, number);
        lock.lock();
        continue;
      }
      if (limited) {
        meeting_->changed.wait_until(lock, time_point_of(deadline));
      } else {
        meeting_->changed.wait(lock);
      }
    }
    stop_waiting();
  }

  void stop_waiting() {
    slot(rank_).waiting = false;
    slot(rank_).receiving_from = -1;
    meeting_->sleepers--;
  }

  void fail_for_absence(const Fingerprint& fingerprint, const std::vector<int>& absent, int64_t number) {
    world_->fail(
        timeout(place(number), fingerprint, absent, world_->timeout, world_->testimonies(*meeting_, absent)));
  }

  std::vector<int> missing_from(int64_t number) {
    std::vector<int> missing;
    for (int rank = 0; rank < size(); rank++) {
      if (slot(rank).arrived < number) missing.push_back(rank);
    }
    return missing;
  }

  // Every member comes to the same verdict, from the same slots.
  void compare(int64_t number) {
    bool same = true;
    for (const Slot& each : meeting_->slots) same = same && each.fingerprint == slot(0).fingerprint;
    if (same) {
      compare_counts(number);
      return;
    }
    std::vector<std::pair<const Fingerprint*, Testimony>> calls;
    for (int rank = 0; rank < size(); rank++) {
      const Slot& each = slot(rank);
      auto found = std::ranges::find_if(calls, [&](const auto& known) {
        return *known.first == each.fingerprint && known.second.moment == each.moment;
      });
      if (found == calls.end()) {
        calls.push_back({&each.fingerprint, {{}, each.moment, describe(each.fingerprint)}});
        found = calls.end() - 1;
      }
      found->second.ranks.push_back(meeting_->members[static_cast<size_t>(rank)]);
    }
    std::vector<Testimony> testimonies;
    for (const auto& [fingerprint, testimony] : calls) testimonies.push_back(testimony);
    world_->fail(mismatch(place(number), testimonies));
    world_->throw_failure();
  }

  void compare_counts(int64_t number) {
    if (slot(0).call->kind != CollectiveKind::all_to_all_variable) return;
    for (int from = 0; from < size(); from++) {
      for (int to = 0; to < size(); to++) {
        const int64_t sent = slot(from).call->send_counts[static_cast<size_t>(to)];
        const int64_t expected = slot(to).call->receive_counts[static_cast<size_t>(from)];
        if (sent == expected) continue;
        const int sender = meeting_->members[static_cast<size_t>(from)];
        const int receiver = meeting_->members[static_cast<size_t>(to)];
        const std::string call = " in " + describe(slot(0).fingerprint);
        counts_differ_ = {
            {{sender},
             slot(from).moment,
             "sends " + std::to_string(sent) + " elements to rank " + std::to_string(receiver) + call},
            {{receiver},
             slot(to).moment,
             "expects " + std::to_string(expected) + " of rank " + std::to_string(sender)}};
        break;
      }
      if (!counts_differ_.empty()) break;
    }
    // The counts belong to the callers, who may leave only when all have looked.
    if (counts_differ_.empty()) return;
    pass(
        meeting_->departure, [] { return std::vector<int>(); }, 0);
    world_->fail(mismatch(place(number), counts_differ_));
    world_->throw_failure();
  }

  double occupy_links(const CollectiveCall& call) {
    LinkState* slowest = nullptr;
    const Cost cost = cost_of(call, rank_, size());
    for (const auto& link : meeting_->links) {
      if (slowest == nullptr || link->seconds_of(cost) > slowest->seconds_of(cost)) slowest = link.get();
    }
    if (slowest == nullptr) return 0;
    double start = 0;
    for (const Slot& each : meeting_->slots) start = std::max(start, each.arrival);
    return slowest->occupy(world_rank(), start, cost);
  }

  // A failure of the world cuts the sleep short.
  void sleep_until(double time) {
    if (now() >= time) return;
    std::unique_lock<std::mutex> lock(meeting_->mutex);
    while (now() < time) {
      if (meeting_->arrival.has_failed()) world_->throw_failure();
      meeting_->changed.wait_until(lock, time_point_of(time));
    }
  }

  void send(const CollectiveCall& call) {
    Message message;
    take_fingerprint(call, &message.fingerprint);
    message.moment = world_->moment_of(world_rank());
    int64_t bytes = 0;
    for (const Tensor& tensor : call.inputs) bytes += tensor.bytes();
    message.parcel = take_parcel(*meeting_, static_cast<size_t>(bytes));
    char* target = message.parcel.bytes.get();
    for (const Tensor& tensor : call.inputs) {
      if (tensor.bytes() > 0) std::memcpy(target, tensor.data, static_cast<size_t>(tensor.bytes()));
      target += tensor.bytes();
    }
    const Cost cost = cost_of(call, rank_, size());
    for (const auto& link : meeting_->links) {
      message.ready = std::max(message.ready, link->occupy(world_rank(), now(), cost));
    }
    {
      std::lock_guard<std::mutex> lock(meeting_->mutex);
      if (meeting_->arrival.has_failed()) world_->throw_failure();
      meeting_->mail[{rank_, call.peer}].push_back(std::move(message));
    }
    meeting_->changed.notify_all();
  }

  void receive(const CollectiveCall& call) {
    const double deadline = now() + world_->timeout;
    Slot& own = slot(rank_);
    Fingerprint expected;
    take_fingerprint(call, &expected);
    std::unique_lock<std::mutex> lock(meeting_->mutex);
    std::deque<Message>& box = meeting_->mail[{call.peer, rank_}];
    own.fingerprint = expected;
    own.waiting = true;
    own.receiving_from = call.peer;
    meeting_->sleepers++;
    const int sender = meeting_->members[static_cast<size_t>(call.peer)];
    while (box.empty()) {
      std::optional<GroupError> failure;
      if (meeting_->arrival.has_failed()) {
        stop_waiting();
        lock.unlock();
        world_->throw_failure();
      }
      if (slot(call.peer).left) failure = lost(Place(), expected, {sender}, "closed the group");
      if (world_->timeout > 0 && now() >= deadline) {
        lock.unlock();
        fail_for_absence(expected, {sender}, 0);
        lock.lock();
        continue;
      }
      if (failure.has_value()) {
        lock.unlock();
        world_->fail(lost(place(0), expected, {sender}, "closed the group"));
        lock.lock();
        continue;
      }
      if (world_->timeout > 0) {
        meeting_->changed.wait_until(lock, time_point_of(deadline));
      } else {
        meeting_->changed.wait(lock);
      }
    }
    stop_waiting();
    Message message = std::move(box.front());
    box.pop_front();
    lock.unlock();
    // The kinds differ by nature; dtypes and shapes may not.
    if (!std::equal(message.fingerprint.words.begin() + 1, message.fingerprint.words.end(),
                    expected.words.begin() + 1, expected.words.end())) {
      world_->fail(
          mismatch(place(0), {{{sender}, message.moment, describe(message.fingerprint)},
                              {{world_rank()}, world_->moment_of(world_rank()), describe(expected)}}));
      world_->throw_failure();
    }
    sleep_until(message.ready);
    const char* source = message.parcel.bytes.get();
    for (const Tensor& tensor : call.outputs) {
      if (tensor.bytes() > 0) std::memcpy(tensor.data, source, static_cast<size_t>(tensor.bytes()));
      source += tensor.bytes();
    }
    keep_parcel(*meeting_, std::move(message.parcel));
  }

  const std::shared_ptr<World> world_;
  const std::shared_ptr<Meeting> meeting_;
  const int rank_;
  std::vector<Testimony> counts_differ_;
  mutable std::mutex traffic_mutex_;
  Traffic traffic_;
};

}  // namespace

std::vector<std::shared_ptr<Group>> create_local_world(int size, const LocalOptions& options) {
  const auto world = std::make_shared<World>(size, options);
  std::vector<int> members;
  for (int rank = 0; rank < size; rank++) members.push_back(rank);
  const std::shared_ptr<Meeting> meeting = world->meet("world", members, nullptr);
  std::vector<std::shared_ptr<Group>> ends;
  for (int rank = 0; rank < size; rank++) ends.push_back(LocalGroup::join(world, meeting, rank));
  return ends;
}

}  // namespace slipstream::comm
