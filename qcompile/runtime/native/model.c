/* A model: its tensors, as model.txt describes them, its weights, and the function of its library.
 *
 * model.txt, one fact a line, arguments in the order of the call:
 *
 *     format 1
 *     machine aarch64
 *     target arm-dotprod
 *     feature asimddp
 *     threads 2                                  1 if this is not there
 *     input float32 4 1 3 224 224 image          dtype, rank, extents, name
 *     output float32 2 1 1000 scores
 *     weights 40064                              bytes
 *     workspace 7985
 *     entry profile                              function to call, "main" if none is named
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"

enum { FORMAT = 1, RANK = 8, GUARD = 64, ALIGNMENT = 64 };

typedef struct { /* DLTensor, as DLPack defines it */
  void *data;
  int32_t device_type, device_id, ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} Tensor;

typedef struct { /* TVMFFIAny */
  int32_t type;
  uint32_t zero;
  void *pointer;
} Any;

typedef int (*Function)(void *self, const Any *args, int32_t count, Any *result);

enum Kind { INPUT, OUTPUT, WEIGHTS, WORKSPACE, KINDS };
static const char *const kind_names[KINDS] = {"input", "output", "weights", "workspace"};

typedef struct {
  enum Kind kind;
  size_t mapped; /* bytes of a mapping; 0 for memory that is followed by guard bytes */
  int64_t shape[RANK];
  qc_tensor info;
  Tensor tensor;
} Argument;

struct qc_model {
  char *text;
  const char *entry;
  int threads, count;
  Argument **arguments;
  Any *packed;
  qc_library library;
  Function run;
  qc_pool *pool;
};

static int set_dtype(Argument *a, const char *dtype) {
  static const struct {
    const char *name;
    int code;
  } kinds[] = {{"int", 0}, {"uint", 1}, {"float", 2}, {"bfloat", 4}, {"bool", 6}};
  size_t letters = strcspn(dtype, "0123456789");
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (strlen(kinds[i].name) == letters && !strncmp(kinds[i].name, dtype, letters)) {
      a->tensor.code = (uint8_t)kinds[i].code;
      a->tensor.bits = dtype[letters] ? (uint8_t)atoi(dtype + letters) : 8;
      a->tensor.lanes = 1;
      return 0;
    }
  return qc_fail("unknown dtype '%s'", dtype);
}

static int allocate(Argument *a) {
  size_t bytes = a->info.bytes;
  if (posix_memalign(&a->info.data, ALIGNMENT, bytes + GUARD)) return qc_fail("not enough memory for %zu bytes", bytes);
  /* NaN: reading too early shows */
  memset(a->info.data, a->kind == INPUT ? 0 : 0xFF, bytes);
  memset((char *)a->info.data + bytes, 0xA5, GUARD);
  return 0;
}

/* Weights are mapped from their file: pages that are not used are not read, and processes share them. An empty page
 * comes behind them, since kernels may read whole vectors across the end. */
static int map_weights(Argument *a, const char *path) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = a->info.bytes;
  a->mapped = (bytes + page - 1) / page * page + page;
  void *memory = mmap(NULL, a->mapped, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return a->mapped = 0, qc_fail("%s: %s", path, strerror(errno));
  a->info.data = memory;
  int file = open(path, O_RDONLY);
  if (file < 0) return qc_fail("%s: %s", path, strerror(errno));
  off_t size = lseek(file, 0, SEEK_END);
  int status = size != (off_t)bytes ? qc_fail("%s: %lld bytes, not %zu", path, (long long)size, bytes) : 0;
  if (!status && bytes && mmap(memory, bytes, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 0) == MAP_FAILED)
    status = qc_fail("%s: %s", path, strerror(errno));
  close(file);
  return status;
}

/* "float32 4 1 3 224 224 image" or "40064" becomes an argument of the call. */
static int add_argument(qc_model *model, enum Kind kind, char *rest, const char *folder) {
  char path[4096];
  Argument *a = (Argument *)calloc(1, sizeof *a);
  Argument **grown = (Argument **)realloc(model->arguments, (size_t)(model->count + 1) * sizeof *grown);
  if (grown) model->arguments = grown;
  if (!a || !grown) return free(a), qc_fail("not enough memory");
  grown[model->count++] = a;
  a->kind = kind;
  if (kind == WEIGHTS || kind == WORKSPACE) {
    a->info.name = kind_names[kind], a->info.dtype = "uint8", a->info.rank = 1;
    a->shape[0] = atoll(rest);
  } else {
    char *end = strchr(rest, ' ');
    if (!end) return qc_fail("model.txt: a line is cut short");
    *end = 0;
    a->info.dtype = rest;
    a->info.rank = (int32_t)strtol(end + 1, &end, 10);
    if (a->info.rank < 0 || a->info.rank > RANK) return qc_fail("model.txt: a rank that is none");
    for (int i = 0; i < a->info.rank; i++) a->shape[i] = strtoll(end, &end, 10);
    a->info.name = end + (*end == ' ');
  }
  if (set_dtype(a, a->info.dtype)) return -1;
  int64_t count = 1;
  for (int i = 0; i < a->info.rank; i++) count *= a->shape[i];
  a->info.shape = a->tensor.shape = a->shape;
  a->info.bytes = (size_t)count * a->tensor.bits / 8;
  snprintf(path, sizeof path, "%s/weights.bin", folder);
  if (kind == WEIGHTS ? map_weights(a, path) : allocate(a)) return -1;
  a->tensor.device_type = 1;
  a->tensor.ndim = a->info.rank;
  a->tensor.data = a->info.data;
  return 0;
}

static int read_line(qc_model *model, char *line, const char *folder, char **target) {
  char *rest = strchr(line, ' ');
  if (!rest) return 0;
  *rest++ = 0;
  if (!strcmp(line, "format") && atoi(rest) != FORMAT) return qc_fail("%s: made by a newer qcompile", folder);
  if (!strcmp(line, "target")) *target = rest;
  if (!strcmp(line, "entry")) model->entry = rest;
  if (!strcmp(line, "threads") && !model->threads) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    model->threads = atoi(rest) < cores ? atoi(rest) : (int)cores;
  }
  if (!strcmp(line, "machine") && strcmp(rest, QC_MACHINE))
    return qc_fail("built for %s, this machine is %s", rest, QC_MACHINE);
  if (!strcmp(line, "feature") && !qc_has_feature(rest))
    return qc_fail("built for %s, and this CPU lacks %s", *target, rest);
  for (int kind = 0; kind < KINDS; kind++)
    if (!strcmp(line, kind_names[kind])) return add_argument(model, (enum Kind)kind, rest, folder);
  return 0;
}

static int read_description(qc_model *model, const char *folder) {
  char path[4096], nothing[] = "";
  snprintf(path, sizeof path, "%s/model.txt", folder);
  FILE *file = fopen(path, "r");
  if (!file) return qc_fail("%s: %s", path, strerror(errno));
  fseek(file, 0, SEEK_END);
  long size = ftell(file);
  rewind(file);
  if (size >= 0) model->text = (char *)calloc(1, (size_t)size + 1);
  size_t got = model->text ? fread(model->text, 1, (size_t)size, file) : 0;
  fclose(file);
  if (!model->text || got != (size_t)size) return qc_fail("%s: cannot be read", path);
  if (strncmp(model->text, "format ", 7)) return qc_fail("%s: not one of qcompile's", path);
  char *target = nothing;
  for (char *line = model->text, *next; line; line = next) {
    if ((next = strchr(line, '\n'))) *next++ = 0;
    if (read_line(model, line, folder, &target)) return -1;
  }
  return 0;
}

static int prepare(qc_model *model, const char *folder) {
  char path[4096], name[256];
  if (read_description(model, folder)) return -1;
  model->packed = (Any *)calloc((size_t)model->count + 1, sizeof *model->packed);
  if (!model->packed) return qc_fail("not enough memory");
  for (int i = 0; i < model->count; i++) {
    model->packed[i].type = 7; /* kTVMFFIDLTensorPtr */
    model->packed[i].pointer = &model->arguments[i]->tensor;
  }
  snprintf(path, sizeof path, "%s/model.so", folder);
  if (qc_load(&model->library, path)) return -1;
  snprintf(name, sizeof name, "__tvm_ffi_%s", model->entry);
  model->run = (Function)(uintptr_t)qc_find(&model->library, name);
  if (!model->run) return qc_fail("%s has no function '%s'", path, model->entry);
  model->pool = qc_pool_new(model->threads);
  return 0;
}

qc_model *qc_open(const char *folder, int threads) {
  qc_model *model = (qc_model *)calloc(1, sizeof *model);
  if (!model) return qc_fail("not enough memory"), (qc_model *)NULL;
  model->threads = threads > 0 ? threads : 0;
  model->entry = "main";
  if (!prepare(model, folder)) return model;
  qc_close(model);
  return NULL;
}

int qc_run(qc_model *model) {
  Any result = {0, 0, NULL};
  qc_use_pool(model->pool);
  int status = model->run(NULL, model->packed, model->count, &result);
  qc_use_pool(NULL);
  return status;
}

static int count_of(const qc_model *model, enum Kind kind) {
  int found = 0;
  for (int i = 0; i < model->count; i++) found += model->arguments[i]->kind == kind;
  return found;
}

static const qc_tensor *tensor_of(const qc_model *model, enum Kind kind, int number) {
  for (int i = 0; i < model->count; i++)
    if (model->arguments[i]->kind == kind && !number--) return &model->arguments[i]->info;
  qc_fail("the model has %d %ss", count_of(model, kind), kind_names[kind]);
  return NULL;
}

int qc_inputs(const qc_model *model) { return count_of(model, INPUT); }
int qc_outputs(const qc_model *model) { return count_of(model, OUTPUT); }
const qc_tensor *qc_input(const qc_model *model, int number) { return tensor_of(model, INPUT, number); }
const qc_tensor *qc_output(const qc_model *model, int number) { return tensor_of(model, OUTPUT, number); }

int qc_check(const qc_model *model) {
  for (int i = 0; i < model->count; i++) {
    const Argument *a = model->arguments[i];
    const unsigned char *guard = (const unsigned char *)a->info.data + a->info.bytes;
    for (int at = 0; at < GUARD && !a->mapped; at++)
      if (guard[at] != 0xA5) return qc_fail("the model wrote %d bytes behind its %s", at + 1, kind_names[a->kind]);
  }
  return 0;
}

void qc_close(qc_model *model) {
  if (!model) return;
  qc_pool_delete(model->pool);
  qc_unload(&model->library);
  for (int i = 0; i < model->count; i++) {
    Argument *a = model->arguments[i];
    if (a->mapped) munmap(a->info.data, a->mapped);
    else free(a->info.data);
    free(a);
  }
  free(model->arguments);
  free(model->packed);
  free(model->text);
  free(model);
}
