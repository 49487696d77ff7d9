/* The end of a mount that has no daemon any more. */
#include "keeper.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

static void unescape(char *text) {
  char *to = text;
  for (char *from = text; *from != 0; to++) {
    int octal;
    if (*from == '\\' && sscanf(from + 1, "%3o", (unsigned *)&octal) == 1) *to = (char)octal, from += 4;
    else *to = *from++;
  }
  *to = 0;
}

/* Whether the visible mount on the mountpoint is one of cidfs; asked of the kernel's table, never of the mount. */
static bool is_mounted(const char *mountpoint) {
  FILE *table = fopen("/proc/self/mountinfo", "re");
  char *line = NULL;
  size_t size = 0;
  bool mounted = false;
  while (table != NULL && getline(&line, &size, table) > 0) {
    char path[PATH_MAX + 1];
    const char *type = strstr(line, " - ");
    if (type == NULL || sscanf(line, "%*s %*s %*s %*s %4096s", path) != 1) continue;
    unescape(path);
    if (strcmp(path, mountpoint) == 0) mounted = strncmp(type + 3, "fuse.cidfs ", 11) == 0;
  }
  free(line);
  if (table != NULL) fclose(table);
  return mounted;
}

static void fusermount(const char *mountpoint, const sigset_t *mask) {
  pid_t pid = fork();
  if (pid == 0) {
    sigprocmask(SIG_SETMASK, mask, NULL);
    execlp("fusermount3", "fusermount3", "-u", "-z", "--", mountpoint, (char *)NULL);
    _exit(127);
  }
  if (pid > 0) waitpid(pid, NULL, 0);
}

/* Forced: the connection ends even if what is left of a daemon still has it open. */
void mount_end(const char *mountpoint, const sigset_t *mask) {
  if (!is_mounted(mountpoint)) return;
  (void)umount2(mountpoint, MNT_FORCE | UMOUNT_NOFOLLOW);
  if (!is_mounted(mountpoint)) return;
  if (umount2(mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW) != 0) fusermount(mountpoint, mask);
}
