/* What this CPU can do, in the words of /proc/cpuinfo, but not from there: emulators and containers show another's. */
#include <string.h>

#include "internal.h"

#if defined(__aarch64__)
#include <sys/auxv.h>

/* Bits of AT_HWCAP and AT_HWCAP2 from 0 on (asm/hwcap.h). */
static const char *const hwcap[] = {
    "fp",    "asimd",    "evtstrm", "aes",  "pmull", "sha1",  "sha2", "crc32", "atomics", "fphp",    "asimdhp",
    "cpuid", "asimdrdm", "jscvt",   "fcma", "lrcpc", "dcpop", "sha3", "sm3",   "sm4",     "asimddp", "sha512",
    "sve",   "asimdfhm"};
static const char *const hwcap2[] = {
    "dcpodp", "sve2",    "sveaes",   "svepmull", "svebitperm", "svesha3", "svesm4", "flagm2",
    "frint",  "svei8mm", "svef32mm", "svef64mm", "svebf16",    "i8mm",    "bf16"};

static int find(const char *word, const char *const *words, size_t count, unsigned long bits) {
  for (size_t i = 0; i < count; i++)
    if (!strcmp(words[i], word)) return (int)(bits >> i & 1);
  return 0;
}

int qc_has_feature(const char *word) {
  return find(word, hwcap, sizeof hwcap / sizeof *hwcap, getauxval(AT_HWCAP)) ||
         find(word, hwcap2, sizeof hwcap2 / sizeof *hwcap2, getauxval(AT_HWCAP2));
}
#else
#include <cpuid.h>

enum Register { EAX, EBX, ECX, EDX };
enum State { NONE = 0, AVX = 0x6, AVX512 = 0xe6, AMX = 0x60000 }; /* bits of XCR0: registers that the system keeps */

static const struct {
  const char *word;
  unsigned leaf, subleaf;
  enum Register where;
  int bit;
  enum State state;
} known[] = {
    {"sse4_1", 1, 0, ECX, 19, NONE},        {"sse4_2", 1, 0, ECX, 20, NONE},
    {"popcnt", 1, 0, ECX, 23, NONE},        {"movbe", 1, 0, ECX, 22, NONE},
    {"fma", 1, 0, ECX, 12, AVX},            {"avx", 1, 0, ECX, 28, AVX},
    {"f16c", 1, 0, ECX, 29, AVX},           {"bmi1", 7, 0, EBX, 3, NONE},
    {"avx2", 7, 0, EBX, 5, AVX},            {"bmi2", 7, 0, EBX, 8, NONE},
    {"avx512f", 7, 0, EBX, 16, AVX512},     {"avx512dq", 7, 0, EBX, 17, AVX512},
    {"avx512cd", 7, 0, EBX, 28, AVX512},    {"avx512bw", 7, 0, EBX, 30, AVX512},
    {"avx512vl", 7, 0, EBX, 31, AVX512},    {"avx512vbmi", 7, 0, ECX, 1, AVX512},
    {"avx512_vbmi2", 7, 0, ECX, 6, AVX512}, {"avx512_vnni", 7, 0, ECX, 11, AVX512},
    {"avx_vnni", 7, 1, EAX, 4, AVX},        {"avx512_bf16", 7, 1, EAX, 5, AVX512},
    {"avx512_fp16", 7, 0, EDX, 23, AVX512}, {"amx_bf16", 7, 0, EDX, 22, AMX},
    {"amx_tile", 7, 0, EDX, 24, AMX},       {"amx_int8", 7, 0, EDX, 25, AMX},
};

static unsigned kept(void) { /* XCR0, 0 if the system does not use it */
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0;
  __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
  return a;
}

int qc_has_feature(const char *word) {
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (strcmp(known[i].word, word)) continue;
    unsigned r[4] = {0, 0, 0, 0};
    if (!__get_cpuid_count(known[i].leaf, known[i].subleaf, &r[0], &r[1], &r[2], &r[3])) return 0;
    return (r[known[i].where] >> known[i].bit & 1) && (kept() & known[i].state) == (unsigned)known[i].state;
  }
  return 0;
}
#endif
