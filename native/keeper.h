/* What the files of the keeper share. */
#ifndef CIDFS_KEEPER_H
#define CIDFS_KEEPER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

/* A line for the log. */
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);
/* Sets a variable of the environment. */
void set_number(const char *name, int64_t value);

/* Whether a daemon has mounted, and not unmounted. */
bool store_is_serving(void);
/* Keeps a descriptor, which is taken over, for the next daemon; it replaces one of the same name. */
void store_keep(const char *name, int fd);
void store_forget(const char *name);
/* In the child: passes everything on, as sd_listen_fds(3) has it. */
bool store_pass(void);

/* Takes the mount out of the tree, if it is there, and ends its connection. `mask` is for the programs it runs. */
void mount_end(const char *mountpoint, const sigset_t *mask);

#endif
