#include "executor/collectives.h"

#include "executor/clock.h"

namespace slipstream {

void Collectives::start(const PlannedCollective& planned, std::span<const Tensor> inputs,
                        std::span<const Tensor> outputs, bool at_once) {
  Started& started = started_[planned.ticket];
  comm::Group& group = *groups_[planned.group];
  started.inputs.assign(inputs.begin(), inputs.end());
  started.outputs.assign(outputs.begin(), outputs.end());
  comm::CollectiveCall& call = started.call;
  call.kind = planned.kind;
  call.inputs = started.inputs;
  call.outputs = started.outputs;
  call.dimension = planned.dimension;
  call.other_dimension = planned.other_dimension;
  call.peer = planned.peer;
  call.label = planned.label;
  const auto work = [&started, &group] {
    started.span.begin = steady_seconds();
    group.run(started.call);
    started.span.end = steady_seconds();
  };
  if (at_once) {
    group.lane().run(work);
    return;
  }
  started.ticket = group.lane().submit(work);
  started.group = &group;
}

std::span<const Tensor> Collectives::wait(int ticket) {
  Started& started = started_[ticket];
  comm::Group* const group = started.group;
  started.group = nullptr;
  if (group != nullptr) group->lane().wait(started.ticket);
  return started.outputs;
}

void Collectives::give_up(const std::string& reason) {
  abort(reason);
  for (size_t ticket = 0; ticket < started_.size(); ticket++) {
    if (started_[ticket].group == nullptr) continue;
    try {
      wait(static_cast<int>(ticket));
    } catch (const std::exception&) {
      // The reason is told by whoever gives up.
    }
  }
}

void Collectives::abort(const std::string& reason) {
  for (comm::Group* group : groups_) group->abort(reason);
}

}  // namespace slipstream
