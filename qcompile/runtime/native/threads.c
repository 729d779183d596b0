/* Threads that share the parallel loops of generated code. Between the loops of a call they spin for a moment, since
 * waking a thread takes longer than most gaps; then they sleep. */
#define _GNU_SOURCE 1
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

enum { SPIN_NS = 100000 };

typedef struct { /* TVM's TVMParallelGroupEnv */
  void *sync;
  int32_t tasks;
} Group;

typedef int (*Task)(int number, void *group, void *data);

struct qc_pool {
  int threads, spins;
  pthread_t *workers;
  /* the loop under way, written before `round` is increased */
  Task task;
  void *data;
  Group group;
  int stop;
  /* atomic: loops so far, workers that have not finished this one, workers that sleep, the first status but 0 */
  int round, working, sleeping, status;
  char message[1024]; /* of the task with that status */
};

typedef struct {
  qc_pool *pool;
  int number;
} Start;

static __thread qc_pool *used;

static long long nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void pause_a_little(void) {
#if defined(__aarch64__)
  __asm__ volatile("yield");
#else
  __asm__ volatile("pause");
#endif
}

/* Tasks number, number + threads, ... of the loop; with few tasks one or none. */
static void work(qc_pool *pool, int number) {
  for (int i = number; i < pool->group.tasks; i += pool->threads) {
    int status = pool->task(i, &pool->group, pool->data), none = 0;
    if (status && __atomic_compare_exchange_n(&pool->status, &none, status, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
      const char *said = qc_error();
      for (size_t c = 0; c + 1 < sizeof pool->message && (pool->message[c] = said[c]); c++) pool->message[c + 1] = 0;
    }
  }
}

static int changed(const qc_pool *pool, int seen) { return __atomic_load_n(&pool->round, __ATOMIC_SEQ_CST) != seen; }

static void await(qc_pool *pool, int seen) {
  for (long long end = pool->spins ? nanoseconds() + SPIN_NS : 0; end && nanoseconds() < end;)
    for (int i = 0; i < 64; i++) {
      if (changed(pool, seen)) return;
      pause_a_little();
    }
  __atomic_fetch_add(&pool->sleeping, 1, __ATOMIC_SEQ_CST);
  while (!changed(pool, seen)) syscall(SYS_futex, &pool->round, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
  __atomic_fetch_sub(&pool->sleeping, 1, __ATOMIC_SEQ_CST);
}

static void *worker(void *argument) {
  Start start = *(Start *)argument;
  free(argument);
  for (int seen = 0;; seen++) {
    await(start.pool, seen);
    if (start.pool->stop) return NULL;
    work(start.pool, start.number);
    __atomic_fetch_sub(&start.pool->working, 1, __ATOMIC_SEQ_CST);
  }
}

static void begin_round(qc_pool *pool) {
  __atomic_fetch_add(&pool->round, 1, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&pool->sleeping, __ATOMIC_SEQ_CST))
    syscall(SYS_futex, &pool->round, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

qc_pool *qc_pool_new(int threads) {
  if (threads < 2) return NULL;
  qc_pool *pool = (qc_pool *)calloc(1, sizeof *pool);
  if (!pool || !(pool->workers = (pthread_t *)calloc((size_t)threads, sizeof *pool->workers))) {
    free(pool);
    return NULL;
  }
  pool->spins = threads <= sysconf(_SC_NPROCESSORS_ONLN);
  for (pool->threads = 1; pool->threads < threads; pool->threads++) {
    Start *start = (Start *)malloc(sizeof *start);
    if (!start) break;
    start->pool = pool, start->number = pool->threads;
    if (pthread_create(&pool->workers[pool->threads], NULL, worker, start)) {
      free(start);
      break;
    }
  }
  if (pool->threads > 1) return pool;
  qc_pool_delete(pool);
  return NULL;
}

void qc_pool_delete(qc_pool *pool) {
  if (!pool) return;
  pool->stop = 1;
  begin_round(pool);
  for (int i = 1; i < pool->threads; i++) pthread_join(pool->workers[i], NULL);
  free(pool->workers);
  free(pool);
}

void qc_use_pool(qc_pool *pool) { used = pool; }

/* TVM's TVMBackendParallelLaunch. tasks: 0 for as many as there are threads. */
int qc_parallel(Task task, void *data, int tasks) {
  qc_pool *pool = used;
  Group group = {NULL, tasks > 0 ? tasks : pool ? pool->threads : 1};
  if (!pool) {
    for (int i = 0, status; i < group.tasks; i++)
      if ((status = task(i, &group, data))) return status;
    return 0;
  }
  used = NULL; /* a loop in a loop is not shared */
  pool->task = task, pool->data = data, pool->group = group, pool->status = 0;
  __atomic_store_n(&pool->working, pool->threads - 1, __ATOMIC_SEQ_CST);
  begin_round(pool);
  work(pool, 0);
  for (int spins = 0; __atomic_load_n(&pool->working, __ATOMIC_SEQ_CST); spins++)
    if (pool->spins && spins < 4096) pause_a_little();
    else sched_yield();
  used = pool;
  if (pool->status) qc_set_error(pool->message);
  return pool->status;
}
