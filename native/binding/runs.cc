#include "binding/runs.h"

#include <cstring>
#include <exception>
#include <memory>

#include "binding/completions.h"
#include "binding/groups.h"
#include "binding/values.h"
#include "executor/context.h"
#include "executor/program.h"

namespace slipstream::binding {

namespace {

napi_value make_report(napi_env env, const RunReport& report);

// One run of a program.
class Run : public Completion {
 public:
  std::shared_ptr<Program> program;
  ThreadPool* threads = nullptr;
  std::vector<BoundMemory> bindings;
  std::vector<int64_t> symbols;
  RunOptions options;
  napi_deferred deferred = nullptr;
  napi_ref keep_alive = nullptr;  // the program and the memory of the bindings, until the run has ended

  // The context's thread.
  void execute() {
    try {
      report_ = program->run(*threads, bindings, symbols, options);
    } catch (...) {
      failure_ = std::current_exception();
    }
  }

  void stop() override { program->abort("its process is ending"); }

  void settle(napi_env env) override {
    napi_delete_reference(env, keep_alive);
    if (failure_ == nullptr) {
      napi_resolve_deferred(env, deferred, make_report(env, report_));
    } else {
      napi_reject_deferred(env, deferred, make_error(env, failure_));
    }
  }

 private:
  RunReport report_;
  std::exception_ptr failure_;
};

// A program that is released once the runs before are over.
class Release : public Completion {
 public:
  explicit Release(std::shared_ptr<Program> program) : program_(std::move(program)) {}
  void execute() { program_->release(); }
  void settle(napi_env) override {}

 private:
  std::shared_ptr<Program> program_;
};

// Gives work to the thread of a context. What the work holds on to is let go of on JavaScript's thread.
template <class Work>
void submit(napi_env env, ExecutionContext& context, std::unique_ptr<Work> work) {
  Work* pointer = work.get();
  expect_completion(env, pointer);
  context.submit([pointer] { pointer->execute(); }, [env, pointer] { post_completion(env, pointer); });
  work.release();
}

using HeldContext = std::shared_ptr<ExecutionContext>;

// What an opaque program of JavaScript holds.
struct HeldProgram {
  std::shared_ptr<Program> program;
  napi_ref groups = nullptr;  // of its collectives, which live as long
};

template <class Held>
Held& read_external(napi_env env, napi_value value, const char* expected) {
  void* held = nullptr;
  check(napi_get_value_external(env, value, &held), expected);
  return *static_cast<Held*>(held);
}

napi_value make_numbers(napi_env env, const std::vector<double>& numbers) {
  napi_value buffer, array;
  void* memory = nullptr;
  const size_t bytes = numbers.size() * sizeof(double);
  check(napi_create_arraybuffer(env, bytes, &memory, &buffer), "array buffer");
  if (bytes > 0) std::memcpy(memory, numbers.data(), bytes);
  check(napi_create_typedarray(env, napi_float64_array, numbers.size(), buffer, 0, &array), "array");
  return array;
}

napi_value make_report(napi_env env, const RunReport& report) {
  napi_value object;
  check(napi_create_object(env, &object), "object");
  set_property(env, object, "seconds", make_number(env, report.seconds));
  set_property(env, object, "kernelSeconds", make_number(env, report.kernel_seconds));
  set_property(env, object, "failedStep", make_number(env, report.failed_step));
  set_property(env, object, "failedOutput", make_number(env, report.failed_output));
  set_property(env, object, "waitSeconds", make_number(env, report.wait_seconds));
  set_property(env, object, "stepSeconds", make_numbers(env, report.step_seconds));
  set_property(env, object, "collectiveSeconds", make_numbers(env, report.collective_seconds));
  return object;
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

napi_value create_context(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const bool isolated = read_boolean(env, arguments(env, info, 1)[0]);
    auto held = std::make_unique<HeldContext>(isolated ? std::make_shared<ExecutionContext>()
                                                       : ExecutionContext::shared());
    napi_value external;
    check(napi_create_external(
              env, held.get(), [](napi_env, void* data, void*) { delete static_cast<HeldContext*>(data); },
              nullptr, &external),
          "external");
    held.release();
    return external;
  });
}

napi_value release_context(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    read_external<HeldContext>(env, arguments(env, info, 1)[0], "expected a context").reset();
    return nullptr;
  });
}

napi_value create_program(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const std::vector<napi_value> values = arguments(env, info, 7);
    const HeldContext context = read_external<HeldContext>(env, values[0], "expected a context");
    if (context == nullptr) throw std::runtime_error("internal: the context was released");
    const std::vector<double> words = read_numbers(env, values[1]);
    const std::vector<std::string> kernels = read_strings(env, values[2]);
    Isa isa;
    if (!parse_isa(read_string(env, values[3]), &isa)) throw std::runtime_error("internal: unknown isa");
    uint32_t count = 0;
    check(napi_get_array_length(env, values[4], &count), "expected constants");
    std::vector<std::vector<char>> constants(count);
    for (uint32_t i = 0; i < count; i++) {
      napi_value element;
      check(napi_get_element(env, values[4], i, &element), "constant");
      const Bytes bytes = read_bytes(env, element);
      constants[i].assign(static_cast<char*>(bytes.data), static_cast<char*>(bytes.data) + bytes.length);
    }
    check(napi_get_array_length(env, values[5], &count), "expected groups");
    std::vector<comm::Group*> groups(count);
    for (uint32_t i = 0; i < count; i++) {
      napi_value element;
      check(napi_get_element(env, values[5], i, &element), "group");
      groups[i] = read_group(env, element);
    }
    if (count > 0) finish_completions_first(env);
    const std::vector<std::string> labels = read_strings(env, values[6]);
    auto held = std::make_unique<HeldProgram>();
    held->program = std::make_shared<Program>(context, words, kernels, isa, std::move(constants),
                                              std::move(groups), labels);
    check(napi_create_reference(env, values[5], 1, &held->groups), "reference");
    napi_value external;
    check(napi_create_external(
              env, held.get(),
              [](napi_env finalize_env, void* data, void*) {
                const std::unique_ptr<HeldProgram> program(static_cast<HeldProgram*>(data));
                napi_delete_reference(finalize_env, program->groups);
              },
              nullptr, &external),
          "external");
    held.release();
    return external;
  });
}

napi_value run_program(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const std::vector<napi_value> values = arguments(env, info, 7);
    auto run = std::make_unique<Run>();
    run->program = read_external<HeldProgram>(env, values[0], "expected a program").program;
    ExecutionContext& context = *run->program->context();
    run->threads = &context.pool(static_cast<int>(read_integer(env, values[1])));
    run->bindings = read_bindings(env, values[2]);
    if (run->bindings.size() != run->program->binding_count())
      throw std::runtime_error("internal: wrong number of bindings");
    for (double symbol : read_numbers(env, values[3])) run->symbols.push_back(static_cast<int64_t>(symbol));
    if (run->symbols.size() != run->program->symbol_count()) {
      throw std::runtime_error("internal: wrong number of symbols");
    }
    run->options = {read_boolean(env, values[4]), read_boolean(env, values[5]), read_boolean(env, values[6])};
    napi_value keep, promise;
    check(napi_create_array_with_length(env, 2, &keep), "array");
    check(napi_set_element(env, keep, 0, values[0]), "element");
    check(napi_set_element(env, keep, 1, values[2]), "element");
    check(napi_create_reference(env, keep, 1, &run->keep_alive), "reference");
    check(napi_create_promise(env, &run->deferred, &promise), "promise");
    submit(env, context, std::move(run));
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
    const auto program =
        read_external<HeldProgram>(env, arguments(env, info, 1)[0], "expected a program").program;
    ExecutionContext& context = *program->context();
    if (context.idle()) {
      program->release();
    } else {
      submit(env, context, std::make_unique<Release>(program));
    }
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
