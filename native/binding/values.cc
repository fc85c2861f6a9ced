#include "binding/values.h"

namespace slipstream::binding {

void check(napi_status status, const char* what) {
  if (status != napi_ok) throw std::runtime_error(std::string("internal: ") + what);
}

std::vector<napi_value> arguments(napi_env env, napi_callback_info info, size_t expected) {
  std::vector<napi_value> values(expected);
  size_t count = expected;
  check(napi_get_cb_info(env, info, &count, values.data(), nullptr, nullptr), "arguments");
  if (count < expected) throw std::runtime_error("internal: too few arguments to a native call");
  return values;
}

std::string read_string(napi_env env, napi_value value) {
  size_t length = 0;
  check(napi_get_value_string_utf8(env, value, nullptr, 0, &length), "expected a string");
  std::string text(length, '\0');
  check(napi_get_value_string_utf8(env, value, text.data(), length + 1, &length), "expected a string");
  return text;
}

double read_number(napi_env env, napi_value value) {
  double number = 0;
  check(napi_get_value_double(env, value, &number), "expected a number");
  return number;
}

int64_t read_integer(napi_env env, napi_value value) { return static_cast<int64_t>(read_number(env, value)); }

std::vector<double> read_numbers(napi_env env, napi_value array) {
  bool typed = false;
  check(napi_is_typedarray(env, array, &typed), "is_typedarray");
  if (typed) {
    napi_typedarray_type type;
    size_t length;
    void* data;
    check(napi_get_typedarray_info(env, array, &type, &length, &data, nullptr, nullptr), "typed array");
    if (type != napi_float64_array) throw std::runtime_error("internal: expected a Float64Array");
    const double* values = static_cast<const double*>(data);
    return std::vector<double>(values, values + length);
  }
  uint32_t length = 0;
  check(napi_get_array_length(env, array, &length), "expected an array of numbers");
  std::vector<double> numbers(length);
  for (uint32_t i = 0; i < length; i++) {
    napi_value element;
    check(napi_get_element(env, array, i, &element), "array element");
    numbers[i] = read_number(env, element);
  }
  return numbers;
}

std::vector<std::string> read_strings(napi_env env, napi_value array) {
  uint32_t length = 0;
  check(napi_get_array_length(env, array, &length), "expected an array of strings");
  std::vector<std::string> strings(length);
  for (uint32_t i = 0; i < length; i++) {
    napi_value element;
    check(napi_get_element(env, array, i, &element), "array element");
    strings[i] = read_string(env, element);
  }
  return strings;
}

bool is_nullish(napi_env env, napi_value value) {
  napi_valuetype type;
  check(napi_typeof(env, value, &type), "typeof");
  return type == napi_null || type == napi_undefined;
}

napi_value property(napi_env env, napi_value object, const char* name) {
  napi_value value;
  check(napi_get_named_property(env, object, name, &value), name);
  return value;
}

napi_value make_string(napi_env env, const std::string& text) {
  napi_value value;
  check(napi_create_string_utf8(env, text.data(), text.size(), &value), "make string");
  return value;
}

napi_value make_number(napi_env env, double number) {
  napi_value value;
  check(napi_create_double(env, number, &value), "make number");
  return value;
}

void set_property(napi_env env, napi_value object, const char* name, napi_value value) {
  check(napi_set_named_property(env, object, name, value), name);
}

Bytes read_bytes(napi_env env, napi_value value) {
  Bytes bytes;
  bool matches = false;
  check(napi_is_typedarray(env, value, &matches), "is_typedarray");
  if (matches) {
    napi_typedarray_type type;
    size_t length;
    check(napi_get_typedarray_info(env, value, &type, &length, &bytes.data, nullptr, nullptr), "typed array");
    size_t width = 1;
    switch (type) {
      case napi_int16_array:
      case napi_uint16_array:
        width = 2;
        break;
      case napi_int32_array:
      case napi_uint32_array:
      case napi_float32_array:
        width = 4;
        break;
      case napi_float64_array:
      case napi_bigint64_array:
      case napi_biguint64_array:
        width = 8;
        break;
      default:
        break;
    }
    bytes.length = length * width;
    return bytes;
  }
  check(napi_is_arraybuffer(env, value, &matches), "is_arraybuffer");
  if (!matches) throw std::runtime_error("internal: expected a typed array or an ArrayBuffer");
  check(napi_get_arraybuffer_info(env, value, &bytes.data, &bytes.length), "array buffer");
  return bytes;
}

Tensor read_tensor(napi_env env, napi_value value) {
  Tensor tensor;
  if (is_nullish(env, value)) return tensor;
  tensor.dtype = static_cast<DType>(read_integer(env, property(env, value, "dtype")));
  const std::vector<double> shape = read_numbers(env, property(env, value, "shape"));
  if (shape.size() > kMaximumRank) throw std::runtime_error("internal: a tensor has too many dimensions");
  tensor.rank = static_cast<int32_t>(shape.size());
  for (size_t axis = 0; axis < shape.size(); axis++) tensor.sizes[axis] = static_cast<int64_t>(shape[axis]);
  const napi_value data = property(env, value, "data");
  if (is_nullish(env, data)) return tensor;
  const Bytes bytes = read_bytes(env, data);
  if (static_cast<int64_t>(bytes.length) < tensor.bytes()) {
    throw std::runtime_error("internal: a tensor's memory holds " + std::to_string(bytes.length) +
                             " bytes where its shape needs " + std::to_string(tensor.bytes()));
  }
  // An empty array may have no address; kernels read absence from null.
  static char nothing;
  tensor.data = bytes.data != nullptr ? bytes.data : &nothing;
  return tensor;
}

}  // namespace slipstream::binding
