#include "binding/runs.h"

#include <cstring>
#include <memory>
#include <mutex>

#include "binding/pools.h"
#include "binding/values.h"
#include "executor/program.h"
#include "executor/shared_arena.h"

namespace slipstream::binding {

namespace {

struct Run {
  napi_async_work work = nullptr;
  napi_deferred deferred = nullptr;
  napi_ref keep_alive = nullptr;  // the program and the bindings, until the run has ended
  Program* program = nullptr;
  ThreadPool* threads = nullptr;
  std::vector<BoundMemory> bindings;
  std::vector<int64_t> symbols;
  RunOptions options;
  RunReport report;
  std::string failure;
};

std::mutex& running() {
  static std::mutex mutex;
  return mutex;
}

void execute(napi_env, void* data) {
  Run& run = *static_cast<Run*>(data);
  try {
    std::lock_guard<std::mutex> lock(running());
    run.report = run.program->run(*run.threads, run.bindings, run.symbols, run.options);
  } catch (const std::exception& error) {
    run.failure = error.what();
  }
}

napi_value make_report(napi_env env, const RunReport& report) {
  napi_value object;
  check(napi_create_object(env, &object), "object");
  set_property(env, object, "seconds", make_number(env, report.seconds));
  set_property(env, object, "kernelSeconds", make_number(env, report.kernel_seconds));
  set_property(env, object, "failedStep", make_number(env, report.failed_step));
  set_property(env, object, "failedOutput", make_number(env, report.failed_output));
  napi_value buffer, array;
  void* memory = nullptr;
  const size_t bytes = report.step_seconds.size() * sizeof(double);
  check(napi_create_arraybuffer(env, bytes, &memory, &buffer), "array buffer");
  if (bytes > 0) std::memcpy(memory, report.step_seconds.data(), bytes);
  check(napi_create_typedarray(env, napi_float64_array, report.step_seconds.size(), buffer, 0, &array),
        "array");
  set_property(env, object, "stepSeconds", array);
  return object;
}

void complete(napi_env env, napi_status, void* data) {
  std::unique_ptr<Run> run(static_cast<Run*>(data));
  napi_delete_async_work(env, run->work);
  napi_delete_reference(env, run->keep_alive);
  if (run->failure.empty()) {
    napi_resolve_deferred(env, run->deferred, make_report(env, run->report));
    return;
  }
  napi_value error;
  napi_create_error(env, make_string(env, "native"), make_string(env, run->failure), &error);
  napi_reject_deferred(env, run->deferred, error);
}

// What bind_memory gives: memory for every binding of a program, kept alive as long as it is.
struct BoundSet {
  std::vector<BoundMemory> memory;
  napi_ref keep_alive = nullptr;
};

std::vector<BoundMemory> read_memory(napi_env env, napi_value array) {
  uint32_t count = 0;
  check(napi_get_array_length(env, array, &count), "expected bindings");
  std::vector<BoundMemory> memory;
  memory.reserve(count);
  for (uint32_t i = 0; i < count; i++) {
    napi_value element;
    check(napi_get_element(env, array, i, &element), "binding");
    const Bytes bytes = read_bytes(env, element);
    memory.push_back({bytes.data, bytes.length});
  }
  return memory;
}

// Bindings are an array of views, or what bind_memory made of one.
std::vector<BoundMemory> read_bindings(napi_env env, napi_value value) {
  napi_valuetype type;
  check(napi_typeof(env, value, &type), "bindings");
  if (type != napi_external) return read_memory(env, value);
  void* set = nullptr;
  check(napi_get_value_external(env, value, &set), "expected bound memory");
  return static_cast<BoundSet*>(set)->memory;
}

bool read_boolean(napi_env env, napi_value value) {
  bool result = false;
  check(napi_get_value_bool(env, value, &result), "expected a boolean");
  return result;
}

}  // namespace

napi_value create_program(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const std::vector<napi_value> values = arguments(env, info, 4);
    const std::vector<double> words = read_numbers(env, values[0]);
    const std::vector<std::string> kernels = read_strings(env, values[1]);
    Isa isa;
    if (!parse_isa(read_string(env, values[2]), &isa)) throw std::runtime_error("internal: unknown isa");
    uint32_t count = 0;
    check(napi_get_array_length(env, values[3], &count), "expected constants");
    std::vector<std::vector<char>> constants(count);
    for (uint32_t i = 0; i < count; i++) {
      napi_value element;
      check(napi_get_element(env, values[3], i, &element), "constant");
      const Bytes bytes = read_bytes(env, element);
      constants[i].assign(static_cast<char*>(bytes.data), static_cast<char*>(bytes.data) + bytes.length);
    }
    auto program = std::make_unique<Program>(words, kernels, isa, std::move(constants));
    napi_value external;
    check(napi_create_external(
              env, program.get(), [](napi_env, void* data, void*) { delete static_cast<Program*>(data); },
              nullptr, &external),
          "external");
    program.release();
    return external;
  });
}

napi_value run_program(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const std::vector<napi_value> values = arguments(env, info, 7);
    auto run = std::make_unique<Run>();
    void* program = nullptr;
    check(napi_get_value_external(env, values[0], &program), "expected a program");
    run->program = static_cast<Program*>(program);
    run->threads = &pool_of(static_cast<int>(read_integer(env, values[1])));
    run->bindings = read_bindings(env, values[2]);
    if (run->bindings.size() != run->program->binding_count())
      throw std::runtime_error("internal: wrong number of bindings");
    for (double symbol : read_numbers(env, values[3])) run->symbols.push_back(static_cast<int64_t>(symbol));
    if (run->symbols.size() != run->program->symbol_count()) {
      throw std::runtime_error("internal: wrong number of symbols");
    }
    run->options = {read_boolean(env, values[4]), read_boolean(env, values[5]), read_boolean(env, values[6])};
    napi_value keep, promise, name;
    check(napi_create_array_with_length(env, 2, &keep), "array");
    check(napi_set_element(env, keep, 0, values[0]), "element");
    check(napi_set_element(env, keep, 1, values[2]), "element");
    check(napi_create_reference(env, keep, 1, &run->keep_alive), "reference");
    check(napi_create_promise(env, &run->deferred, &promise), "promise");
    name = make_string(env, "slipstream program");
    check(napi_create_async_work(env, nullptr, name, execute, complete, run.get(), &run->work), "async work");
    check(napi_queue_async_work(env, run->work), "queue");
    run.release();
    return promise;
  });
}

napi_value bind_memory(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const napi_value array = arguments(env, info, 1)[0];
    auto set = std::make_unique<BoundSet>();
    set->memory = read_memory(env, array);
    check(napi_create_reference(env, array, 1, &set->keep_alive), "reference");
    napi_value external;
    check(napi_create_external(
              env, set.get(),
              [](napi_env finalize_env, void* data, void*) {
                BoundSet* bound = static_cast<BoundSet*>(data);
                napi_delete_reference(finalize_env, bound->keep_alive);
                delete bound;
              },
              nullptr, &external),
          "external");
    set.release();
    return external;
  });
}

napi_value release_program(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    void* program = nullptr;
    check(napi_get_value_external(env, arguments(env, info, 1)[0], &program), "expected a program");
    std::lock_guard<std::mutex> lock(running());
    static_cast<Program*>(program)->release();
    SharedArena::instance().trim();
    return nullptr;
  });
}

napi_value allocate(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const int64_t bytes = read_integer(env, arguments(env, info, 1)[0]);
    auto memory = std::make_unique<Memory>(static_cast<size_t>(bytes));
    napi_value buffer;
    if (bytes == 0) {
      void* data;
      check(napi_create_arraybuffer(env, 0, &data, &buffer), "array buffer");
      return buffer;
    }
    check(napi_create_external_arraybuffer(
              env, memory->data(), static_cast<size_t>(bytes),
              [](napi_env finalize_env, void*, void* hint) {
                Memory* owner = static_cast<Memory*>(hint);
                int64_t adjusted;
                napi_adjust_external_memory(finalize_env, -static_cast<int64_t>(owner->bytes()), &adjusted);
                delete owner;
              },
              memory.get(), &buffer),
          "external memory");
    int64_t adjusted;
    napi_adjust_external_memory(env, bytes, &adjusted);
    memory.release();
    return buffer;
  });
}

}  // namespace slipstream::binding
