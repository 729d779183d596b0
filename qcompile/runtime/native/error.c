/* The last error of a thread. */
#include <stdarg.h>
#include <stdio.h>

#include "internal.h"

static __thread char message[1024];

int qc_fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  return -1;
}

void qc_set_error(const char *text) { snprintf(message, sizeof message, "%s", text); }

const char *qc_error(void) { return message; }
