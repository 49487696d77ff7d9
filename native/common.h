/*
 * Shared by all files of the addon: argument unpacking and the conventions of its functions.
 *
 * Every function exported to JavaScript returns a number: zero or more on success, a negative errno on failure.
 * JavaScript exceptions are thrown only for wrong arguments and for failures of N-API itself.
 */
#ifndef CIDFS_COMMON_H
#define CIDFS_COMMON_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define NAPI_VERSION 8
#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the FUSE structs are written as little-endian words by JavaScript"
#endif

/* Leaves an exception pending and returns NULL, unless `call` succeeds. */
#define NAPI_TRY(env, call)                                                                                    \
  do {                                                                                                         \
    if ((call) != napi_ok) return throw_last_error(env, #call);                                                \
  } while (0)

napi_value throw_last_error(napi_env env, const char *call);

/* Unpacks exactly `count` arguments; false with an exception pending when there are fewer. */
bool get_arguments(napi_env env, napi_callback_info info, size_t count, napi_value *values);
/* The same for arguments that are all numbers. */
bool get_numbers(napi_env env, napi_callback_info info, size_t count, int64_t *numbers);

napi_value number(napi_env env, int64_t value);

struct function {
  const char *name;
  napi_callback callback;
};
bool export_functions(napi_env env, napi_value exports, const struct function *functions, size_t count);

bool file_register(napi_env env, napi_value exports);
bool mount_register(napi_env env, napi_value exports);
bool channel_register(napi_env env, napi_value exports);
bool supervisor_register(napi_env env, napi_value exports);

#endif
