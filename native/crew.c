/* See crew.h. All fields of a crew but `fd` are guarded by its lock; no lock is held across a system call. */
#include "crew.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { REPLY_THREADS = 4, NOTIFY_THREADS = 1, PAGE = 4096 };

struct queue {
  struct task *first, **last;
  unsigned length;
};

/* Threads that serve one queue. */
struct shift {
  struct crew *crew;
  struct queue queue;
  pthread_cond_t arrived;
  unsigned limit, started, idle;
  pthread_t threads[REPLY_THREADS];
};

struct crew {
  pthread_mutex_t lock;
  int fd;
  bool closing, owned;
  unsigned live;
  struct shift replies, notices;
  struct queue done;
  void (*wake)(void *);
  void *wake_data;
};

static void queue_clear(struct queue *queue) {
  queue->first = NULL;
  queue->last = &queue->first;
  queue->length = 0;
}

static void queue_push(struct queue *queue, struct task *task) {
  task->next = NULL;
  *queue->last = task;
  queue->last = &task->next;
  queue->length++;
}

static struct task *queue_shift(struct queue *queue) {
  struct task *task = queue->first;
  if (task == NULL) return NULL;
  queue->first = task->next;
  queue->length--;
  if (queue->first == NULL) queue->last = &queue->first;
  return task;
}

static void free_tasks(struct task *task) {
  while (task != NULL) {
    struct task *next = task->next;
    free(task);
    task = next;
  }
}

struct task *task_for_ranges(uint32_t count) {
  struct task *task = calloc(1, sizeof(struct task) + count * sizeof(struct range));
  if (task != NULL) task->count = count;
  return task;
}

struct task *task_for_message(size_t length) {
  struct task *task = calloc(1, sizeof(struct task) + length);
  if (task != NULL) task->length = length;
  return task;
}

uint8_t *reply_buffer(void **allocation) {
  if (posix_memalign(allocation, PAGE, PAGE + PAYLOAD_MAX) != 0) return *allocation = NULL;
  return (uint8_t *)*allocation + PAGE - HEADER_SIZE;
}

int device_write(int fd, const void *message, size_t length) {
  ssize_t written;
  do written = write(fd, message, length);
  while (written < 0 && errno == EINTR);
  return written < 0 ? -errno : 0;
}

static int read_range(const struct range *range, uint8_t *into) {
  size_t done = 0;
  while (done < range->length) {
    ssize_t n = pread(range->fd, into + done, range->length - done, range->offset + (int64_t)done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    if (n == 0) return -EIO; /* the file is shorter than promised */
    done += (size_t)n;
  }
  return 0;
}

static int read_ranges(const struct task *task, uint8_t *into) {
  for (uint32_t i = 0; i < task->count; i++) {
    int result = read_range(&task->ranges[i], into);
    if (result < 0) return result;
    into += task->ranges[i].length;
  }
  return 0;
}

/* Whatever was the matter with our files, the caller of read(2) learns EIO. */
static void reply_error(int fd, const struct task *task) {
  uint8_t header[HEADER_SIZE];
  const uint32_t length = HEADER_SIZE;
  const int32_t error = -EIO;
  memcpy(header, task->header, HEADER_SIZE);
  memcpy(header, &length, sizeof length);
  memcpy(header + 4, &error, sizeof error);
  device_write(fd, header, HEADER_SIZE);
}

/* A reply that the kernel no longer wants (interrupted, unmounted) is not an error of ours. */
static int run_reply(int fd, const struct task *task, uint8_t *buffer) {
  if (buffer == NULL) {
    reply_error(fd, task);
    return -ENOMEM;
  }
  int result = read_ranges(task, buffer + HEADER_SIZE);
  if (result < 0) {
    reply_error(fd, task);
    return result;
  }
  memcpy(buffer, task->header, HEADER_SIZE);
  device_write(fd, buffer, HEADER_SIZE + task->length);
  return 0;
}

void crew_discard(struct crew *crew) {
  free_tasks(crew->done.first);
  pthread_cond_destroy(&crew->replies.arrived);
  pthread_cond_destroy(&crew->notices.arrived);
  pthread_mutex_destroy(&crew->lock);
  free(crew);
}

static void crew_free(struct crew *crew) {
  close(crew->fd);
  crew_discard(crew);
}

/* Called with the lock held. */
static void finish(struct crew *crew, struct task *task) {
  if (task->count == 0) {
    free(task);
    return;
  }
  queue_push(&crew->done, task);
  if (crew->wake != NULL) crew->wake(crew->wake_data);
}

/* Called with the lock held; NULL when the crew closes. */
static struct task *next_task(struct shift *shift) {
  while (shift->queue.first == NULL && !shift->crew->closing) {
    shift->idle++;
    pthread_cond_wait(&shift->arrived, &shift->crew->lock);
    shift->idle--;
  }
  return queue_shift(&shift->queue);
}

static void *work(void *data) {
  struct shift *shift = data;
  struct crew *crew = shift->crew;
  struct task *task;
  void *allocation = NULL;
  uint8_t *buffer = shift == &crew->replies ? reply_buffer(&allocation) : NULL;
  pthread_mutex_lock(&crew->lock);
  while ((task = next_task(shift)) != NULL) {
    pthread_mutex_unlock(&crew->lock);
    if (task->count == 0) device_write(crew->fd, task->ranges, task->length);
    else task->result = run_reply(crew->fd, task, buffer);
    pthread_mutex_lock(&crew->lock);
    finish(crew, task);
  }
  free(allocation);
  bool last = --crew->live == 0;
  bool owned = crew->owned;
  if (last && crew->wake != NULL) crew->wake(crew->wake_data);
  pthread_mutex_unlock(&crew->lock);
  if (last && !owned) crew_free(crew);
  return NULL;
}

/* Signals are Node's business: the new thread takes none. Called with the lock held. */
static int start_thread(struct shift *shift) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int result = -pthread_create(&shift->threads[shift->started], NULL, work, shift);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (result < 0) return result;
  shift->started++;
  shift->crew->live++;
  return 0;
}

int crew_submit(struct crew *crew, struct task *task) {
  struct shift *shift = task->count == 0 ? &crew->notices : &crew->replies;
  int result = 0;
  pthread_mutex_lock(&crew->lock);
  if (crew->closing) result = -ECANCELED;
  else if (shift->idle <= shift->queue.length && shift->started < shift->limit) result = start_thread(shift);
  if (result == -EAGAIN && shift->started > 0) result = 0;
  if (result == 0) {
    queue_push(&shift->queue, task);
    pthread_cond_signal(&shift->arrived);
  }
  pthread_mutex_unlock(&crew->lock);
  return result;
}

struct task *crew_collect(struct crew *crew) {
  pthread_mutex_lock(&crew->lock);
  struct task *tasks = crew->done.first;
  queue_clear(&crew->done);
  pthread_mutex_unlock(&crew->lock);
  return tasks;
}

static void shift_init(struct shift *shift, struct crew *crew, unsigned limit) {
  shift->crew = crew;
  shift->limit = limit;
  queue_clear(&shift->queue);
  pthread_cond_init(&shift->arrived, NULL);
}

struct crew *crew_create(int fd, void (*wake)(void *), void *wake_data) {
  struct crew *crew = calloc(1, sizeof *crew);
  if (crew == NULL) return NULL;
  pthread_mutex_init(&crew->lock, NULL);
  crew->fd = fd;
  crew->owned = true;
  crew->wake = wake;
  crew->wake_data = wake_data;
  queue_clear(&crew->done);
  shift_init(&crew->replies, crew, REPLY_THREADS);
  shift_init(&crew->notices, crew, NOTIFY_THREADS);
  return crew;
}

void crew_forget_wake(struct crew *crew) {
  pthread_mutex_lock(&crew->lock);
  crew->wake = NULL;
  pthread_mutex_unlock(&crew->lock);
}

void crew_close(struct crew *crew) {
  struct task *task;
  pthread_mutex_lock(&crew->lock);
  crew->closing = true;
  while ((task = queue_shift(&crew->notices.queue)) != NULL) free(task);
  while ((task = queue_shift(&crew->replies.queue)) != NULL) {
    task->result = -ECANCELED;
    finish(crew, task);
  }
  pthread_cond_broadcast(&crew->replies.arrived);
  pthread_cond_broadcast(&crew->notices.arrived);
  pthread_mutex_unlock(&crew->lock);
}

bool crew_is_idle(struct crew *crew) {
  pthread_mutex_lock(&crew->lock);
  bool idle = crew->live == 0;
  pthread_mutex_unlock(&crew->lock);
  return idle;
}

static void leave(struct shift *shift, bool ended) {
  for (unsigned i = 0; i < shift->started; i++) {
    if (ended) pthread_join(shift->threads[i], NULL);
    else pthread_detach(shift->threads[i]);
  }
}

void crew_release(struct crew *crew) {
  pthread_mutex_lock(&crew->lock);
  bool ended = crew->live == 0;
  /* While the lock is held no thread can free the crew under our feet. */
  if (!ended) {
    leave(&crew->replies, false);
    leave(&crew->notices, false);
  }
  crew->owned = false;
  pthread_mutex_unlock(&crew->lock);
  if (!ended) return;
  leave(&crew->replies, true);
  leave(&crew->notices, true);
  crew_free(crew);
}
