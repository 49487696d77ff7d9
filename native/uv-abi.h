/*
 * The few functions of libuv that the channel needs, declared by hand.
 *
 * No registry package carries uv.h, and Node's own headers would have to be downloaded. These functions are
 * exported by the node binary and their ABI has been the same since libuv 1.19: handles are opaque here, their
 * sizes are asked for at run time, and the enum values are fixed by the order of UV_HANDLE_TYPE_MAP.
 */
#ifndef CIDFS_UV_ABI_H
#define CIDFS_UV_ABI_H

#include <stddef.h>

typedef struct uv_loop_s uv_loop_t;
typedef struct uv_handle_s uv_handle_t;
typedef struct uv_poll_s uv_poll_t;
typedef struct uv_async_s uv_async_t;

enum { UV_ASYNC = 1, UV_POLL = 8 };
enum { UV_READABLE = 1, UV_DISCONNECT = 4 };

size_t uv_handle_size(int type);
void uv_handle_set_data(uv_handle_t *handle, void *data);
void *uv_handle_get_data(const uv_handle_t *handle);
void uv_close(uv_handle_t *handle, void (*closed)(uv_handle_t *handle));

int uv_poll_init(uv_loop_t *loop, uv_poll_t *poll, int fd);
int uv_poll_start(uv_poll_t *poll, int events, void (*readable)(uv_poll_t *poll, int status, int events));
int uv_poll_stop(uv_poll_t *poll);

int uv_async_init(uv_loop_t *loop, uv_async_t *async, void (*woken)(uv_async_t *async));
int uv_async_send(uv_async_t *async);

#endif
