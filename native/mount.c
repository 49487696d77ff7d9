/* Mounting as root, unmounting, and the descriptor that fusermount3 hands to an ordinary user. */
#include "common.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

/* False with an exception pending when the value is not a string or does not fit. */
static bool get_string(napi_env env, napi_value value, char *text, size_t size) {
  size_t length;
  if (napi_get_value_string_utf8(env, value, text, size, &length) != napi_ok) {
    throw_last_error(env, "napi_get_value_string_utf8");
    return false;
  }
  if (length + 1 < size && strlen(text) == length) return true;
  if (napi_throw_range_error(env, "ERR_INVALID_ARG_VALUE", "string too long, or with a NUL") != napi_ok) throw_last_error(env, "napi_throw_range_error");
  return false;
}

/* mount(source, dir, type, flags, options) */
static napi_value mount_mount(napi_env env, napi_callback_info info) {
  napi_value argv[5];
  char source[256], dir[PATH_MAX], type[64], options[1024];
  int64_t flags;
  if (!get_arguments(env, info, 5, argv) || !get_string(env, argv[0], source, sizeof source) ||
      !get_string(env, argv[1], dir, sizeof dir) || !get_string(env, argv[2], type, sizeof type) ||
      !get_string(env, argv[4], options, sizeof options))
    return NULL;
  NAPI_TRY(env, napi_get_value_int64(env, argv[3], &flags));
  return number(env, mount(source, dir, type, (unsigned long)flags, options) == 0 ? 0 : -errno);
}

/*
 * umount2(2) may write back dirty pages of the mount, which this very process has to take: so it runs on another
 * thread while the event loop goes on answering.
 */
struct umount {
  napi_async_work work;
  napi_deferred deferred;
  int flags;
  int result;
  char dir[PATH_MAX];
};

static void umount_execute(napi_env env, void *data) {
  (void)env;
  struct umount *umount = data;
  umount->result = umount2(umount->dir, umount->flags) == 0 ? 0 : -errno;
}

static void umount_complete(napi_env env, napi_status status, void *data) {
  struct umount *umount = data;
  int result = status == napi_ok ? umount->result : -ECANCELED;
  napi_deferred deferred = umount->deferred;
  if (napi_delete_async_work(env, umount->work) != napi_ok) throw_last_error(env, "napi_delete_async_work");
  free(umount);
  napi_value value = number(env, result);
  if (value != NULL && napi_resolve_deferred(env, deferred, value) != napi_ok) throw_last_error(env, "napi_resolve_deferred");
}

/* umount(dir, flags): a promise of 0 or a negative errno. */
static napi_value mount_umount(napi_env env, napi_callback_info info) {
  napi_value argv[2], promise = NULL, name;
  int64_t flags;
  struct umount *umount = calloc(1, sizeof *umount);
  if (umount == NULL) return throw_last_error(env, "out of memory");
  if (!get_arguments(env, info, 2, argv) || !get_string(env, argv[0], umount->dir, sizeof umount->dir)) goto out;
  if (napi_get_value_int64(env, argv[1], &flags) != napi_ok) goto failed;
  umount->flags = (int)flags;
  if (napi_create_string_utf8(env, "cidfs:umount", NAPI_AUTO_LENGTH, &name) != napi_ok) goto failed;
  if (napi_create_async_work(env, NULL, name, umount_execute, umount_complete, umount, &umount->work) != napi_ok) goto failed;
  if (napi_create_promise(env, &umount->deferred, &promise) != napi_ok) goto failed_work;
  if (napi_queue_async_work(env, umount->work) != napi_ok) goto failed_work;
  return promise;
failed_work:
  throw_last_error(env, "umount");
  if (napi_delete_async_work(env, umount->work) != napi_ok) throw_last_error(env, "napi_delete_async_work");
  goto out;
failed:
  throw_last_error(env, "umount");
out:
  free(umount);
  return NULL;
}

/* socketPair(): two descriptors, the first closed on exec, the second for a child. */
static napi_value mount_socket_pair(napi_env env, napi_callback_info info) {
  (void)info;
  int fds[2];
  napi_value pair = NULL;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) return number(env, -errno);
  if (napi_create_array_with_length(env, 2, &pair) != napi_ok) goto failed;
  for (uint32_t i = 0; i < 2; i++) {
    napi_value fd = number(env, fds[i]);
    if (fd == NULL || napi_set_element(env, pair, i, fd) != napi_ok) goto failed;
  }
  return pair;
failed:
  close(fds[0]);
  close(fds[1]);
  return throw_last_error(env, "socketPair");
}

/* receiveFd(socket): the descriptor of one SCM_RIGHTS message that has already arrived. */
static napi_value mount_receive_fd(napi_env env, napi_callback_info info) {
  int64_t fd;
  if (!get_numbers(env, info, 1, &fd)) return NULL;
  char byte;
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int))];
  } control;
  struct iovec iov = {.iov_base = &byte, .iov_len = 1};
  struct msghdr message = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space};
  ssize_t received;
  do received = recvmsg((int)fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  while (received < 0 && errno == EINTR);
  if (received < 0) return number(env, -errno);
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (header == NULL || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof(int))) return number(env, -EBADMSG);
  int received_fd;
  memcpy(&received_fd, CMSG_DATA(header), sizeof received_fd);
  return number(env, received_fd);
}

bool mount_register(napi_env env, napi_value exports) {
  static const struct function functions[] = {
      {"mount", mount_mount},
      {"umount", mount_umount},
      {"socketPair", mount_socket_pair},
      {"receiveFd", mount_receive_fd},
  };
  return export_functions(env, exports, functions, sizeof functions / sizeof *functions);
}
