/* What a supervised daemon tells its supervisor (sd_notify(3)), and whether a descriptor it was given still lives. */
#include "common.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* A supervisor that does not read is no reason to stop answering the kernel. */
static const struct timeval SEND_TIMEOUT = {.tv_sec = 1};

/* "@name" is a name of the abstract namespace. */
static int set_address(struct sockaddr_un *address, socklen_t *size, const char *path, size_t length) {
  if (length == 0 || length >= sizeof address->sun_path) return -ENAMETOOLONG;
  *address = (struct sockaddr_un){.sun_family = AF_UNIX};
  memcpy(address->sun_path, path, length);
  *size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
  if (path[0] == '@') address->sun_path[0] = 0;
  else (*size)++;
  return 0;
}

static int send_datagram(const char *path, size_t path_length, void *text, size_t length, int fd) {
  struct sockaddr_un address;
  struct iovec iov = {.iov_base = text, .iov_len = length};
  struct msghdr message = {.msg_name = &address, .msg_iov = &iov, .msg_iovlen = 1};
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int))];
  } control = {0};
  int result = set_address(&address, &message.msg_namelen, path, path_length);
  if (result < 0) return result;
  if (fd >= 0) {
    message.msg_control = control.space;
    message.msg_controllen = sizeof control.space;
    control.header = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
  }
  int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (sock < 0) return -errno;
  (void)setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &SEND_TIMEOUT, sizeof SEND_TIMEOUT);
  ssize_t sent;
  do sent = sendmsg(sock, &message, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  result = sent < 0 ? -errno : 0;
  close(sock);
  return result;
}

static bool get_bytes(napi_env env, napi_value value, void **data, size_t *length) {
  if (napi_get_buffer_info(env, value, data, length) == napi_ok) return true;
  throw_last_error(env, "napi_get_buffer_info");
  return false;
}

/* notify(address, message, fd): both are buffers; fd below 0: none. */
static napi_value supervisor_notify(napi_env env, napi_callback_info info) {
  napi_value argv[3];
  void *path, *text;
  size_t path_length, length;
  int32_t fd;
  if (!get_arguments(env, info, 3, argv) || !get_bytes(env, argv[0], &path, &path_length) ||
      !get_bytes(env, argv[1], &text, &length))
    return NULL;
  NAPI_TRY(env, napi_get_value_int32(env, argv[2], &fd));
  return number(env, send_datagram(path, path_length, text, length, fd));
}

/* hasEnded(fd): 1 when a poll says that nothing will come of it any more. */
static napi_value supervisor_has_ended(napi_env env, napi_callback_info info) {
  int64_t fd;
  if (!get_numbers(env, info, 1, &fd)) return NULL;
  struct pollfd polled = {.fd = (int)fd, .events = POLLIN};
  if (poll(&polled, 1, 0) < 0) return number(env, -errno);
  return number(env, (polled.revents & (POLLERR | POLLHUP | POLLNVAL)) != 0);
}

bool supervisor_register(napi_env env, napi_value exports) {
  static const struct function functions[] = {{"notify", supervisor_notify}, {"hasEnded", supervisor_has_ended}};
  return export_functions(env, exports, functions, sizeof functions / sizeof *functions);
}
