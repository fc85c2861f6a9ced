#include "binding/stores.h"

#include <memory>

#include "binding/values.h"
#include "io/file_store.h"

namespace slipstream::binding {

namespace {

using io::Direction;
using io::FileStore;

struct Move {
  napi_async_work work = nullptr;
  napi_deferred deferred = nullptr;
  napi_ref keep_alive = nullptr;
  std::shared_ptr<FileStore> store;
  Direction direction = Direction::read;
  comm::Lane::Ticket ticket = 0;
  std::string failure;
};

void execute(napi_env, void* data) {
  Move& move = *static_cast<Move*>(data);
  try {
    move.store->wait(move.direction, move.ticket);
  } catch (const std::exception& error) {
    move.failure = error.what();
  }
}

void complete(napi_env env, napi_status, void* data) {
  const std::unique_ptr<Move> move(static_cast<Move*>(data));
  napi_delete_async_work(env, move->work);
  napi_delete_reference(env, move->keep_alive);
  if (move->failure.empty()) {
    napi_value nothing;
    napi_get_undefined(env, &nothing);
    napi_resolve_deferred(env, move->deferred, nothing);
    return;
  }
  napi_value error;
  napi_create_error(env, nullptr, make_string(env, move->failure), &error);
  napi_reject_deferred(env, move->deferred, error);
}

std::shared_ptr<FileStore> read_store(napi_env env, napi_value value) {
  return io::find_store(static_cast<int>(read_integer(env, value)));
}

}  // namespace

napi_value open_store(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const std::vector<napi_value> values = arguments(env, info, 6);
    bool direct = false;
    check(napi_get_value_bool(env, values[2], &direct), "expected a boolean");
    const size_t bytes = static_cast<size_t>(read_integer(env, values[1]));
    const io::IoSettings settings = {static_cast<size_t>(read_integer(env, values[3])),
                                     static_cast<int>(read_integer(env, values[4])),
                                     static_cast<int>(read_integer(env, values[5]))};
    return make_number(env, io::add_store(std::make_shared<FileStore>(read_string(env, values[0]), bytes,
                                                                      direct, settings)));
  });
}

napi_value move_store(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const std::vector<napi_value> values = arguments(env, info, 4);
    auto move = std::make_unique<Move>();
    move->store = read_store(env, values[0]);
    move->direction = static_cast<Direction>(read_integer(env, values[1]));
    const Bytes bytes = read_bytes(env, values[3]);
    napi_value promise;
    check(napi_create_reference(env, values[3], 1, &move->keep_alive), "reference");
    check(napi_create_promise(env, &move->deferred, &promise), "promise");
    check(napi_create_async_work(env, nullptr, make_string(env, "slipstream store"), execute, complete,
                                 move.get(), &move->work),
          "async work");
    // Started here, so that transfers keep the order in which they were asked for.
    move->ticket = move->store->start(move->direction, static_cast<size_t>(read_integer(env, values[2])),
                                      bytes.data, bytes.length);
    check(napi_queue_async_work(env, move->work), "queue");
    move.release();
    return promise;
  });
}

napi_value store_traffic(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const std::shared_ptr<FileStore> store = read_store(env, arguments(env, info, 1)[0]);
    const io::StoreTraffic traffic = store->traffic();
    napi_value object, direct;
    check(napi_create_object(env, &object), "object");
    set_property(env, object, "readBytes", make_number(env, static_cast<double>(traffic.read_bytes)));
    set_property(env, object, "writtenBytes", make_number(env, static_cast<double>(traffic.written_bytes)));
    set_property(env, object, "readSeconds", make_number(env, traffic.read_seconds));
    set_property(env, object, "writeSeconds", make_number(env, traffic.write_seconds));
    check(napi_get_boolean(env, store->direct(), &direct), "boolean");
    set_property(env, object, "direct", direct);
    return object;
  });
}

napi_value drain_store(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    read_store(env, arguments(env, info, 1)[0])->drain();
    return nullptr;
  });
}

napi_value close_store(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    io::remove_store(static_cast<int>(read_integer(env, arguments(env, info, 1)[0])));
    return nullptr;
  });
}

}  // namespace slipstream::binding
