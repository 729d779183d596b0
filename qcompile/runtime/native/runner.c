/* Runs a built model where there is neither Python nor TVM:
 *
 *     runner MODEL [--repeat N] FILE...
 *
 * MODEL is a folder with model.txt (what to call it with, see below), model.so and, if the model has any, weights.bin.
 * FILEs are raw arrays, little-endian and C-contiguous: one to read for each input, then one to write for each output.
 * The time of a call, the fastest of N, is printed.
 *
 * model.txt, one fact a line, arguments in the order of the call:
 *
 *     format 1
 *     machine aarch64
 *     target arm-dotprod
 *     feature asimddp
 *     input float32 4 1 3 224 224 image          dtype, rank, extents, name
 *     output float32 2 1 1000 scores
 *     weights 40064                              bytes
 *     workspace 7985
 *     entry profile                              function to call, "main" if none is named
 *
 * The library is loaded by the few lines of `load_library`, so a static executable will do: it needs a handful of
 * functions (`known`), and one that needs more is refused by name. Exit status: 0, 1 when the model fails, 2 when it
 * cannot be run here. Every buffer is followed by guard bytes, which must be untouched in the end.
 */
#include <elf.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

enum { MOST = 256, RANK = 8, GUARD = 64, ALIGNMENT = 64 };
static const unsigned char GUARD_BYTE = 0xA5;

static void stop(int status, const char *format, ...) {
  va_list args;
  va_start(args, format);
  fputs("error: ", stderr);
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
  va_end(args);
  exit(status);
}

static void *memory(size_t bytes) {
  void *p = aligned_alloc(ALIGNMENT, (bytes + GUARD + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
  if (!p) stop(2, "not enough memory for %zu bytes", bytes);
  return p;
}

/* ---- What a library may call ------------------------------------------------------------------------------------ */

static char message[1024];

static void set_error(const char *kind, const char **parts, int32_t count) {
  snprintf(message, sizeof message, "%s: ", kind);
  for (int i = 0; i < count; i++)
    if (parts[i]) strncat(message, parts[i], sizeof message - strlen(message) - 1);
}

static void *alloc_workspace(int device_type, int device, uint64_t bytes, int code, int bits) {
  (void)device_type, (void)device, (void)code, (void)bits;
  return memory(bytes);
}

static int free_workspace(int device_type, int device, void *p) {
  (void)device_type, (void)device;
  free(p);
  return 0;
}

typedef struct {
  void *sync;
  int32_t tasks;
} Group;

/* The tasks of a parallel loop, one after the other. */
static int parallel_launch(int (*task)(int, Group *, void *), void *data, int tasks) {
  Group group = {NULL, tasks > 0 ? tasks : 1};
  for (int i = 0; i < group.tasks; i++) {
    int status = task(i, &group, data);
    if (status) return status;
  }
  return 0;
}

#define SAME(f) {#f, (void *)(uintptr_t)f}
static const struct {
  const char *name;
  void *address;
} known[] = {
    {"TVMFFIErrorSetRaisedFromCStrParts", (void *)(uintptr_t)set_error},
    {"TVMBackendAllocWorkspace", (void *)(uintptr_t)alloc_workspace},
    {"TVMBackendFreeWorkspace", (void *)(uintptr_t)free_workspace},
    {"TVMBackendParallelLaunch", (void *)(uintptr_t)parallel_launch},
    SAME(memcpy),  SAME(memmove), SAME(memset), SAME(memcmp),  SAME(expf),   SAME(exp2f),  SAME(expm1f), SAME(logf),
    SAME(log2f),   SAME(log10f),  SAME(log1pf), SAME(powf),    SAME(sqrtf),  SAME(tanhf),  SAME(sinhf),  SAME(coshf),
    SAME(sinf),    SAME(cosf),    SAME(tanf),   SAME(asinf),   SAME(acosf),  SAME(atanf),  SAME(atan2f), SAME(asinhf),
    SAME(acoshf),  SAME(atanhf),  SAME(erff),   SAME(erfcf),   SAME(fmodf),  SAME(floorf), SAME(ceilf),  SAME(roundf),
    SAME(truncf),  SAME(rintf),   SAME(nearbyintf), SAME(lrintf), SAME(fmaf), SAME(fminf), SAME(fmaxf),  SAME(ldexpf),
    SAME(hypotf),  SAME(exp),     SAME(log),    SAME(pow),     SAME(sqrt),   SAME(tanh),   SAME(erf),    SAME(floor),
    SAME(ceil),    SAME(round),   SAME(trunc),  SAME(rint),    SAME(fmod),   SAME(sin),    SAME(cos),    SAME(fma),
};

/* ---- Loading a shared library: segments into memory, addresses into its tables ---------------------------------- */

#if defined(__aarch64__)
enum { MACHINE = EM_AARCH64, RELATIVE = 1027, GLOB_DAT = 1025, JUMP_SLOT = 1026, ABSOLUTE = 257 };
static const char HERE[] = "aarch64";
#elif defined(__x86_64__)
enum { MACHINE = EM_X86_64, RELATIVE = 8, GLOB_DAT = 6, JUMP_SLOT = 7, ABSOLUTE = 1 };
static const char HERE[] = "x86_64";
#else
#error "for AArch64 and x86-64"
#endif

static char *read_file(const char *path, size_t *bytes) {
  FILE *file = fopen(path, "rb");
  struct stat info;
  if (!file || fstat(fileno(file), &info)) stop(2, "%s: %s", path, strerror(errno));
  *bytes = (size_t)info.st_size;
  char *data = memory(*bytes);
  if (fread(data, 1, *bytes, file) != *bytes) stop(2, "%s: cannot be read", path);
  fclose(file);
  return data;
}

static void *resolve(const char *path, const char *name, int weak) {
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (!strcmp(known[i].name, name)) return known[i].address;
  if (!weak) stop(2, "%s calls '%s', which this runner does not have; load it with TVM's runtime", path, name);
  return NULL;
}

typedef struct {
  char *base;
  const Elf64_Sym *symbols;
  const char *strings;
  const uint32_t *hash;
} Library;

static void relocate(const Library *lib, const char *path, const Elf64_Rela *entry, size_t bytes) {
  for (const Elf64_Rela *end = entry + bytes / sizeof *entry; entry < end; entry++) {
    uint64_t *place = (uint64_t *)(lib->base + entry->r_offset), value = (uint64_t)entry->r_addend;
    uint32_t type = ELF64_R_TYPE(entry->r_info), index = ELF64_R_SYM(entry->r_info);
    if (type == RELATIVE) {
      *place = (uint64_t)(uintptr_t)lib->base + value;
      continue;
    }
    if (type != GLOB_DAT && type != JUMP_SLOT && type != ABSOLUTE) stop(2, "%s: unknown relocation %u", path, type);
    const Elf64_Sym *symbol = &lib->symbols[index];
    const char *name = lib->strings + symbol->st_name;
    void *address = symbol->st_shndx ? lib->base + symbol->st_value
                                     : resolve(path, name, ELF64_ST_BIND(symbol->st_info) == STB_WEAK);
    if (symbol->st_shndx && !strncmp(name, "__TVM", 5)) /* a variable for the address of a function of the runtime */
      *(void **)address = resolve(path, name + 2, 0);
    *place = (uint64_t)(uintptr_t)address + (type == ABSOLUTE ? value : 0);
  }
}

/* Base address and tables of the library. */
static Library load_library(const char *path) {
  size_t bytes;
  char *file = read_file(path, &bytes);
  const Elf64_Ehdr *head = (const Elf64_Ehdr *)file;
  if (bytes < sizeof *head || memcmp(head->e_ident, ELFMAG, SELFMAG) || head->e_machine != MACHINE)
    stop(2, "%s: not a shared library for %s", path, HERE);
  const Elf64_Phdr *parts = (const Elf64_Phdr *)(file + head->e_phoff), *dynamic = NULL;
  size_t span = 0;
  for (int i = 0; i < head->e_phnum; i++) {
    size_t end = parts[i].p_vaddr + parts[i].p_memsz;
    if (parts[i].p_type == PT_LOAD && end > span) span = end;
    if (parts[i].p_type == PT_DYNAMIC) dynamic = &parts[i];
    if (parts[i].p_type == PT_TLS) stop(2, "%s has thread-local variables; load it with TVM's runtime", path);
  }
  Library lib = {mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), NULL, NULL, NULL};
  if (lib.base == MAP_FAILED || !dynamic) stop(2, "%s: cannot be loaded", path);
  for (int i = 0; i < head->e_phnum; i++)
    if (parts[i].p_type == PT_LOAD) memcpy(lib.base + parts[i].p_vaddr, file + parts[i].p_offset, parts[i].p_filesz);

  uint64_t found[64] = {0};
  for (const Elf64_Dyn *d = (const Elf64_Dyn *)(lib.base + dynamic->p_vaddr); d->d_tag != DT_NULL; d++) {
    if (d->d_tag < 64) found[d->d_tag] = d->d_un.d_val;
    if (d->d_tag == DT_GNU_HASH) lib.hash = (const uint32_t *)(lib.base + d->d_un.d_ptr);
    if (d->d_tag == 36 /* DT_RELR */ || d->d_tag == DT_INIT_ARRAY) stop(2, "%s: not one of qcompile's", path);
  }
  lib.symbols = (const Elf64_Sym *)(lib.base + found[DT_SYMTAB]);
  lib.strings = lib.base + found[DT_STRTAB];
  relocate(&lib, path, (const Elf64_Rela *)(lib.base + found[DT_RELA]), found[DT_RELASZ]);
  relocate(&lib, path, (const Elf64_Rela *)(lib.base + found[DT_JMPREL]), found[DT_PLTRELSZ]);

  for (int i = 0; i < head->e_phnum; i++) {
    if (parts[i].p_type != PT_LOAD || !(parts[i].p_flags & PF_X)) continue;
    uintptr_t page = 4095, start = (uintptr_t)lib.base + parts[i].p_vaddr, end = start + parts[i].p_memsz;
    __builtin___clear_cache((char *)start, (char *)end);
    start &= ~page;
    if (mprotect((void *)start, end - start, PROT_READ | PROT_EXEC | (parts[i].p_flags & PF_W ? PROT_WRITE : 0)))
      stop(2, "%s: this system does not let code be loaded: %s", path, strerror(errno));
  }
  free(file);
  return lib;
}

/* The GNU hash table: buckets of symbols in a row, the lowest bit of the last one's hash set. */
static void *symbol(const Library *lib, const char *path, const char *name) {
  uint32_t hash = 5381;
  for (const char *c = name; *c; c++) hash = hash * 33 + (unsigned char)*c;
  uint32_t buckets = lib->hash ? lib->hash[0] : 0, first = lib->hash ? lib->hash[1] : 0;
  if (buckets) {
    const uint32_t *bucket = lib->hash + 4 + 2 * lib->hash[2], *chain = bucket + buckets;
    for (uint32_t i = bucket[hash % buckets]; i >= first; i++) {
      const Elf64_Sym *s = &lib->symbols[i];
      if ((chain[i - first] | 1) == (hash | 1) && !strcmp(lib->strings + s->st_name, name)) return lib->base + s->st_value;
      if (chain[i - first] & 1) break;
    }
  }
  stop(2, "%s has no function '%s'", path, name);
  return NULL;
}

/* ---- Features of this CPU --------------------------------------------------------------------------------------- */

#if defined(__aarch64__)
#include <sys/auxv.h>

/* Words of /proc/cpuinfo -> bits of AT_HWCAP, then of AT_HWCAP2 (asm/hwcap.h); the file itself is the host's in qemu. */
static const char *const hwcap[] = {
    "fp",    "asimd", "evtstrm", "aes",  "pmull",    "sha1",    "sha2", "crc32", "atomics", "fphp",   "asimdhp",
    "cpuid", "asimdrdm", "jscvt", "fcma", "lrcpc",   "dcpop",   "sha3", "sm3",   "sm4",     "asimddp"};

static int has_feature(const char *word) {
  unsigned long bits = getauxval(AT_HWCAP), more = getauxval(AT_HWCAP2);
  for (size_t i = 0; i < sizeof hwcap / sizeof *hwcap; i++)
    if (!strcmp(hwcap[i], word)) return bits >> i & 1;
  if (!strcmp(word, "i8mm")) return more >> 13 & 1;
  if (!strcmp(word, "bf16")) return more >> 14 & 1;
  return 0;
}
#else
static int has_feature(const char *word) {
  static char line[16384];
  FILE *file = fopen("/proc/cpuinfo", "r");
  if (!file) return 0;
  int found = 0;
  while (!found && fgets(line, sizeof line, file)) {
    if (strncmp(line, "flags", 5)) continue;
    for (char *flag = strtok(line, " :\t\n"); flag && !found; flag = strtok(NULL, " :\t\n")) found = !strcmp(flag, word);
    break;
  }
  fclose(file);
  return found;
}
#endif

/* ---- The call --------------------------------------------------------------------------------------------------- */

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
  union {
    int64_t integer;
    void *pointer;
  } value;
} Any;

typedef int (*Function)(void *self, const Any *args, int32_t count, Any *result);

enum Kind { INPUT, OUTPUT, WEIGHTS, WORKSPACE, KINDS };
static const char *const kind_names[KINDS] = {"input", "output", "weights", "workspace"};

typedef struct {
  enum Kind kind;
  size_t bytes;
  int64_t shape[RANK];
  Tensor tensor;
} Argument;

static void set_dtype(Argument *a, const char *dtype) {
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
      return;
    }
  stop(2, "unknown dtype '%s'", dtype);
}

/* One line "input float32 4 1 3 224 224 image" or "weights 40064", behind its first word. */
static void describe(Argument *a, enum Kind kind, char *rest) {
  char *word = strtok(rest, " ");
  if (!word) stop(2, "model.txt: a line is cut short");
  int64_t extent = atoll(word), count = 1;
  a->kind = kind;
  a->tensor.device_type = 1;
  a->tensor.shape = a->shape;
  if (kind == WEIGHTS || kind == WORKSPACE) {
    set_dtype(a, "uint8");
    a->tensor.ndim = 1;
    a->shape[0] = count = extent;
  } else {
    set_dtype(a, word);
    a->tensor.ndim = (word = strtok(NULL, " ")) ? atoi(word) : -1;
    if (a->tensor.ndim < 0 || a->tensor.ndim > RANK) stop(2, "model.txt: a rank that is none");
    for (int i = 0; i < a->tensor.ndim; i++, count *= a->shape[i - 1])
      a->shape[i] = (word = strtok(NULL, " ")) ? atoll(word) : 0;
  }
  a->bytes = (size_t)count * a->tensor.bits / 8;
  a->tensor.data = memory(a->bytes);
  if (kind == OUTPUT || kind == WORKSPACE) memset(a->tensor.data, 0xFF, a->bytes); /* NaN: reading it too early shows */
  memset((char *)a->tensor.data + a->bytes, GUARD_BYTE, GUARD);
}

static char entry[64] = "__tvm_ffi_main";

static int read_description(const char *path, Argument *arguments) {
  FILE *file = fopen(path, "r");
  if (!file) stop(2, "%s: %s", path, strerror(errno));
  static char line[4096];
  char target[64] = "";
  int count = 0;
  while (fgets(line, sizeof line, file)) {
    line[strcspn(line, "\n")] = 0;
    char *rest = strchr(line, ' ');
    if (!rest) continue;
    *rest++ = 0;
    if (!strcmp(line, "format") && atoi(rest) != 1) stop(2, "%s: made by a newer qcompile", path);
    if (!strcmp(line, "target")) snprintf(target, sizeof target, "%s", rest);
    if (!strcmp(line, "entry")) snprintf(entry, sizeof entry, "__tvm_ffi_%s", rest);
    if (!strcmp(line, "machine") && strcmp(rest, HERE)) stop(2, "built for %s, this machine is %s", rest, HERE);
    if (!strcmp(line, "feature") && !has_feature(rest)) stop(2, "built for %s, and this CPU lacks %s", target, rest);
    if (!strcmp(line, "library")) stop(2, "the model calls %s; load it with TVM's runtime", rest);
    for (int kind = 0; kind < KINDS; kind++) {
      if (strcmp(line, kind_names[kind])) continue;
      if (count == MOST) stop(2, "%s: more than %d arguments", path, MOST);
      describe(&arguments[count++], kind, rest);
    }
  }
  fclose(file);
  return count;
}

static void read_argument(const char *path, Argument *a) {
  FILE *file = fopen(path, "rb");
  struct stat info;
  if (!file || fstat(fileno(file), &info)) stop(2, "%s: %s", path, strerror(errno));
  if ((size_t)info.st_size != a->bytes) stop(2, "%s: %zu bytes, not %zu", path, (size_t)info.st_size, a->bytes);
  if (fread(a->tensor.data, 1, a->bytes, file) != a->bytes) stop(2, "%s: cannot be read", path);
  fclose(file);
}

static void write_argument(const char *path, const Argument *a) {
  FILE *file = fopen(path, "wb");
  if (!file || fwrite(a->tensor.data, 1, a->bytes, file) != a->bytes || fclose(file))
    stop(2, "%s: %s", path, strerror(errno));
}

static void check_guard(const Argument *a) {
  const unsigned char *guard = (const unsigned char *)a->tensor.data + a->bytes;
  for (int i = 0; i < GUARD; i++)
    if (guard[i] != GUARD_BYTE) stop(1, "the model wrote %d bytes behind its %s", i + 1, kind_names[a->kind]);
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int main(int argc, char **argv) {
  static Argument arguments[MOST];
  static Any packed[MOST];
  static char path[4096];
  int next = 2, repeat = 1;
  if (argc < 2) stop(2, "usage: %s MODEL [--repeat N] FILE...", argv[0]);
  if (argc > 3 && !strcmp(argv[2], "--repeat")) repeat = atoi(argv[3]), next = 4;

  snprintf(path, sizeof path, "%s/model.txt", argv[1]);
  int count = read_description(path, arguments), files = 0;
  for (int i = 0; i < count; i++) files += arguments[i].kind == INPUT || arguments[i].kind == OUTPUT;
  if (argc - next != files) stop(2, "%d files given, the model has %d inputs and outputs", argc - next, files);
  for (int i = 0; i < count; i++) {
    packed[i].type = 7; /* kTVMFFIDLTensorPtr */
    packed[i].value.pointer = &arguments[i].tensor;
    if (arguments[i].kind == INPUT) read_argument(argv[next++], &arguments[i]);
    snprintf(path, sizeof path, "%s/weights.bin", argv[1]);
    if (arguments[i].kind == WEIGHTS) read_argument(path, &arguments[i]);
  }
  snprintf(path, sizeof path, "%s/model.so", argv[1]);
  Library library = load_library(path);
  Function run = (Function)(uintptr_t)symbol(&library, path, entry);
  double best = HUGE_VAL;
  for (int i = 0; i < repeat; i++) {
    Any result = {0, 0, {0}};
    double start = seconds();
    if (run(NULL, packed, count, &result)) stop(1, "%s", message);
    double time = seconds() - start;
    if (time < best) best = time;
  }
  for (int i = 0; i < count; i++) {
    check_guard(&arguments[i]);
    if (arguments[i].kind == OUTPUT) write_argument(argv[next++], &arguments[i]);
  }
  printf("%d calls, the fastest took %.1f us\n", repeat, 1e6 * best);
  return 0;
}
