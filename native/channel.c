/*
 * One FUSE connection on Node's own event loop.
 *
 * Invariant: everything here runs on the thread of the environment that opened the channel; other threads are the
 * crew's. The channel lives until both its uv handles are closed and JavaScript has dropped it (`refs`).
 * Reads never block; replies are written in place, because the kernel takes them without waiting.
 */
#include "common.h"
#include "crew.h"
#include "uv-abi.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

enum { ON_READABLE, ON_DONE, ON_CLOSED, INPUT, OUTPUT, REFERENCES };

struct channel {
  napi_env env; /* NULL once the environment goes down */
  napi_async_cleanup_hook_handle hook;
  napi_ref references[REFERENCES];
  uv_poll_t *poll;
  uv_async_t *async;
  struct crew *crew;
  int fd;
  int refs;
  bool closing, impatient;
  uint8_t *input, *output;
  size_t input_size, output_size;
  void *bounce_allocation;
  uint8_t *bounce;
};

static void channel_unref(struct channel *channel) {
  if (--channel->refs > 0) return;
  free(channel->bounce_allocation);
  free(channel);
}

/* Calls one of the JavaScript callbacks; what it throws becomes an uncaught exception, as with any callback. */
static void call_back(struct channel *channel, int which, size_t argc, const napi_value *argv) {
  napi_env env = channel->env;
  napi_value function, global, exception;
  if (napi_get_reference_value(env, channel->references[which], &function) != napi_ok ||
      napi_get_global(env, &global) != napi_ok)
    return;
  if (napi_make_callback(env, NULL, global, function, argc, argv, NULL) != napi_pending_exception) return;
  if (napi_get_and_clear_last_exception(env, &exception) == napi_ok) (void)napi_fatal_exception(env, exception);
}

static void call_back_in_scope(struct channel *channel, int which) {
  napi_handle_scope scope;
  if (channel->env == NULL || napi_open_handle_scope(channel->env, &scope) != napi_ok) return;
  call_back(channel, which, 0, NULL);
  if (channel->env != NULL) (void)napi_close_handle_scope(channel->env, scope);
}

/* A status below zero means that the connection is gone: the read that follows says so too. */
static void on_readable(uv_poll_t *poll, int status, int events) {
  (void)status, (void)events;
  call_back_in_scope(uv_handle_get_data((uv_handle_t *)poll), ON_READABLE);
}

static void call_done(struct channel *channel, const struct task *task) {
  napi_value argv[2];
  napi_handle_scope scope;
  if (channel->env == NULL || napi_open_handle_scope(channel->env, &scope) != napi_ok) return;
  if (napi_create_double(channel->env, task->id, &argv[0]) == napi_ok &&
      napi_create_int32(channel->env, task->result, &argv[1]) == napi_ok)
    call_back(channel, ON_DONE, 2, argv);
  if (channel->env != NULL) (void)napi_close_handle_scope(channel->env, scope);
}

static void collect(struct channel *channel) {
  struct task *task = crew_collect(channel->crew);
  while (task != NULL) {
    struct task *next = task->next;
    call_done(channel, task);
    free(task);
    task = next;
  }
}

static void delete_references(struct channel *channel) {
  for (int i = 0; i < REFERENCES; i++) {
    if (channel->references[i] != NULL) (void)napi_delete_reference(channel->env, channel->references[i]);
    channel->references[i] = NULL;
  }
}

static void finish(struct channel *channel) {
  crew_release(channel->crew);
  channel->crew = NULL;
  channel->fd = -1;
  call_back_in_scope(channel, ON_CLOSED);
  if (channel->env != NULL) delete_references(channel);
  (void)napi_remove_async_cleanup_hook(channel->hook);
  channel_unref(channel);
}

static void on_async_closed(uv_handle_t *handle) {
  struct channel *channel = uv_handle_get_data(handle);
  free(handle);
  finish(channel);
}

/* Second half of closing: when the poll handle is closed and the threads have ended, or nobody waits for them. */
static void close_async_when_idle(struct channel *channel) {
  if (!channel->closing || channel->poll != NULL || channel->async == NULL) return;
  if (!channel->impatient && !crew_is_idle(channel->crew)) return;
  collect(channel);
  if (channel->async == NULL) return; /* a callback closed the channel once more */
  crew_forget_wake(channel->crew);
  uv_close((uv_handle_t *)channel->async, on_async_closed);
  channel->async = NULL;
}

static void on_poll_closed(uv_handle_t *handle) {
  struct channel *channel = uv_handle_get_data(handle);
  free(handle);
  channel->poll = NULL;
  close_async_when_idle(channel);
}

static void on_async(uv_async_t *async) {
  struct channel *channel = uv_handle_get_data((uv_handle_t *)async);
  collect(channel);
  close_async_when_idle(channel);
}

static void wake(void *data) {
  uv_async_send(data);
}

static void channel_close(struct channel *channel, bool impatient) {
  channel->impatient |= impatient;
  if (channel->closing) {
    close_async_when_idle(channel);
    return;
  }
  channel->closing = true;
  crew_close(channel->crew);
  uv_close((uv_handle_t *)channel->poll, on_poll_closed);
}

/* The environment ends (a worker is terminated, the process exits): no JavaScript from here on. */
static void on_teardown(napi_async_cleanup_hook_handle hook, void *data) {
  (void)hook;
  struct channel *channel = data;
  delete_references(channel);
  channel->env = NULL;
  channel_close(channel, true);
}

static void on_collected(napi_env env, void *data, void *hint) {
  (void)env, (void)hint;
  channel_unref(data);
}

/* The handles exist from here on or not at all: uv_close is the only way to get rid of one. */
static int open_handles(struct channel *channel, uv_loop_t *loop) {
  uv_poll_t *poll = malloc(uv_handle_size(UV_POLL));
  uv_async_t *async = malloc(uv_handle_size(UV_ASYNC));
  int result = -ENOMEM;
  if (poll == NULL || async == NULL) goto failed;
  if ((channel->crew = crew_create(channel->fd, wake, async)) == NULL) goto failed;
  if ((result = uv_poll_init(loop, poll, channel->fd)) < 0) goto failed_crew;
  channel->poll = poll;
  uv_handle_set_data((uv_handle_t *)poll, channel);
  if ((result = uv_async_init(loop, async, on_async)) < 0) goto failed_poll;
  channel->async = async;
  uv_handle_set_data((uv_handle_t *)async, channel);
  return 0;
failed_poll:
  uv_close((uv_handle_t *)poll, (void (*)(uv_handle_t *))free);
  poll = NULL;
failed_crew:
  crew_discard(channel->crew);
failed:
  free(poll);
  free(async);
  return result;
}

static bool take_arguments(napi_env env, struct channel *channel, const napi_value *argv) {
  napi_typedarray_type type;
  if (napi_get_typedarray_info(env, argv[1], &type, &channel->input_size, (void **)&channel->input, NULL, NULL) != napi_ok ||
      napi_get_typedarray_info(env, argv[2], &type, &channel->output_size, (void **)&channel->output, NULL, NULL) != napi_ok)
    return false;
  const napi_value held[REFERENCES] = {argv[3], argv[4], argv[5], argv[1], argv[2]};
  for (int i = 0; i < REFERENCES; i++) {
    if (napi_create_reference(env, held[i], 1, &channel->references[i]) != napi_ok) return false;
  }
  return true;
}

/* channelOpen(fd, input, output, onReadable, onDone, onClosed): the channel, or a negative errno. */
static napi_value channel_open(napi_env env, napi_callback_info info) {
  napi_value argv[6], external;
  int64_t fd;
  uv_loop_t *loop;
  if (!get_arguments(env, info, 6, argv)) return NULL;
  NAPI_TRY(env, napi_get_value_int64(env, argv[0], &fd));
  NAPI_TRY(env, napi_get_uv_event_loop(env, (struct uv_loop_s **)&loop));
  struct channel *channel = calloc(1, sizeof *channel);
  if (channel == NULL) return number(env, -ENOMEM);
  channel->env = env;
  channel->fd = (int)fd;
  channel->refs = 2;
  if (!take_arguments(env, channel, argv)) goto failed;
  int result = open_handles(channel, loop);
  if (result < 0) goto refused;
  if (napi_add_async_cleanup_hook(env, on_teardown, channel, &channel->hook) != napi_ok ||
      napi_create_external(env, channel, on_collected, NULL, &external) != napi_ok)
    napi_fatal_error("channelOpen", NAPI_AUTO_LENGTH, "out of memory", NAPI_AUTO_LENGTH);
  return external;
refused:
  delete_references(channel);
  free(channel);
  return number(env, result);
failed:
  throw_last_error(env, "channelOpen");
  delete_references(channel);
  free(channel);
  return NULL;
}

/* The open channel in the first of `count` arguments; NULL with an exception pending or a result of -EBADF. */
static struct channel *get_channel(napi_env env, napi_callback_info info, size_t count, napi_value *argv, napi_value *result) {
  void *channel = NULL;
  *result = NULL;
  if (!get_arguments(env, info, count, argv)) return NULL;
  if (napi_get_value_external(env, argv[0], &channel) != napi_ok) {
    throw_last_error(env, "napi_get_value_external");
    return NULL;
  }
  if (!((struct channel *)channel)->closing) return channel;
  *result = number(env, -EBADF);
  return NULL;
}

/* channelPoll(channel, enabled) */
static napi_value channel_poll(napi_env env, napi_callback_info info) {
  napi_value argv[2], result;
  bool enabled;
  struct channel *channel = get_channel(env, info, 2, argv, &result);
  if (channel == NULL) return result;
  NAPI_TRY(env, napi_get_value_bool(env, argv[1], &enabled));
  return number(env, enabled ? uv_poll_start(channel->poll, UV_READABLE, on_readable) : uv_poll_stop(channel->poll));
}

/* channelAwaitEnd(channel): `onReadable` is called when the connection has ended, and not for requests. */
static napi_value channel_await_end(napi_env env, napi_callback_info info) {
  napi_value argv[1], result;
  struct channel *channel = get_channel(env, info, 1, argv, &result);
  if (channel == NULL) return result;
  return number(env, uv_poll_start(channel->poll, UV_DISCONNECT, on_readable));
}

#define DEV_IOC_CLONE _IOR(229, 0, uint32_t)

/* connectionClone(fd): another descriptor of the same connection, whose O_NONBLOCK is its own. */
static napi_value connection_clone(napi_env env, napi_callback_info info) {
  int64_t given;
  if (!get_numbers(env, info, 1, &given)) return NULL;
  uint32_t original = (uint32_t)given;
  int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (fd < 0) return number(env, -errno);
  if (ioctl(fd, DEV_IOC_CLONE, &original) == 0) return number(env, fd);
  int result = -errno;
  close(fd);
  return number(env, result);
}

/* channelRead(channel). ENOENT: the request was interrupted before it could be read; there may be another. */
static napi_value channel_read(napi_env env, napi_callback_info info) {
  napi_value argv[1], result;
  struct channel *channel = get_channel(env, info, 1, argv, &result);
  if (channel == NULL) return result;
  ssize_t length;
  do length = read(channel->fd, channel->input, channel->input_size);
  while (length < 0 && (errno == EINTR || errno == ENOENT));
  if (length < 0) return number(env, errno == EAGAIN ? 0 : -errno);
  return number(env, length);
}

/* channelReply(channel, length, payload) */
static napi_value channel_reply(napi_env env, napi_callback_info info) {
  napi_value argv[3], result;
  uint32_t length;
  napi_valuetype type;
  struct channel *channel = get_channel(env, info, 3, argv, &result);
  if (channel == NULL) return result;
  NAPI_TRY(env, napi_get_value_uint32(env, argv[1], &length));
  if (length > channel->output_size) return number(env, -EINVAL);
  NAPI_TRY(env, napi_typeof(env, argv[2], &type));
  if (type == napi_undefined) return number(env, device_write(channel->fd, channel->output, length));
  struct iovec iov[2] = {{.iov_base = channel->output, .iov_len = length}};
  napi_typedarray_type array_type;
  NAPI_TRY(env, napi_get_typedarray_info(env, argv[2], &array_type, &iov[1].iov_len, &iov[1].iov_base, NULL, NULL));
  ssize_t written;
  do written = writev(channel->fd, iov, 2);
  while (written < 0 && errno == EINTR);
  return number(env, written < 0 ? -errno : 0);
}

/* Whether all ranges were in the page cache and are now in the bounce buffer. */
static bool read_cached(struct channel *channel, const double *ranges, uint32_t count) {
  if (channel->bounce == NULL && (channel->bounce = reply_buffer(&channel->bounce_allocation)) == NULL) return false;
  uint8_t *into = channel->bounce + HEADER_SIZE;
  for (uint32_t i = 0; i < count; i++) {
    struct iovec iov = {.iov_base = into, .iov_len = (size_t)ranges[3 * i + 2]};
    ssize_t n = preadv2((int)ranges[3 * i], &iov, 1, (off_t)ranges[3 * i + 1], RWF_NOWAIT);
    if (n < 0 || (size_t)n < iov.iov_len) return false;
    into += n;
  }
  return true;
}

static int submit_ranges(struct channel *channel, const double *ranges, uint32_t count, size_t length, double id) {
  struct task *task = task_for_ranges(count);
  if (task == NULL) return -ENOMEM;
  task->id = id;
  task->length = length;
  memcpy(task->header, channel->output, HEADER_SIZE);
  for (uint32_t i = 0; i < count; i++) {
    task->ranges[i] = (struct range){
        .fd = (int)ranges[3 * i], .offset = (int64_t)ranges[3 * i + 1], .length = (size_t)ranges[3 * i + 2]};
  }
  int result = crew_submit(channel->crew, task);
  if (result < 0) free(task);
  return result;
}

/* Sum of the lengths, 0 when it cannot be a payload. */
static size_t total_length(const double *ranges, uint32_t count) {
  double total = 0;
  for (uint32_t i = 0; i < count; i++) total += ranges[3 * i + 2];
  return total > 0 && total <= PAYLOAD_MAX ? (size_t)total : 0;
}

/* channelReplyRanges(channel, ranges, count, job): 1 answered, 0 left to the crew, or a negative errno. */
static napi_value channel_reply_ranges(napi_env env, napi_callback_info info) {
  napi_value argv[4], result;
  napi_typedarray_type type;
  double *ranges, id;
  size_t capacity;
  uint32_t count;
  struct channel *channel = get_channel(env, info, 4, argv, &result);
  if (channel == NULL) return result;
  NAPI_TRY(env, napi_get_typedarray_info(env, argv[1], &type, &capacity, (void **)&ranges, NULL, NULL));
  NAPI_TRY(env, napi_get_value_uint32(env, argv[2], &count));
  NAPI_TRY(env, napi_get_value_double(env, argv[3], &id));
  if (type != napi_float64_array || count == 0 || (size_t)count * 3 > capacity) return number(env, -EINVAL);
  size_t length = total_length(ranges, count);
  if (length == 0) return number(env, -EINVAL);
  if (!read_cached(channel, ranges, count)) return number(env, submit_ranges(channel, ranges, count, length, id));
  memcpy(channel->bounce, channel->output, HEADER_SIZE);
  device_write(channel->fd, channel->bounce, HEADER_SIZE + length);
  return number(env, 1);
}

/* channelNotify(channel, message) */
static napi_value channel_notify(napi_env env, napi_callback_info info) {
  napi_value argv[2], result;
  napi_typedarray_type type;
  size_t length;
  void *message;
  struct channel *channel = get_channel(env, info, 2, argv, &result);
  if (channel == NULL) return result;
  NAPI_TRY(env, napi_get_typedarray_info(env, argv[1], &type, &length, &message, NULL, NULL));
  struct task *task = task_for_message(length);
  if (task == NULL) return number(env, -ENOMEM);
  memcpy(task->ranges, message, length);
  int status = crew_submit(channel->crew, task);
  if (status < 0) free(task);
  return number(env, status);
}

/* As in linux/fuse.h of 6.9, for older headers. */
struct backing_map {
  int32_t fd;
  uint32_t flags;
  uint64_t padding;
};
#define DEV_IOC_BACKING_OPEN _IOW(229, 1, struct backing_map)
#define DEV_IOC_BACKING_CLOSE _IOW(229, 2, uint32_t)

/* channelBackingOpen(channel, fd): an id for the file, above 0. The kernel holds the file until channelBackingClose. */
static napi_value channel_backing_open(napi_env env, napi_callback_info info) {
  napi_value argv[2], result;
  int32_t fd;
  struct channel *channel = get_channel(env, info, 2, argv, &result);
  if (channel == NULL) return result;
  NAPI_TRY(env, napi_get_value_int32(env, argv[1], &fd));
  struct backing_map map = {.fd = fd};
  int id = ioctl(channel->fd, DEV_IOC_BACKING_OPEN, &map);
  return number(env, id >= 0 ? id : -errno);
}

/* channelBackingClose(channel, id): files that are open by it stay open. */
static napi_value channel_backing_close(napi_env env, napi_callback_info info) {
  napi_value argv[2], result;
  uint32_t id;
  struct channel *channel = get_channel(env, info, 2, argv, &result);
  if (channel == NULL) return result;
  NAPI_TRY(env, napi_get_value_uint32(env, argv[1], &id));
  return number(env, ioctl(channel->fd, DEV_IOC_BACKING_CLOSE, &id) == 0 ? 0 : -errno);
}

/* channelClose(channel, impatient): impatient: do not wait for threads that are blocked. May be called again. */
static napi_value channel_close_call(napi_env env, napi_callback_info info) {
  napi_value argv[2], undefined;
  bool impatient;
  void *channel;
  if (!get_arguments(env, info, 2, argv)) return NULL;
  NAPI_TRY(env, napi_get_value_external(env, argv[0], &channel));
  NAPI_TRY(env, napi_get_value_bool(env, argv[1], &impatient));
  channel_close(channel, impatient);
  NAPI_TRY(env, napi_get_undefined(env, &undefined));
  return undefined;
}

bool channel_register(napi_env env, napi_value exports) {
  static const struct function functions[] = {
      {"channelOpen", channel_open},
      {"channelPoll", channel_poll},
      {"channelAwaitEnd", channel_await_end},
      {"connectionClone", connection_clone},
      {"channelRead", channel_read},
      {"channelReply", channel_reply},
      {"channelReplyRanges", channel_reply_ranges},
      {"channelNotify", channel_notify},
      {"channelBackingOpen", channel_backing_open},
      {"channelBackingClose", channel_backing_close},
      {"channelClose", channel_close_call},
  };
  return export_functions(env, exports, functions, sizeof functions / sizeof *functions);
}
