/*
 * The threads of one channel: up to four that read file ranges and write replies, and one that writes
 * notifications, which may block in the kernel on the lock of an inode that a request of our own still holds.
 *
 * A crew outlives its owner when a thread of it is blocked: the last one frees it.
 */
#ifndef CIDFS_CREW_H
#define CIDFS_CREW_H

#include "common.h"

enum { HEADER_SIZE = 16, PAYLOAD_MAX = 1 << 20 };

struct range {
  int fd;
  int64_t offset;
  size_t length;
};

struct task {
  struct task *next;
  double id;
  int result;
  /* Of a reply: the payload's size. Of a notification: the message's. */
  size_t length;
  /* Ranges of a reply. 0: this is a notification. */
  uint32_t count;
  /* A reply's fuse_out_header. */
  uint8_t header[HEADER_SIZE];
  /* A notification has its message here. */
  struct range ranges[];
};

struct crew;

/* `wake` is called by a thread that finished a reply, or ended, until crew_forget_wake. */
struct crew *crew_create(int fd, void (*wake)(void *), void *wake_data);
void crew_forget_wake(struct crew *crew);
/* Undoes crew_create while nothing was submitted; the descriptor stays open. */
void crew_discard(struct crew *crew);

/* A task with room for so many ranges, or for a message of so many bytes; NULL without memory. */
struct task *task_for_ranges(uint32_t count);
struct task *task_for_message(size_t length);

/* Takes the task over; 0 or a negative errno (the task is still the caller's then). */
int crew_submit(struct crew *crew, struct task *task);

/* The finished replies, oldest first, for the caller to free. */
struct task *crew_collect(struct crew *crew);

/* No new work. What is queued fails with -ECANCELED. */
void crew_close(struct crew *crew);
bool crew_is_idle(struct crew *crew);

/* The owner goes; the descriptor is closed when the last thread has ended, now if none is left. */
void crew_release(struct crew *crew);

/* A buffer of HEADER_SIZE + PAYLOAD_MAX whose payload part is page-aligned, and what to free. */
uint8_t *reply_buffer(void **allocation);

/* write(2) of one whole message to /dev/fuse: 0 or a negative errno. */
int device_write(int fd, const void *message, size_t length);

#endif
