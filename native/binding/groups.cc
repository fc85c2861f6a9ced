#include "binding/groups.h"

#include <utility>
#include <vector>

#include "binding/completions.h"
#include "binding/values.h"
#include "comm/local_group.h"
#include "comm/message_group.h"

namespace slipstream::binding {

namespace {

// What an opaque group of JavaScript holds. It lives on JavaScript's thread; calls under way keep it alive.
struct Handle {
  std::shared_ptr<comm::Group> group;
  int pending = 0;
  bool leaving = false, left = false;
};

void leave_if_idle(Handle& handle) {
  if (!handle.leaving || handle.left || handle.pending > 0) return;
  handle.left = true;
  handle.group->leave();
}

napi_value make_received(napi_env env, const std::vector<std::string>& received) {
  napi_value array;
  check(napi_create_array_with_length(env, received.size(), &array), "array");
  for (uint32_t i = 0; i < received.size(); i++) {
    void* memory = nullptr;
    napi_value buffer, view;
    const size_t bytes = received[i].size();
    check(napi_create_arraybuffer(env, bytes, &memory, &buffer), "array buffer");
    if (bytes > 0) received[i].copy(static_cast<char*>(memory), bytes);
    check(napi_create_typedarray(env, napi_uint8_array, bytes, buffer, 0, &view), "typed array");
    check(napi_set_element(env, array, i, view), "element");
  }
  return array;
}

napi_value undefined(napi_env env) {
  napi_value value;
  check(napi_get_undefined(env, &value), "undefined");
  return value;
}

// A collective under way.
struct Pending : Completion {
  Handle* handle = nullptr;
  napi_deferred deferred = nullptr;
  napi_ref keep_alive = nullptr;  // the group and the memory of the operands
  std::vector<Tensor> inputs, outputs;
  std::vector<int64_t> send_counts, receive_counts;
  std::vector<std::string> received;
  comm::CollectiveCall call;
  std::exception_ptr failure;

  void settle(napi_env env) override {
    handle->pending--;
    leave_if_idle(*handle);
    if (failure != nullptr) {
      napi_reject_deferred(env, deferred, make_error(env, failure));
    } else {
      const bool exchanged = call.received != nullptr;
      napi_resolve_deferred(env, deferred, exchanged ? make_received(env, received) : undefined(env));
    }
    napi_delete_reference(env, keep_alive);
  }
  void stop() override { handle->group->abort("its process is ending"); }
};

Handle& read_handle(napi_env env, napi_value value) {
  void* handle = nullptr;
  check(napi_get_value_external(env, value, &handle), "expected a process group");
  return *static_cast<Handle*>(handle);
}

void finalize(napi_env, void* data, void*) {
  const std::unique_ptr<Handle> handle(static_cast<Handle*>(data));
  handle->leaving = true;
  leave_if_idle(*handle);
}

std::vector<Tensor> read_tensors(napi_env env, napi_value array) {
  uint32_t length = 0;
  check(napi_get_array_length(env, array, &length), "expected an array of tensors");
  std::vector<Tensor> tensors(length);
  for (uint32_t i = 0; i < length; i++) {
    napi_value element;
    check(napi_get_element(env, array, i, &element), "array element");
    tensors[i] = read_tensor(env, element);
  }
  return tensors;
}

std::vector<int64_t> read_integers(napi_env env, napi_value array) {
  std::vector<int64_t> integers;
  for (double number : read_numbers(env, array)) integers.push_back(static_cast<int64_t>(number));
  return integers;
}

}  // namespace

napi_value make_error(napi_env env, const std::exception_ptr& error) {
  std::string code = "native", message;
  try {
    std::rethrow_exception(error);
  } catch (const comm::GroupError& failure) {
    code = failure.code;
    message = failure.what();
  } catch (const std::exception& failure) {
    message = failure.what();
  }
  napi_value result;
  check(napi_create_error(env, make_string(env, code), make_string(env, message), &result), "error");
  return result;
}

napi_value make_group(napi_env env, std::shared_ptr<comm::Group> group) {
  auto handle = std::make_unique<Handle>();
  handle->group = std::move(group);
  napi_value external;
  check(napi_create_external(env, handle.get(), finalize, nullptr, &external), "external");
  handle.release();
  return external;
}

comm::Group* read_group(napi_env env, napi_value value) { return read_handle(env, value).group.get(); }

napi_value create_local_world(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const std::vector<napi_value> values = arguments(env, info, 5);
    comm::LocalOptions options;
    options.timeout_seconds = read_number(env, values[1]);
    const std::vector<std::string> axes = read_strings(env, values[2]);
    const std::vector<double> bandwidths = read_numbers(env, values[3]);
    const std::vector<double> latencies = read_numbers(env, values[4]);
    for (size_t i = 0; i < axes.size(); i++) options.links[axes[i]] = {bandwidths[i], latencies[i]};
    const auto ends = comm::create_local_world(static_cast<int>(read_integer(env, values[0])), options);
    napi_value array;
    check(napi_create_array_with_length(env, ends.size(), &array), "array");
    for (uint32_t i = 0; i < ends.size(); i++) {
      check(napi_set_element(env, array, i, make_group(env, ends[i])), "element");
    }
    return array;
  });
}

napi_value create_message_world(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const std::vector<napi_value> values = arguments(env, info, 2);
    void* data = nullptr;
    check(napi_get_value_external(env, values[0], &data), "expected a transport");
    const auto& transport = *static_cast<const SlipstreamTransport*>(data);
    if (transport.version != comm::kTransportVersion) {
      throw std::runtime_error("the MPI addon is of another version: run `npx slipstream build`");
    }
    // Never destroyed: its last messages go out while the process ends.
    static auto& world = *new std::shared_ptr<comm::MessageWorld>();
    if (world == nullptr) {
      world = std::make_shared<comm::MessageWorld>(transport, read_number(env, values[1]));
      const auto finish = [](void*) { world->finish(); };
      check(napi_add_env_cleanup_hook(env, finish, nullptr), "cleanup hook");
    }
    return make_group(env, comm::create_message_world(world));
  });
}

napi_value group_information(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const comm::Group& group = *read_group(env, arguments(env, info, 1)[0]);
    napi_value object, members;
    check(napi_create_object(env, &object), "object");
    set_property(env, object, "name", make_string(env, group.name()));
    set_property(env, object, "rank", make_number(env, group.rank()));
    set_property(env, object, "size", make_number(env, group.size()));
    check(napi_create_array(env, &members), "array");
    uint32_t index = 0;
    for (int member : group.members()) {
      check(napi_set_element(env, members, index++, make_number(env, member)), "element");
    }
    set_property(env, object, "members", members);
    return object;
  });
}

napi_value subgroup(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const std::vector<napi_value> values = arguments(env, info, 5);
    std::vector<int> ranks;
    for (int64_t rank : read_integers(env, values[2])) ranks.push_back(static_cast<int>(rank));
    const comm::Link link = {read_number(env, values[3]), read_number(env, values[4])};
    comm::Group& group = *read_group(env, values[0]);
    return make_group(
        env, group.subgroup(read_string(env, values[1]), ranks, link.bandwidth > 0 ? &link : nullptr));
  });
}

napi_value run_collective(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const std::vector<napi_value> values = arguments(env, info, 10);
    auto pending = std::make_unique<Pending>();
    Handle& handle = read_handle(env, values[0]);
    pending->handle = &handle;
    comm::CollectiveCall& call = pending->call;
    call.kind = static_cast<comm::CollectiveKind>(read_integer(env, values[1]));
    pending->inputs = read_tensors(env, values[2]);
    pending->outputs = read_tensors(env, values[3]);
    call.inputs = pending->inputs;
    call.outputs = pending->outputs;
    call.dimension = static_cast<int>(read_integer(env, values[4]));
    call.other_dimension = static_cast<int>(read_integer(env, values[5]));
    call.peer = static_cast<int>(read_integer(env, values[6]));
    pending->send_counts = read_integers(env, values[7]);
    pending->receive_counts = read_integers(env, values[8]);
    call.send_counts = pending->send_counts;
    call.receive_counts = pending->receive_counts;
    call.label = read_string(env, values[9]);
    if (call.kind == comm::CollectiveKind::exchange) call.received = &pending->received;
    napi_value keep, promise;
    check(napi_create_promise(env, &pending->deferred, &promise), "promise");
    if (call.kind == comm::CollectiveKind::send) {
      try {
        handle.group->run(call);
        check(napi_resolve_deferred(env, pending->deferred, undefined(env)), "resolve");
      } catch (...) {
        check(napi_reject_deferred(env, pending->deferred, make_error(env, std::current_exception())),
              "reject");
      }
      return promise;
    }
    check(napi_create_array_with_length(env, 3, &keep), "array");
    check(napi_set_element(env, keep, 0, values[0]), "element");
    check(napi_set_element(env, keep, 1, values[2]), "element");
    check(napi_set_element(env, keep, 2, values[3]), "element");
    check(napi_create_reference(env, keep, 1, &pending->keep_alive), "reference");
    handle.pending++;
    Pending* const owned = pending.release();
    expect_completion(env, owned);
    handle.group->lane().submit([owned] { owned->handle->group->run(owned->call); },
                                [env, owned](std::exception_ptr failure) {
                                  owned->failure = std::move(failure);
                                  post_completion(env, owned);
                                });
    return promise;
  });
}

napi_value abort_group(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const std::vector<napi_value> values = arguments(env, info, 2);
    read_group(env, values[0])->abort(read_string(env, values[1]));
    return undefined(env);
  });
}

napi_value leave_group(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    Handle& handle = read_handle(env, arguments(env, info, 1)[0]);
    handle.leaving = true;
    leave_if_idle(handle);
    return undefined(env);
  });
}

napi_value set_group_moment(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const std::vector<napi_value> values = arguments(env, info, 2);
    read_group(env, values[0])->set_moment(read_string(env, values[1]));
    return undefined(env);
  });
}

napi_value group_traffic(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const comm::Traffic traffic = read_group(env, arguments(env, info, 1)[0])->traffic();
    napi_value object;
    check(napi_create_object(env, &object), "object");
    set_property(env, object, "bytes", make_number(env, static_cast<double>(traffic.bytes)));
    set_property(env, object, "seconds", make_number(env, traffic.seconds));
    return object;
  });
}

}  // namespace slipstream::binding
