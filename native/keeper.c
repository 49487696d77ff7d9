/*
 * cidfs-keeper: the parent of a daemon, which holds the mount's descriptor while the daemon is dead.
 *
 *     cidfs-keeper <mountpoint> <program> <argument>...
 *     cidfs-keeper --orphan <program> <argument>...
 *
 * Invariant: while the keeper holds the descriptor, somebody is about to answer what the kernel asks: the daemon, its
 * successor, or (after too many deaths) the unmounting. It ends when the daemon has ended by itself.
 * Why so small a program: it has to outlive every fault of the daemon, so it knows nothing: no mount options, no
 * protocol of FUSE. It is to the daemon what systemd is to a service, and speaks the same protocol (sd_notify(3),
 * sd_listen_fds(3), WATCHDOG_USEC), so that the daemon needs to know one supervisor only. One addition: CIDFS_COMMAND,
 * the command line of successors, its words separated by 0x1f.
 *
 * With --orphan it runs a program whose parent is nobody but the supervisor, and ends: a supervisor waits for its own
 * children only, and a daemon that another daemon starts is to become one.
 */
#include "keeper.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
  MESSAGE_MAX = 64 * 1024,
  WORDS_MAX = 256,
  /* Deaths within a window of DEATHS_WINDOW_MS before the mount is given up, unless CIDFS_KEEPER_DEATHS says otherwise. */
  DEATHS_MAX = 10,
  DEATHS_WINDOW_MS = 60 * 1000,
  /* Deaths in a row of daemons that did not get as far as answering. */
  FAILED_STARTS_MAX = 6,
  BACK_OFF_FIRST_MS = 100,
  BACK_OFF_MAX_MS = 5000,
  START_TIMEOUT_MS = 120 * 1000,
  ZOMBIE_MS = 500,
  /* Twice what the daemon allows its main thread before it ends itself, with more to say about why. */
  WATCHDOG_MS = 60 * 1000,
};

static struct {
  const char *mountpoint;
  char **command;
  char *command_text; /* what `command` points into, once a daemon has sent its own */
  int notify, signals;
  int channel; /* of Node, from who started us to the first daemon; -1: none */
  pid_t child; /* 0: none */
  bool ready, stopping, terminating;
  int64_t started_ms, beat_ms, restart_ms; /* restart_ms 0: nothing to restart */
  int64_t zombie_ms; /* since when the daemon has been one; 0: it is none */
  int64_t window_ms;
  int deaths, deaths_max, failed_starts;
  int64_t watchdog_ms;
} keeper = {.channel = -1};

static int64_t now_ms(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

void say(const char *format, ...) {
  char text[1024], when[32];
  time_t now = time(NULL);
  struct tm utc;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
  dprintf(STDERR_FILENO, "%s cidfs-keeper: %s\n", when, text);
}

static _Noreturn void die(const char *what) {
  say("%s: %s", what, strerror(errno));
  exit(1);
}

static int64_t number_of(const char *name, int64_t fallback) {
  const char *text = getenv(name);
  int64_t value = text == NULL ? 0 : atoll(text);
  unsetenv(name);
  return value > 0 ? value : fallback;
}

/* An abstract name of the kernel's choosing: no file is left behind, and no path is too long. */
static void open_notify_socket(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  socklen_t size = sizeof(sa_family_t);
  int on = 1;
  keeper.notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (keeper.notify < 0 || bind(keeper.notify, (struct sockaddr *)&address, size) != 0 ||
      setsockopt(keeper.notify, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0)
    die("socket");
  size = sizeof address;
  if (getsockname(keeper.notify, (struct sockaddr *)&address, &size) != 0) die("getsockname");
  address.sun_path[0] = '@';
  char name[sizeof address.sun_path + 1] = {0};
  memcpy(name, address.sun_path, size - offsetof(struct sockaddr_un, sun_path));
  setenv("NOTIFY_SOCKET", name, 1);
}

void set_number(const char *name, int64_t value) {
  char text[32];
  snprintf(text, sizeof text, "%lld", (long long)value);
  setenv(name, text, 1);
}

/* In the child: descriptors and environment as sd_listen_fds(3) has them. */
static _Noreturn void become_daemon(const sigset_t *mask) {
  set_number("WATCHDOG_PID", getpid());
  if (store_is_serving() && !store_pass()) _exit(126);
  sigprocmask(SIG_SETMASK, mask, NULL);
  execvp(keeper.command[0], keeper.command);
  say("cannot run %s: %s", keeper.command[0], strerror(errno));
  _exit(127);
}

/* Who started us waits for the first daemon only. */
static void drop_channel(void) {
  if (keeper.channel < 0) return;
  close(keeper.channel);
  keeper.channel = -1;
  unsetenv("NODE_CHANNEL_FD");
  unsetenv("NODE_CHANNEL_SERIALIZATION_MODE");
}

static void start_daemon(const sigset_t *mask) {
  keeper.ready = false;
  keeper.restart_ms = keeper.zombie_ms = 0;
  keeper.started_ms = keeper.beat_ms = now_ms();
  keeper.child = fork();
  if (keeper.child < 0) die("fork");
  if (keeper.child == 0) become_daemon(mask);
  drop_channel();
}

static _Noreturn void give_up(const sigset_t *mask, int status) {
  if (store_is_serving()) mount_end(keeper.mountpoint, mask);
  exit(status);
}

static int exit_status(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void count_death(void) {
  int64_t now = now_ms();
  if (now - keeper.window_ms > DEATHS_WINDOW_MS) {
    keeper.window_ms = now;
    keeper.deaths = 0;
  }
  keeper.deaths++;
  keeper.failed_starts = keeper.ready ? 0 : keeper.failed_starts + 1;
}

static int64_t back_off_ms(void) {
  int64_t delay = BACK_OFF_FIRST_MS;
  if (keeper.failed_starts == 0) return 0;
  for (int i = 1; i < keeper.failed_starts && delay < BACK_OFF_MAX_MS; i++) delay *= 2;
  return delay < BACK_OFF_MAX_MS ? delay : BACK_OFF_MAX_MS;
}

static void daemon_ended(const sigset_t *mask, int status) {
  pid_t pid = keeper.child;
  bool orderly = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  keeper.child = 0;
  if (orderly || !store_is_serving()) exit(exit_status(status));
  if (keeper.terminating && !keeper.ready) give_up(mask, 0); /* it was starting: nothing is under way */
  if (keeper.terminating || keeper.stopping) {
    say("the daemon (pid %d) did not end as it should: unmounting %s", pid, keeper.mountpoint);
    give_up(mask, exit_status(status));
  }
  count_death();
  if (keeper.deaths > keeper.deaths_max || keeper.failed_starts > FAILED_STARTS_MAX) {
    say("the daemon died %d times within a minute, the last time with %s %d: unmounting %s; what it said is above, "
        "start it again with: cidfs mount",
        keeper.deaths, WIFSIGNALED(status) ? "signal" : "exit code", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
        keeper.mountpoint);
    give_up(mask, 1);
  }
  int64_t delay = back_off_ms();
  say("the daemon (pid %d) died with %s %d; %s goes on with another%s", pid, WIFSIGNALED(status) ? "signal" : "exit code",
      WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), keeper.mountpoint, delay > 0 ? " in a moment" : "");
  keeper.restart_ms = now_ms() + delay;
}

/* The command of successors: words separated by 0x1f. */
static void set_command(const char *text) {
  static char *words[WORDS_MAX + 1];
  char *copy = strdup(text), *rest = copy;
  size_t count = 0;
  if (copy == NULL) return;
  for (char *word; count < WORDS_MAX && (word = strsep(&rest, "\x1f")) != NULL;) words[count++] = word;
  words[count] = NULL;
  free(keeper.command_text);
  keeper.command_text = copy;
  keeper.command = words;
}

static void take_line(const char *line) {
  if (strcmp(line, "READY=1") == 0) keeper.ready = true, keeper.failed_starts = 0;
  else if (strcmp(line, "STOPPING=1") == 0) keeper.stopping = true;
  else if (strncmp(line, "MAINPID=", 8) == 0) keeper.child = (pid_t)atoi(line + 8);
  else if (strncmp(line, "CIDFS_COMMAND=", 14) == 0) set_command(line + 14);
}

/* The descriptor of a message, -1: none; `trusted`: from the user who mounts, or root. */
static int unpack(struct msghdr *message, bool *trusted) {
  int fd = -1;
  *trusted = false;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header != NULL; header = CMSG_NXTHDR(message, header)) {
    if (header->cmsg_level != SOL_SOCKET) continue;
    if (header->cmsg_type == SCM_RIGHTS) memcpy(&fd, CMSG_DATA(header), sizeof fd);
    if (header->cmsg_type != SCM_CREDENTIALS) continue;
    struct ucred sender;
    memcpy(&sender, CMSG_DATA(header), sizeof sender);
    *trusted = sender.uid == geteuid() || sender.uid == 0;
  }
  return fd;
}

static void take_text(char *text, int fd) {
  const char *name = "stored";
  bool is_kept = false, is_removed = false;
  keeper.beat_ms = now_ms(); /* whatever it says, it lives */
  for (char *line; (line = strsep(&text, "\n")) != NULL; take_line(line)) {
    if (strncmp(line, "FDNAME=", 7) == 0) name = line + 7;
    if (strcmp(line, "FDSTORE=1") == 0) is_kept = true;
    if (strcmp(line, "FDSTOREREMOVE=1") == 0) is_removed = true;
  }
  if (is_removed) store_forget(name);
  if (is_kept) store_keep(name, fd);
  else if (fd >= 0) close(fd);
}

static bool take_message(void) {
  static char text[MESSAGE_MAX];
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
  } control;
  struct iovec iov = {.iov_base = text, .iov_len = sizeof text - 1};
  struct msghdr message = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space};
  ssize_t length = recvmsg(keeper.notify, &message, MSG_CMSG_CLOEXEC);
  if (length < 0) return false;
  bool trusted;
  int fd = unpack(&message, &trusted);
  text[length] = 0;
  if (trusted) take_text(text, fd);
  else if (fd >= 0) close(fd);
  return true;
}

static void take_messages(void) {
  while (take_message()) {}
}

/* What a daemon said before it died comes first: who is the daemon now, what to keep. */
static void reap(const sigset_t *mask) {
  int status;
  take_messages();
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    if (pid == keeper.child) daemon_ended(mask, status);
  }
}

static void take_signal(const sigset_t *mask) {
  struct signalfd_siginfo info;
  if (read(keeper.signals, &info, sizeof info) != sizeof info) return;
  if (info.ssi_signo == SIGCHLD) {
    reap(mask);
    return;
  }
  keeper.terminating = true;
  if (keeper.child > 0) kill(keeper.child, (int)info.ssi_signo);
  else give_up(mask, 0);
}

static bool is_zombie(pid_t pid) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  FILE *file = fopen(path, "re");
  size_t length = file == NULL ? 0 : fread(text, 1, sizeof text - 1, file);
  if (file != NULL) fclose(file);
  text[length] = 0;
  const char *name_end = strrchr(text, ')');
  return name_end != NULL && strncmp(name_end, ") Z", 3) == 0;
}

/*
 * A dead daemon cannot be waited for while one of its threads waits in the kernel for an answer of that very daemon (to
 * invalidate pages that are being read). Its successor gives that answer, so it must not wait for the end of the other.
 */
static void check_zombie(const sigset_t *mask) {
  int status = SIGKILL;
  if (keeper.child <= 0 || !is_zombie(keeper.child)) {
    keeper.zombie_ms = 0;
    return;
  }
  if (keeper.zombie_ms == 0) keeper.zombie_ms = now_ms();
  bool is_over = waitpid(keeper.child, &status, WNOHANG) != 0;
  if (is_over || now_ms() - keeper.zombie_ms > ZOMBIE_MS) daemon_ended(mask, status);
}

/* A daemon that says nothing any more, and did not end itself for it; one that another process has waited for. */
static void check_watchdog(const sigset_t *mask) {
  if (keeper.child > 0 && kill(keeper.child, 0) != 0 && errno == ESRCH) daemon_ended(mask, SIGKILL);
  int64_t allowed = keeper.ready ? keeper.watchdog_ms : START_TIMEOUT_MS;
  int64_t since = keeper.ready ? keeper.beat_ms : keeper.started_ms;
  if (keeper.child <= 0 || !store_is_serving() || now_ms() - since < allowed) return;
  say("the daemon (pid %d) has not answered for %lld s: killing it", keeper.child, (long long)(allowed / 1000));
  keeper.beat_ms = keeper.started_ms = now_ms();
  kill(keeper.child, SIGKILL);
}

static int timeout_ms(void) {
  if (keeper.restart_ms == 0) return 1000;
  int64_t left = keeper.restart_ms - now_ms();
  return left < 0 ? 0 : left < 1000 ? (int)left : 1000;
}

static int run_orphan(char **command) {
  pid_t pid = fork();
  if (pid != 0) return pid < 0 ? 126 : 0;
  execvp(command[0], command);
  say("cannot run %s: %s", command[0], strerror(errno));
  _exit(127);
}

int main(int argc, char **argv) {
  sigset_t handled, mask;
  if (argc >= 3 && strcmp(argv[1], "--orphan") == 0) return run_orphan(argv + 2);
  if (argc < 3) {
    fprintf(stderr, "usage: cidfs-keeper <mountpoint> <program> <argument>...\n");
    return 2;
  }
  keeper.mountpoint = argv[1];
  keeper.command = argv + 2;
  keeper.deaths_max = (int)number_of("CIDFS_KEEPER_DEATHS", DEATHS_MAX);
  keeper.watchdog_ms = number_of("CIDFS_KEEPER_WATCHDOG_MS", WATCHDOG_MS);
  if (getenv("NODE_CHANNEL_FD") != NULL) keeper.channel = atoi(getenv("NODE_CHANNEL_FD"));
  sigemptyset(&handled);
  sigaddset(&handled, SIGCHLD);
  sigaddset(&handled, SIGTERM);
  sigaddset(&handled, SIGINT);
  sigaddset(&handled, SIGHUP);
  sigprocmask(SIG_BLOCK, &handled, &mask);
  keeper.signals = signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK);
  if (keeper.signals < 0) die("signalfd");
  /* Orphans become ours: the successors that daemons start for themselves. */
  if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) die("prctl");
  if (chdir("/") != 0) die("chdir");
  open_notify_socket();
  set_number("CIDFS_KEEPER", getpid());
  set_number("WATCHDOG_USEC", keeper.watchdog_ms * 1000);
  setenv("FDSTORE", "1", 1);
  start_daemon(&mask);
  for (;;) {
    struct pollfd polled[] = {{.fd = keeper.notify, .events = POLLIN}, {.fd = keeper.signals, .events = POLLIN}};
    if (poll(polled, 2, timeout_ms()) < 0 && errno != EINTR) die("poll");
    take_messages();
    take_signal(&mask);
    check_zombie(&mask);
    check_watchdog(&mask);
    if (keeper.restart_ms != 0 && now_ms() >= keeper.restart_ms) start_daemon(&mask);
  }
}
