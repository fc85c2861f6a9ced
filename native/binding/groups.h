// Process groups as JavaScript sees them.
#pragma once

#include <node_api.h>

#include <exception>
#include <memory>

#include "comm/group.h"

namespace slipstream::binding {

// createLocalWorld(size, timeoutSeconds, axes, bandwidths, latencies): an opaque group a rank.
napi_value create_local_world(napi_env env, napi_callback_info info);

// createMessageWorld(transport, timeoutSeconds): an opaque group, this process's end of a world over a
// transport (native/comm/transport.h). Once a process. When the process ends it waits for the others.
napi_value create_message_world(napi_env env, napi_callback_info info);

// groupInformation(group): {name, rank, size, members}.
napi_value group_information(napi_env env, napi_callback_info info);

// subgroup(group, name, ranks, bandwidth, latency): an opaque group; a bandwidth of 0 means no emulated link.
napi_value subgroup(napi_env env, napi_callback_info info);

// runCollective(group, kind, inputs, outputs, dimension, otherDimension, peer, sendCounts, receiveCounts,
// label): a promise of nothing, or (exchange) of every rank's bytes. Calls of a group run one after another
// on its lane; send copies its tensors before this returns.
napi_value run_collective(napi_env env, napi_callback_info info);

// abortGroup(group, reason)
napi_value abort_group(napi_env env, napi_callback_info info);

// leaveGroup(group): once the calls that are under way have ended.
napi_value leave_group(napi_env env, napi_callback_info info);

// setGroupMoment(group, moment)
napi_value set_group_moment(napi_env env, napi_callback_info info);

// groupTraffic(group): {bytes, seconds}.
napi_value group_traffic(napi_env env, napi_callback_info info);

// An opaque group for JavaScript: what makes groups of another kind hands them over with this.
napi_value make_group(napi_env env, std::shared_ptr<comm::Group> group);

// The group behind what `native` of a ProcessGroup holds. It lives as long as the value: keep a reference.
comm::Group* read_group(napi_env env, napi_value value);

// A JavaScript Error of a C++ one. A failure of a group has its code, from which
// src/runtime/native/group.ts makes a CommunicationError; others have the code "native".
napi_value make_error(napi_env env, const std::exception_ptr& error);

}  // namespace slipstream::binding
