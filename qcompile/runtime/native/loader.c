/* Loads a shared library that qcompile linked: segments into memory, addresses into its tables. A static program can do
 * that as well, and what the library may call is what symbols.c has: one that needs more is refused by name. */
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"

#if defined(__aarch64__)
enum { MACHINE = EM_AARCH64, RELATIVE = 1027, GLOB_DAT = 1025, JUMP_SLOT = 1026, ABSOLUTE = 257 };
#else
enum { MACHINE = EM_X86_64, RELATIVE = 8, GLOB_DAT = 6, JUMP_SLOT = 7, ABSOLUTE = 1 };
#endif

typedef struct {
  const char *base;
  const Elf64_Sym *symbols;
  const char *strings;
  const uint32_t *hash;
  const Elf64_Rela *data, *calls;
  size_t data_bytes, calls_bytes;
} Tables;

static const Elf64_Ehdr *header(const void *file) { return (const Elf64_Ehdr *)file; }

static const Elf64_Phdr *segments(const void *file) {
  return (const Elf64_Phdr *)((const char *)file + header(file)->e_phoff);
}

static const Elf64_Phdr *segment_of(const void *file, uint32_t type) {
  for (int i = 0; i < header(file)->e_phnum; i++)
    if (segments(file)[i].p_type == type) return &segments(file)[i];
  return NULL;
}

/* Whether all segments are in the file; a copy that was cut short has not. */
static int is_whole(const void *file, size_t bytes) {
  if (header(file)->e_phoff + header(file)->e_phnum * sizeof(Elf64_Phdr) > bytes) return 0;
  for (int i = 0; i < header(file)->e_phnum; i++) {
    const Elf64_Phdr *part = &segments(file)[i];
    if (part->p_type == PT_LOAD && part->p_offset + part->p_filesz > bytes) return 0;
  }
  return 1;
}

/* Contents of a file, to be freed; NULL if it cannot be read. */
static char *read_file(const char *path, size_t *bytes) {
  FILE *file = fopen(path, "rb");
  long size = -1;
  char *data = NULL;
  if (file && !fseek(file, 0, SEEK_END)) size = ftell(file);
  if (size > 0 && !fseek(file, 0, SEEK_SET) && (data = (char *)malloc((size_t)size)) &&
      fread(data, 1, (size_t)size, file) != (size_t)size) {
    free(data);
    data = NULL;
  }
  if (!data) qc_fail("%s: %s", path, errno ? strerror(errno) : "is empty");
  if (file) fclose(file);
  *bytes = (size_t)size;
  return data;
}

static int read_tables(Tables *t, const char *base, const Elf64_Phdr *dynamic) {
  t->base = base;
  for (const Elf64_Dyn *d = (const Elf64_Dyn *)(base + dynamic->p_vaddr); d->d_tag != DT_NULL; d++) {
    const char *place = base + d->d_un.d_ptr;
    switch (d->d_tag) {
      case DT_SYMTAB: t->symbols = (const Elf64_Sym *)place; break;
      case DT_STRTAB: t->strings = place; break;
      case DT_GNU_HASH: t->hash = (const uint32_t *)place; break;
      case DT_RELA: t->data = (const Elf64_Rela *)place; break;
      case DT_JMPREL: t->calls = (const Elf64_Rela *)place; break;
      case DT_RELASZ: t->data_bytes = d->d_un.d_val; break;
      case DT_PLTRELSZ: t->calls_bytes = d->d_un.d_val; break;
      case DT_INIT_ARRAY:
      case 36 /* DT_RELR */: return -1;
    }
  }
  return t->symbols && t->strings && t->hash ? 0 : -1;
}

static int resolve(void **address, const char *path, const char *name, int weak) {
  *address = qc_symbol(name);
  return *address || weak ? 0 : qc_fail("%s calls '%s', which this runtime does not have", path, name);
}

static int relocate(const Tables *t, const char *path, const Elf64_Rela *entry, size_t bytes) {
  for (const Elf64_Rela *end = entry + bytes / sizeof *entry; entry < end; entry++) {
    uint64_t *place = (uint64_t *)(uintptr_t)(t->base + entry->r_offset), value = (uint64_t)entry->r_addend;
    uint32_t type = (uint32_t)ELF64_R_TYPE(entry->r_info), index = (uint32_t)ELF64_R_SYM(entry->r_info);
    if (type == RELATIVE) {
      *place = (uint64_t)(uintptr_t)t->base + value;
      continue;
    }
    if (type != GLOB_DAT && type != JUMP_SLOT && type != ABSOLUTE)
      return qc_fail("%s: unknown relocation %u", path, type);
    const Elf64_Sym *symbol = &t->symbols[index];
    const char *name = t->strings + symbol->st_name;
    void *address = (void *)(uintptr_t)(t->base + symbol->st_value);
    if (!symbol->st_shndx) {
      if (resolve(&address, path, name, ELF64_ST_BIND(symbol->st_info) == STB_WEAK)) return -1;
    } else if (!strncmp(name, "__TVM", 5)) { /* a variable for the address of a function of the runtime */
      if (resolve((void **)address, path, name + 2, 0)) return -1;
    }
    *place = (uint64_t)(uintptr_t)address + (type == ABSOLUTE ? value : 0);
  }
  return 0;
}

/* Makes code executable; pages are as large as this system's, 4 to 64 KB on ARM. */
static int protect(const char *base, const void *file, const char *path) {
  for (int i = 0; i < header(file)->e_phnum; i++) {
    const Elf64_Phdr *part = &segments(file)[i];
    if (part->p_type != PT_LOAD || !(part->p_flags & PF_X)) continue;
    uintptr_t start = (uintptr_t)base + part->p_vaddr, end = start + part->p_memsz;
    __builtin___clear_cache((char *)start, (char *)end);
    start &= ~((uintptr_t)sysconf(_SC_PAGESIZE) - 1);
    if (mprotect((void *)start, end - start, PROT_READ | PROT_EXEC | (part->p_flags & PF_W ? PROT_WRITE : 0)))
      return qc_fail("%s: this system does not let code be loaded: %s", path, strerror(errno));
  }
  return 0;
}

static int place(qc_library *library, const void *file, size_t bytes, const char *path) {
  if (bytes < sizeof(Elf64_Ehdr) || memcmp(file, ELFMAG, SELFMAG) || header(file)->e_machine != MACHINE)
    return qc_fail("%s: not a shared library for %s", path, QC_MACHINE);
  if (!is_whole(file, bytes)) return qc_fail("%s: damaged", path);
  const Elf64_Phdr *dynamic = segment_of(file, PT_DYNAMIC);
  if (segment_of(file, PT_TLS) || !dynamic) return qc_fail("%s: not one of qcompile's", path);
  for (int i = 0; i < header(file)->e_phnum; i++) {
    size_t end = segments(file)[i].p_vaddr + segments(file)[i].p_memsz;
    if (segments(file)[i].p_type == PT_LOAD && end > library->bytes) library->bytes = end;
  }
  void *base = mmap(NULL, library->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return qc_fail("%s: %s", path, strerror(errno));
  library->base = (char *)base;
  for (int i = 0; i < header(file)->e_phnum; i++) {
    const Elf64_Phdr *part = &segments(file)[i];
    const char *from = (const char *)file + part->p_offset;
    if (part->p_type == PT_LOAD) memcpy(library->base + part->p_vaddr, from, part->p_filesz);
  }
  Tables tables = {NULL, NULL, NULL, NULL, NULL, NULL, 0, 0};
  if (read_tables(&tables, library->base, dynamic)) return qc_fail("%s: not one of qcompile's", path);
  if (relocate(&tables, path, tables.data, tables.data_bytes)) return -1;
  if (relocate(&tables, path, tables.calls, tables.calls_bytes)) return -1;
  return protect(library->base, file, path);
}

int qc_load(qc_library *library, const char *path) {
  size_t bytes;
  errno = 0;
  char *file = read_file(path, &bytes);
  int status = file ? place(library, file, bytes, path) : -1;
  free(file);
  return status;
}

/* The GNU hash table: buckets of symbols in a row, the lowest bit of the last one's hash set. */
void *qc_find(const qc_library *library, const char *name) {
  Tables t = {NULL, NULL, NULL, NULL, NULL, NULL, 0, 0};
  const void *file = library->base; /* the first segment begins with the header */
  if (memcmp(file, ELFMAG, SELFMAG) || read_tables(&t, library->base, segment_of(file, PT_DYNAMIC))) return NULL;
  uint32_t hash = 5381, buckets = t.hash[0], first = t.hash[1];
  for (const char *c = name; *c; c++) hash = hash * 33 + (unsigned char)*c;
  if (!buckets) return NULL;
  const uint32_t *bucket = t.hash + 4 + 2 * t.hash[2], *chain = bucket + buckets;
  for (uint32_t i = bucket[hash % buckets]; i >= first; i++) {
    const Elf64_Sym *s = &t.symbols[i];
    if ((chain[i - first] | 1) == (hash | 1) && !strcmp(t.strings + s->st_name, name))
      return library->base + s->st_value;
    if (chain[i - first] & 1) break;
  }
  return NULL;
}

void qc_unload(qc_library *library) {
  if (library->base) munmap(library->base, library->bytes);
  library->base = NULL;
}
