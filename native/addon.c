/* Entry point of the addon, and the helpers of common.h. No global state: every environment loads it afresh. */
#include "common.h"

napi_value throw_last_error(napi_env env, const char *call) {
  bool pending = false;
  const napi_extended_error_info *info = NULL;
  if (napi_get_last_error_info(env, &info) != napi_ok) info = NULL;
  const char *message = info != NULL && info->error_message != NULL ? info->error_message : call;
  if (napi_is_exception_pending(env, &pending) == napi_ok && pending) return NULL;
  if (napi_throw_error(env, "ERR_NATIVE", message) != napi_ok) napi_fatal_error(call, NAPI_AUTO_LENGTH, message, NAPI_AUTO_LENGTH);
  return NULL;
}

bool get_arguments(napi_env env, napi_callback_info info, size_t count, napi_value *values) {
  size_t given = count;
  if (napi_get_cb_info(env, info, &given, values, NULL, NULL) != napi_ok) {
    throw_last_error(env, "napi_get_cb_info");
    return false;
  }
  if (given >= count) return true;
  if (napi_throw_type_error(env, "ERR_MISSING_ARGS", "too few arguments") != napi_ok) throw_last_error(env, "napi_throw_type_error");
  return false;
}

bool get_numbers(napi_env env, napi_callback_info info, size_t count, int64_t *numbers) {
  napi_value values[8];
  if (count > 8 || !get_arguments(env, info, count, values)) return false;
  for (size_t i = 0; i < count; i++) {
    if (napi_get_value_int64(env, values[i], &numbers[i]) == napi_ok) continue;
    throw_last_error(env, "napi_get_value_int64");
    return false;
  }
  return true;
}

napi_value number(napi_env env, int64_t value) {
  napi_value result = NULL;
  NAPI_TRY(env, napi_create_int64(env, value, &result));
  return result;
}

bool export_functions(napi_env env, napi_value exports, const struct function *functions, size_t count) {
  for (size_t i = 0; i < count; i++) {
    napi_value fn = NULL;
    if (napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].callback, NULL, &fn) != napi_ok ||
        napi_set_named_property(env, exports, functions[i].name, fn) != napi_ok) {
      throw_last_error(env, functions[i].name);
      return false;
    }
  }
  return true;
}

NAPI_MODULE_INIT() {
  if (!file_register(env, exports) || !mount_register(env, exports) || !channel_register(env, exports) ||
      !supervisor_register(env, exports))
    return NULL;
  return exports;
}
