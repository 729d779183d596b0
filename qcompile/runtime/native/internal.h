/* What the files of the runtime share. They are C99 that a C++ compiler takes, too. */
#ifndef QCOMPILE_INTERNAL_H
#define QCOMPILE_INTERNAL_H

#include "qcompile.h"

#if defined(__aarch64__)
#define QC_MACHINE "aarch64"
#elif defined(__x86_64__)
#define QC_MACHINE "x86_64"
#else
#error "for AArch64 and x86-64"
#endif

/* error.c */
int qc_fail(const char *format, ...) __attribute__((format(printf, 1, 2))); /* sets qc_error; returns -1 */
void qc_set_error(const char *text);

/* features.c: whether this CPU, and its system, has what a word of /proc/cpuinfo names */
int qc_has_feature(const char *word);

/* symbols.c: address of a function that generated code may call, NULL if it is not here */
void *qc_symbol(const char *name);

/* loader.c: a shared library in memory, of which nothing but one function is known */
typedef struct {
  char *base;
  size_t bytes;
} qc_library;
int qc_load(qc_library *library, const char *path);
void *qc_find(const qc_library *library, const char *name);
void qc_unload(qc_library *library);

/* threads.c: parallel loops that the calling thread starts are shared by the pool that it uses, if any */
typedef struct qc_pool qc_pool;
qc_pool *qc_pool_new(int threads); /* NULL for one thread, or where the system has no more */
void qc_pool_delete(qc_pool *pool);
void qc_use_pool(qc_pool *pool);
int qc_parallel(int (*task)(int number, void *group, void *data), void *data, int tasks);

#endif
