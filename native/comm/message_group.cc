#include "comm/message_group.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>

#include "comm/local_data.h"
#include "comm/sum.h"

namespace slipstream::comm {

namespace {

// Channels of a group: messages of one channel keep their order.
namespace channel {
constexpr int headers = 0, data = 1, mail = 2, accounts = 3;
}

// An all_reduce of more than this many units of elements goes in several passes, to bound its work space.
constexpr int64_t kUnit = 128;
constexpr int64_t kUnitsAPass = 1 << 16;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// FNV-1a, 64 bits.
uint64_t hash_bytes(const void* bytes, size_t length, uint64_t hash = 0xcbf29ce484222325) {
  for (size_t index = 0; index < length; index++) {
    hash = (hash ^ static_cast<const unsigned char*>(bytes)[index]) * 0x100000001b3;
  }
  return hash;
}

uint64_t hash_of(const Fingerprint& fingerprint) {
  const auto& [words, label] = fingerprint;
  return hash_bytes(label.data(), label.size(), hash_bytes(words.data(), words.size() * sizeof words[0]));
}

}  // namespace

// What every member sends to every other before a collective, and before a message.
struct MessageGroup::Header {
  uint64_t group = 0, call = 0;
  int64_t number = 0;
  int64_t length = 0;  // bytes that follow, where the receiver cannot know
};

// Describes a call to those who called something else.
struct Account {
  char moment[128] = {};
  char text[896] = {};
};

MessageGroup::MessageGroup(std::shared_ptr<MessageWorld> world, std::string name, std::vector<int> members)
    : world_(std::move(world)), name_(std::move(name)), members_(std::move(members)) {
  rank_ = static_cast<int>(std::ranges::find(members_, world_->rank()) - members_.begin());
  identity_ = hash_bytes(members_.data(), members_.size() * sizeof members_[0],
                         hash_bytes(name_.data(), name_.size()));
  // Groups get different tags without talking; where two of the same ranks get the same, headers tell.
  context_ = 1 + static_cast<int>(identity_ % static_cast<uint64_t>(world_->contexts() - 1));
}

Place MessageGroup::place() { return {name_, members_, number_, world_->moment()}; }

MessageWorld::Explain MessageGroup::explain(const char* stage) {
  return [this, stage](const std::vector<int>& missing, bool left) {
    if (left) return lost(place(), fingerprint_, missing, "closed the group");
    return timeout(place(), fingerprint_, missing, world_->timeout(), {{missing, "", stage}});
  };
}

MessageGroup::Header MessageGroup::make_header(const CollectiveCall& call, int peer) {
  Header header{identity_, hash_of(fingerprint_), number_, 0};
  if (call.kind == CollectiveKind::all_to_all_variable) {
    header.length = call.send_counts[static_cast<size_t>(peer)];
  }
  if (call.kind == CollectiveKind::exchange) header.length = call.inputs[0].bytes();
  return header;
}

// Sends this rank's fingerprint to all and waits for theirs.
std::vector<MessageGroup::Header> MessageGroup::meet(const CollectiveCall& call) {
  const int tag = context_ * MessageWorld::kChannels + channel::headers;
  std::vector<Header> own(members_.size()), theirs(members_.size());
  std::vector<Message> messages;
  for (int peer = 0; peer < size(); peer++) {
    const auto index = static_cast<size_t>(peer);
    own[index] = make_header(call, peer);
    if (peer == rank_) {
      theirs[index] = own[index];
      continue;
    }
    messages.push_back(world_->start_receive(members_[index], tag, &theirs[index], sizeof(Header)));
    messages.push_back(world_->start_send(members_[index], tag, &own[index], sizeof(Header)));
  }
  world_->wait(&messages, context_, explain("has not called it"));
  return theirs;
}

// Every member comes to the same verdict, from the same headers; then they tell one another what they called.
void MessageGroup::compare(const CollectiveCall& call, const std::vector<Header>& headers) {
  const auto same = [&](const Header& header) {
    return header.group == headers[0].group && header.call == headers[0].call &&
           header.number == headers[0].number;
  };
  if (!std::ranges::all_of(headers, same)) {
    const int tag = context_ * MessageWorld::kChannels + channel::accounts;
    std::vector<Account> theirs(members_.size());
    Account own;
    world_->moment().copy(own.moment, sizeof own.moment - 1);
    describe(fingerprint_).copy(own.text, sizeof own.text - 1);
    std::vector<Message> messages;
    for (size_t peer = 0; peer < members_.size(); peer++) {
      theirs[peer] = own;
      if (static_cast<int>(peer) == rank_) continue;
      messages.push_back(world_->start_receive(members_[peer], tag, &theirs[peer], sizeof(Account)));
      messages.push_back(world_->start_send(members_[peer], tag, &own, sizeof(Account)));
    }
    world_->wait(&messages, context_, explain("called something else"));
    std::vector<std::pair<uint64_t, Testimony>> calls;
    for (size_t peer = 0; peer < members_.size(); peer++) {
      const auto known = std::ranges::find_if(calls, [&](const auto& each) {
        return each.first == headers[peer].call && each.second.moment == theirs[peer].moment;
      });
      if (known != calls.end()) {
        known->second.ranks.push_back(members_[peer]);
      } else {
        calls.push_back({headers[peer].call, {{members_[peer]}, theirs[peer].moment, theirs[peer].text}});
      }
    }
    std::vector<Testimony> testimonies;
    for (const auto& [hash, testimony] : calls) testimonies.push_back(testimony);
    world_->fail(mismatch(place(), testimonies));
    world_->check();
  }
  if (call.kind != CollectiveKind::all_to_all_variable) return;
  for (size_t peer = 0; peer < members_.size(); peer++) {
    const int64_t sent = headers[peer].length, expected = call.receive_counts[peer];
    if (sent == expected) continue;
    world_->fail(mismatch(
        place(),
        {{{members_[peer]},
          "",
          "sends " + std::to_string(sent) + " elements to rank " +
              std::to_string(members_[static_cast<size_t>(rank_)]) + " in " + describe(fingerprint_)},
         {{members_[static_cast<size_t>(rank_)]},
          world_->moment(),
          "expects " + std::to_string(expected) + " of rank " + std::to_string(members_[peer])}}));
    world_->check();
  }
}

// A parcel to every rank and one from every rank.
void MessageGroup::transfer(Parcels* outgoing, Parcels* incoming) {
  const int tag = context_ * MessageWorld::kChannels + channel::data;
  std::vector<Message> messages;
  for (int step = 1; step < size(); step++) {
    const auto from = static_cast<size_t>((rank_ + size() - step) % size());
    Parcel& parcel = (*incoming)[from];
    if (parcel.bytes() == 0) continue;
    messages.push_back(world_->start_receive(members_[from], tag, parcel.open(), parcel.bytes()));
  }
  for (int step = 1; step < size(); step++) {
    const auto to = static_cast<size_t>((rank_ + step) % size());
    Parcel& parcel = (*outgoing)[to];
    if (parcel.bytes() == 0) continue;
    messages.push_back(world_->start_send(members_[to], tag, parcel.pack(), parcel.bytes()));
  }
  const auto own = static_cast<size_t>(rank_);
  if ((*outgoing)[own].bytes() > 0) (*outgoing)[own].copy_to(&(*incoming)[own]);
  world_->wait(&messages, context_, explain("came, but stopped in the middle of it"));
  for (size_t peer = 0; peer < incoming->size(); peer++) {
    if (peer != own && (*incoming)[peer].bytes() > 0) (*incoming)[peer].unpack();
  }
}

// Each rank gets its share of all tensors laid end to end from everyone, sums it, and gives it to everyone.
void MessageGroup::all_reduce(const CollectiveCall& call) {
  struct Segment {
    size_t tensor;
    int64_t from, to;
  };
  const auto units_of = [](const Tensor& tensor) { return (tensor.elements() + kUnit - 1) / kUnit; };
  const auto segments_of = [&](int64_t first, int64_t last) {
    std::vector<Segment> segments;
    int64_t before = 0;
    for (size_t index = 0; index < call.inputs.size(); index++) {
      const int64_t elements = call.inputs[index].elements();
      const int64_t from = std::clamp((first - before) * kUnit, int64_t{0}, elements);
      const int64_t to = std::clamp((last - before) * kUnit, int64_t{0}, elements);
      before += units_of(call.inputs[index]);
      if (from < to) segments.push_back({index, from, to});
    }
    return segments;
  };
  const auto add = [](Parcel* parcel, const Tensor& tensor, const Segment& segment) {
    const int64_t width = bytes_per_element(tensor.dtype);
    parcel->add(tensor.as<char>() + segment.from * width, (segment.to - segment.from) * width);
  };
  int64_t units = 0;
  for (const Tensor& tensor : call.inputs) units += units_of(tensor);
  for (int64_t begin = 0; begin < units; begin += kUnitsAPass) {
    const int64_t count = std::min(kUnitsAPass, units - begin);
    std::vector<std::vector<Segment>> shares;
    for (int64_t peer = 0; peer < size(); peer++) {
      shares.push_back(segments_of(begin + count * peer / size(), begin + count * (peer + 1) / size()));
    }
    const auto own = static_cast<size_t>(rank_);
    Parcels scattered(members_.size()), terms(members_.size());
    std::vector<std::unique_ptr<char[]>> memory(members_.size());
    for (size_t peer = 0; peer < members_.size(); peer++) {
      if (peer == own) continue;
      for (const Segment& each : shares[peer]) add(&scattered[peer], call.inputs[each.tensor], each);
      int64_t bytes = 0;
      for (const Segment& each : shares[own]) {
        bytes += (each.to - each.from) * bytes_per_element(call.inputs[each.tensor].dtype);
      }
      memory[peer] = std::make_unique_for_overwrite<char[]>(static_cast<size_t>(bytes));
      terms[peer].add(memory[peer].get(), bytes);
    }
    transfer(&scattered, &terms);
    int64_t at = 0;
    for (const Segment& each : shares[own]) {
      const Tensor& input = call.inputs[each.tensor];
      const int64_t width = bytes_per_element(input.dtype);
      std::vector<const void*> addresses;
      for (size_t peer = 0; peer < members_.size(); peer++) {
        addresses.push_back(peer == own ? input.as<char>() + each.from * width : memory[peer].get() + at);
      }
      void* const target = call.outputs[each.tensor].as<char>() + each.from * width;
      sum_function(input.dtype)(addresses.data(), size(), &target, 1, each.to - each.from);
      at += (each.to - each.from) * width;
    }
    Parcels sums(members_.size()), gathered(members_.size());
    for (size_t peer = 0; peer < members_.size(); peer++) {
      if (peer == own) continue;
      for (const Segment& each : shares[own]) add(&sums[peer], call.outputs[each.tensor], each);
      for (const Segment& each : shares[peer]) add(&gathered[peer], call.outputs[each.tensor], each);
    }
    transfer(&sums, &gathered);
  }
}

void MessageGroup::reduce_scatter(const CollectiveCall& call) {
  const auto own = static_cast<size_t>(rank_);
  for (size_t index = 0; index < call.inputs.size(); index++) {
    const Tensor& input = call.inputs[index];
    const Tensor& output = call.outputs[index];
    Tensor part = input;
    part.sizes[call.dimension] /= size();
    const int64_t bytes = part.bytes();
    if (bytes == 0) continue;
    Parcels scattered(members_.size()), terms(members_.size());
    std::vector<std::unique_ptr<char[]>> memory(members_.size());
    std::vector<const void*> addresses;
    for (size_t peer = 0; peer < members_.size(); peer++) {
      scattered[peer].add(part_of(input, call.dimension, static_cast<int64_t>(peer), size()), part.sizes,
                          part.rank, bytes_per_element(part.dtype));
      memory[peer] = std::make_unique_for_overwrite<char[]>(static_cast<size_t>(bytes));
      terms[peer].add(memory[peer].get(), bytes);
      addresses.push_back(memory[peer].get());
    }
    transfer(&scattered, &terms);
    if (call.dimension == 0) addresses[own] = scattered[own].pack();
    void* const target = output.data;
    sum_function(input.dtype)(addresses.data(), size(), &target, 1, part.elements());
  }
}

// The collectives that only move data.
void MessageGroup::rearrange(const CollectiveCall& call) {
  Parcels outgoing(members_.size()), incoming(members_.size());
  const auto count = static_cast<size_t>(size());
  const auto own = static_cast<size_t>(rank_);
  for (size_t index = 0; index < call.inputs.size(); index++) {
    const Tensor& input = call.inputs[index];
    const Tensor& output = call.outputs[index];
    const int64_t width = bytes_per_element(input.dtype);
    switch (call.kind) {
      case CollectiveKind::all_gather: {
        const Tensor whole = gathered(call, index, size());
        for (size_t peer = 0; peer < count; peer++) {
          outgoing[peer].add(part_of(input, 0, 0, 1), input.sizes, input.rank, width);
          incoming[peer].add(part_of(whole, call.dimension, static_cast<int64_t>(peer), size()), input.sizes,
                             input.rank, width);
        }
        break;
      }
      case CollectiveKind::all_to_all: {
        const Tensor whole = gathered(call, index, size());
        Tensor part = input;
        part.sizes[call.dimension] /= size();
        for (size_t peer = 0; peer < count; peer++) {
          const auto place = static_cast<int64_t>(peer);
          outgoing[peer].add(part_of(input, call.dimension, place, size()), part.sizes, part.rank, width);
          incoming[peer].add(part_of(whole, call.other_dimension, place, size()), part.sizes, part.rank,
                             width);
        }
        break;
      }
      case CollectiveKind::permute: {
        const int step = ((call.peer % size()) + size()) % size();
        outgoing[static_cast<size_t>((rank_ + step) % size())].add(input.data, input.bytes());
        incoming[static_cast<size_t>((rank_ + size() - step) % size())].add(output.data, output.bytes());
        break;
      }
      case CollectiveKind::broadcast:
        for (size_t peer = 0; rank_ == call.peer && peer < count; peer++) {
          outgoing[peer].add(input.data, input.bytes());
        }
        incoming[static_cast<size_t>(call.peer)].add(output.data, output.bytes());
        break;
      default: {
        int64_t from = 0, to = 0;
        for (size_t peer = 0; peer < count; peer++) {
          outgoing[peer].add(input.as<char>() + from * width, call.send_counts[peer] * width);
          incoming[peer].add(output.as<char>() + to * width, call.receive_counts[peer] * width);
          from += call.send_counts[peer];
          to += call.receive_counts[peer];
        }
      }
    }
  }
  // In place: nothing moves within a rank.
  if (call.kind == CollectiveKind::broadcast && call.peer == rank_) {
    outgoing[own].copy_to(&incoming[own]);
    outgoing[own] = Parcel();
  }
  transfer(&outgoing, &incoming);
}

void MessageGroup::exchange(const CollectiveCall& call, const std::vector<Header>& headers) {
  Parcels outgoing(members_.size()), incoming(members_.size());
  call.received->assign(members_.size(), std::string());
  for (size_t peer = 0; peer < members_.size(); peer++) {
    std::string& bytes = (*call.received)[peer];
    bytes.resize(static_cast<size_t>(headers[peer].length));
    outgoing[peer].add(call.inputs[0].data, call.inputs[0].bytes());
    incoming[peer].add(bytes.data(), headers[peer].length);
  }
  transfer(&outgoing, &incoming);
}

void MessageGroup::send(const CollectiveCall& call) {
  Fingerprint fingerprint;
  take_fingerprint(call, &fingerprint);
  fingerprint.words[0] = 0;
  fingerprint.label.clear();
  int64_t bytes = 0;
  for (const Tensor& tensor : call.inputs) bytes += tensor.bytes();
  auto memory = std::make_unique_for_overwrite<char[]>(static_cast<size_t>(std::max(bytes, int64_t{1})));
  char* target = memory.get();
  for (const Tensor& tensor : call.inputs) {
    if (tensor.bytes() > 0) std::memcpy(target, tensor.data, static_cast<size_t>(tensor.bytes()));
    target += tensor.bytes();
  }
  const Header header{identity_, hash_of(fingerprint), 0, bytes};
  auto head = std::make_unique_for_overwrite<char[]>(sizeof header);
  std::memcpy(head.get(), &header, sizeof header);
  const int tag = context_ * MessageWorld::kChannels + channel::mail;
  const int peer = members_[static_cast<size_t>(call.peer)];
  // Two threads may send: the two messages of one stay together.
  const std::lock_guard<std::mutex> lock(traffic_mutex_);
  world_->send_kept(peer, tag, std::move(head), sizeof header);
  world_->send_kept(peer, tag, std::move(memory), bytes);
}

void MessageGroup::receive(const CollectiveCall& call) {
  number_ = 0;
  take_fingerprint(call, &fingerprint_);
  Fingerprint expected = fingerprint_;
  expected.words[0] = 0;
  expected.label.clear();
  const int tag = context_ * MessageWorld::kChannels + channel::mail;
  const int peer = members_[static_cast<size_t>(call.peer)];
  Header header;
  std::vector<Message> head = {world_->start_receive(peer, tag, &header, sizeof header)};
  world_->wait(&head, context_, explain("has not sent it"));
  Parcel parcel;
  for (const Tensor& tensor : call.outputs) parcel.add(tensor.data, tensor.bytes());
  if (header.group != identity_ || header.call != hash_of(expected) || header.length != parcel.bytes()) {
    world_->fail(mismatch(
        place(),
        {{{peer}, "", "sent tensors of other shapes or dtypes, " + std::to_string(header.length) + " bytes"},
         {{world_->rank()},
          world_->moment(),
          describe(fingerprint_) + ", " + std::to_string(parcel.bytes()) + " bytes"}}));
    world_->check();
  }
  if (parcel.bytes() == 0) return;
  std::vector<Message> body = {world_->start_receive(peer, tag, parcel.open(), parcel.bytes())};
  world_->wait(&body, context_, explain("stopped in the middle of sending it"));
  parcel.unpack();
}

void MessageGroup::run(const CollectiveCall& call) {
  const double begin = now();
  validate(call, rank_, size());
  world_->check();
  if (call.kind == CollectiveKind::send) {
    send(call);
  } else if (call.kind == CollectiveKind::receive) {
    receive(call);
  } else {
    number_ = ++calls_;
    take_fingerprint(call, &fingerprint_);
    const std::vector<Header> headers = meet(call);
    compare(call, headers);
    switch (call.kind) {
      case CollectiveKind::barrier:
        break;
      case CollectiveKind::all_reduce:
        all_reduce(call);
        break;
      case CollectiveKind::reduce_scatter:
        reduce_scatter(call);
        break;
      case CollectiveKind::exchange:
        exchange(call, headers);
        break;
      default:
        rearrange(call);
    }
  }
  const Cost cost = cost_of(call, rank_, size());
  std::lock_guard<std::mutex> lock(traffic_mutex_);
  traffic_.bytes += static_cast<int64_t>(cost.bytes);
  traffic_.seconds += now() - begin;
}

void MessageGroup::abort(const std::string& reason) {
  world_->fail(aborted({name_, members_, 0, world_->moment()}, world_->rank(), reason));
}

void MessageGroup::leave() {
  if (--users_ == 0) world_->leave(context_, members_);
}

std::shared_ptr<Group> MessageGroup::subgroup(const std::string& name, const std::vector<int>& ranks,
                                              const Link* link) {
  std::vector<int> members;
  for (int rank : ranks) {
    if (rank < 0 || rank >= size()) throw std::logic_error("internal: no such rank");
    members.push_back(members_[static_cast<size_t>(rank)]);
  }
  return world_->join(name, members, link);
}

Traffic MessageGroup::traffic() const {
  std::lock_guard<std::mutex> lock(traffic_mutex_);
  return traffic_;
}

std::shared_ptr<Group> create_message_world(const std::shared_ptr<MessageWorld>& world) {
  std::vector<int> members;
  for (int rank = 0; rank < world->size(); rank++) members.push_back(rank);
  return world->join("world", members, nullptr);
}

}  // namespace slipstream::comm
