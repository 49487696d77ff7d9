/* System calls on open files that Node does not offer. */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* flock(fd): exclusive and without waiting; -EWOULDBLOCK when somebody else holds it. */
static napi_value file_flock(napi_env env, napi_callback_info info) {
  int64_t fd;
  if (!get_numbers(env, info, 1, &fd)) return NULL;
  return number(env, flock((int)fd, LOCK_EX | LOCK_NB) == 0 ? 0 : -errno);
}

/* copyFileRange(inFd, inOffset, outFd, outOffset, length): bytes copied, fewer than asked when it pleases. */
static napi_value file_copy_range(napi_env env, napi_callback_info info) {
  int64_t n[5];
  if (!get_numbers(env, info, 5, n)) return NULL;
  off64_t in = n[1], out = n[3];
  ssize_t copied;
  do copied = copy_file_range((int)n[0], &in, (int)n[2], &out, (size_t)n[4], 0);
  while (copied < 0 && errno == EINTR);
  return number(env, copied >= 0 ? copied : -errno);
}

/* reflink(srcFd, dstFd): the whole file, sharing its extents. */
static napi_value file_reflink(napi_env env, napi_callback_info info) {
  int64_t n[2];
  if (!get_numbers(env, info, 2, n)) return NULL;
  return number(env, ioctl((int)n[1], FICLONE, (int)n[0]) == 0 ? 0 : -errno);
}

/* fallocate(fd, mode, offset, length) */
static napi_value file_fallocate(napi_env env, napi_callback_info info) {
  int64_t n[4];
  if (!get_numbers(env, info, 4, n)) return NULL;
  int result;
  do result = fallocate((int)n[0], (int)n[1], n[2], n[3]);
  while (result < 0 && errno == EINTR);
  return number(env, result == 0 ? 0 : -errno);
}

/* lseek(fd, offset, whence): the new offset. */
static napi_value file_lseek(napi_env env, napi_callback_info info) {
  int64_t n[3];
  if (!get_numbers(env, info, 3, n)) return NULL;
  off_t offset = lseek((int)n[0], n[1], (int)n[2]);
  return number(env, offset >= 0 ? offset : -errno);
}

/*
 * hasWriters(fd): whether any program has the file open for writing, 1 or 0. `fd` is open for reading. A read lease
 * is granted when there is none, those inside the kernel included; it is given back at once. Should somebody open the
 * file just then, the signal that asks for the lease is one that is ignored.
 */
static napi_value file_has_writers(napi_env env, napi_callback_info info) {
  int64_t fd;
  if (!get_numbers(env, info, 1, &fd)) return NULL;
  if (fcntl((int)fd, F_SETSIG, SIGURG) < 0) return number(env, -errno);
  if (fcntl((int)fd, F_SETLEASE, F_RDLCK) < 0) return number(env, errno == EAGAIN ? 1 : -errno);
  fcntl((int)fd, F_SETLEASE, F_UNLCK);
  return number(env, 0);
}

bool file_register(napi_env env, napi_value exports) {
  static const struct function functions[] = {
      {"flock", file_flock},         {"copyFileRange", file_copy_range}, {"reflink", file_reflink},
      {"fallocate", file_fallocate}, {"lseek", file_lseek},           {"hasWriters", file_has_writers},
  };
  return export_functions(env, exports, functions, sizeof functions / sizeof *functions);
}
