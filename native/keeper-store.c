/* The descriptor store: what a daemon wants its successor to have, and nobody can make again. */
#include "keeper.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LISTEN_FD = 3, STORE_MAX = 4, NAME_MAX_BYTES = 32 };

static struct {
  char name[NAME_MAX_BYTES];
  int fd;
} store[STORE_MAX];
static int stored;

bool store_is_serving(void) {
  return stored > 0;
}

/* In the child: copies, which are not closed on exec, from LISTEN_FD on. First out of the way of those numbers. */
bool store_pass(void) {
  char names[STORE_MAX * (NAME_MAX_BYTES + 1)] = "";
  int fds[STORE_MAX];
  for (int i = 0; i < stored; i++) {
    fds[i] = fcntl(store[i].fd, F_DUPFD, LISTEN_FD + STORE_MAX);
    if (fds[i] < 0) return false;
    if (i > 0) strcat(names, ":");
    strcat(names, store[i].name);
  }
  for (int i = 0; i < stored; i++) {
    if (dup2(fds[i], LISTEN_FD + i) < 0 || close(fds[i]) != 0) return false;
  }
  setenv("LISTEN_FDNAMES", names, 1);
  set_number("LISTEN_FDS", stored);
  set_number("LISTEN_PID", getpid());
  return true;
}

void store_forget(const char *name) {
  for (int i = 0; i < stored; i++) {
    if (strcmp(store[i].name, name) != 0) continue;
    close(store[i].fd);
    store[i--] = store[--stored];
  }
}

/* Takes the descriptor over. */
void store_keep(const char *name, int fd) {
  if (fd < 0) return;
  store_forget(name);
  if (stored == STORE_MAX || strlen(name) >= NAME_MAX_BYTES) {
    close(fd);
    return;
  }
  strcpy(store[stored].name, name);
  store[stored++].fd = fd;
}
