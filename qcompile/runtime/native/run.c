/* The model of a folder on files, from the command line:
 *
 *     run FOLDER [--repeat N] [--threads N] FILE...
 *
 * FILEs are raw arrays, little-endian and C-contiguous: one to read for each input, then one to write for each output.
 * The time of a call, the fastest of N, is printed. Exit status: 0, 1 when the model fails, 2 when it cannot be run.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "qcompile.h"

static int stop(int status, const char *what, const char *why) {
  fprintf(stderr, "error: %s%s%s\n", what, *what ? ": " : "", why);
  exit(status);
}

static void read_tensor(const char *path, const qc_tensor *tensor) {
  FILE *file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END)) stop(2, path, strerror(errno));
  long size = ftell(file);
  char wrong[128];
  snprintf(wrong, sizeof wrong, "%ld bytes, not %zu", size, tensor->bytes);
  if (size != (long)tensor->bytes) stop(2, path, wrong);
  rewind(file);
  if (fread(tensor->data, 1, tensor->bytes, file) != tensor->bytes) stop(2, path, "cannot be read");
  fclose(file);
}

static void write_tensor(const char *path, const qc_tensor *tensor) {
  FILE *file = fopen(path, "wb");
  if (!file || fwrite(tensor->data, 1, tensor->bytes, file) != tensor->bytes || fclose(file))
    stop(2, path, strerror(errno));
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int main(int argc, char **argv) {
  int next = 2, repeat = 1, threads = 0;
  if (argc < 2 || argv[1][0] == '-') stop(2, "usage", "run FOLDER [--repeat N] [--threads N] FILE...");
  for (; next + 1 < argc; next += 2) {
    if (!strcmp(argv[next], "--repeat")) repeat = atoi(argv[next + 1]);
    else if (!strcmp(argv[next], "--threads")) threads = atoi(argv[next + 1]);
    else break;
  }
  qc_model *model = qc_open(argv[1], threads);
  if (!model) stop(2, "", qc_error());
  int inputs = qc_inputs(model), outputs = qc_outputs(model);
  char wrong[128];
  snprintf(wrong, sizeof wrong, "%d files given, the model has %d inputs and outputs", argc - next, inputs + outputs);
  if (argc - next != inputs + outputs) stop(2, "", wrong);
  for (int i = 0; i < inputs; i++) read_tensor(argv[next++], qc_input(model, i));
  double best = HUGE_VAL;
  for (int i = 0; i < repeat; i++) {
    double start = seconds();
    if (qc_run(model)) stop(1, "", qc_error());
    double time = seconds() - start;
    if (time < best) best = time;
  }
  if (qc_check(model)) stop(1, "", qc_error());
  for (int i = 0; i < outputs; i++) write_tensor(argv[next++], qc_output(model, i));
  printf("%d calls, the fastest took %.1f us\n", repeat, 1e6 * best);
  qc_close(model);
  return 0;
}
