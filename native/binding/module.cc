// The addon's entry: what src/runtime/native/addon.ts declares in TypeScript.
#include <node_api.h>

#include "binding/groups.h"
#include "binding/pools.h"
#include "binding/populate.h"
#include "binding/runs.h"
#include "binding/stores.h"
#include "binding/values.h"
#include "core/isa.h"
#include "core/kernel.h"

namespace slipstream::binding {

namespace {

Isa read_isa(napi_env env, napi_value value) {
  const std::string name = read_string(env, value);
  Isa isa;
  if (!parse_isa(name, &isa)) throw std::runtime_error("unknown instruction set \"" + name + "\"");
  if (!can_run(isa)) throw std::runtime_error("this processor has no " + name);
  return isa;
}

napi_value detected_isa(napi_env env, napi_callback_info) {
  return guarded(env, [&] { return make_string(env, isa_name(detect_isa())); });
}

napi_value can_run_isa(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    Isa isa;
    const bool known = parse_isa(read_string(env, arguments(env, info, 1)[0]), &isa);
    napi_value result;
    check(napi_get_boolean(env, known && can_run(isa), &result), "boolean");
    return result;
  });
}

napi_value list_kernels(napi_env env, napi_callback_info) {
  return guarded(env, [&] {
    napi_value list;
    check(napi_create_array(env, &list), "array");
    uint32_t index = 0;
    for (const KernelEntry& entry : all_kernels()) {
      napi_value item;
      check(napi_create_object(env, &item), "object");
      set_property(env, item, "name", make_string(env, entry.name));
      set_property(env, item, "isa", make_string(env, isa_name(entry.isa)));
      check(napi_set_element(env, list, index++, item), "element");
    }
    return list;
  });
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

// runKernel(name, isa, inputs, outputs, attributes, threads): one kernel, synchronously. For tests and
// benchmarks of kernels; programs run through `Program`.
napi_value run_kernel(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const std::vector<napi_value> values = arguments(env, info, 6);
    const std::string name = read_string(env, values[0]);
    const Isa isa = read_isa(env, values[1]);
    const KernelEntry* entry = find_kernel(name, isa);
    if (entry == nullptr) throw std::runtime_error("no kernel \"" + name + "\" for " + isa_name(isa));
    const std::vector<Tensor> inputs = read_tensors(env, values[2]);
    const std::vector<Tensor> outputs = read_tensors(env, values[3]);
    const std::vector<double> attributes = read_numbers(env, values[4]);
    ThreadPool& pool = pool_of(static_cast<int>(read_integer(env, values[5])));
    entry->function({inputs.data(), static_cast<int>(inputs.size()), outputs.data(),
                     static_cast<int>(outputs.size()), attributes.data(), static_cast<int>(attributes.size()),
                     pool});
    return make_string(env, isa_name(entry->isa));
  });
}

void add_function(napi_env env, napi_value exports, const char* name, napi_callback callback) {
  napi_value function;
  check(napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, nullptr, &function), name);
  set_property(env, exports, name, function);
}

}  // namespace

}  // namespace slipstream::binding

NAPI_MODULE_INIT() {
  using namespace slipstream::binding;
  return guarded(env, [&] {
    add_function(env, exports, "detectedIsa", detected_isa);
    add_function(env, exports, "canRunIsa", can_run_isa);
    add_function(env, exports, "listKernels", list_kernels);
    add_function(env, exports, "runKernel", run_kernel);
    add_function(env, exports, "createContext", create_context);
    add_function(env, exports, "releaseContext", release_context);
    add_function(env, exports, "createProgram", create_program);
    add_function(env, exports, "bindMemory", bind_memory);
    add_function(env, exports, "runProgram", run_program);
    add_function(env, exports, "releaseProgram", release_program);
    add_function(env, exports, "allocate", allocate);
    add_function(env, exports, "populate", populate);
    add_function(env, exports, "openStore", open_store);
    add_function(env, exports, "moveStore", move_store);
    add_function(env, exports, "storeTraffic", store_traffic);
    add_function(env, exports, "drainStore", drain_store);
    add_function(env, exports, "closeStore", close_store);
    add_function(env, exports, "createLocalWorld", create_local_world);
    add_function(env, exports, "createMessageWorld", create_message_world);
    add_function(env, exports, "groupInformation", group_information);
    add_function(env, exports, "subgroup", subgroup);
    add_function(env, exports, "runCollective", run_collective);
    add_function(env, exports, "abortGroup", abort_group);
    add_function(env, exports, "leaveGroup", leave_group);
    add_function(env, exports, "setGroupMoment", set_group_moment);
    add_function(env, exports, "groupTraffic", group_traffic);
    return exports;
  });
}
