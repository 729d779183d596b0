/* A plugin of QEMU's user-mode emulation: counts the instructions that a program executes.
 *
 *     cc -O2 -shared -fPIC -o libicount.so icount.c
 *     qemu-aarch64 -plugin ./libicount.so[,sections=on] -d plugin -D counts.txt program...
 *
 * Written are lines "MNEMONIC NUMBER", of the whole run. With sections, a line for each instruction executed between
 * one reading of the virtual counter (the stamps of a library's `profile` entry) and the next, by its address:
 * "SECTION ADDRESS CODE NUMBER MNEMONIC", address and code in hexadecimal, sections from 0.
 *
 * The plugin interface (version 1: QEMU 6 to 8) is written out here, so no QEMU source is needed.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int, void *, uint64_t);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int, void *);
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
extern char *qemu_plugin_insn_disas(const struct qemu_plugin_insn *);
extern void qemu_plugin_outs(const char *);
__attribute__((visibility("default"))) int qemu_plugin_version = 1;

enum { KINDS = 1024 };
static char names[KINDS][16];
static int kinds;
static uint64_t totals[KINDS];

typedef struct {
  uint64_t address;
  uint32_t code;
  uint16_t kind;
} Instruction;

typedef struct Run { /* of instructions that are executed one after the other */
  uint64_t times, before; /* before: when the section began */
  size_t count;
  struct Run *next;
  Instruction instructions[];
} Run;
static Run *runs;
static int sections, section = -1;

/* Debian 12's disassembler does not know FEAT_DotProd and FEAT_I8MM. */
static const struct {
  uint32_t mask, value;
  const char *name;
} products[] = {
    {0xBFE0FC00, 0x0E809400, "sdot"},  {0xBFE0FC00, 0x2E809400, "udot"},  {0xBFE0FC00, 0x2E809C00, "usdot"},
    {0xFFE0FC00, 0x4E80A400, "smmla"}, {0xFFE0FC00, 0x6E80A400, "ummla"}, {0xFFE0FC00, 0x4E80AC00, "usmmla"},
    {0xBFC0F400, 0x0F80E000, "sdot"},  {0xBFC0F400, 0x2F80E000, "udot"},  {0xBFC0F400, 0x0F80F000, "usdot"}};

static uint16_t kind_of(const char *text) {
  char word[16] = "";
  strncpy(word, text, 15);
  word[strcspn(word, " \t")] = 0;
  for (int i = 0; i < kinds; i++)
    if (!strcmp(names[i], word)) return (uint16_t)i;
  if (kinds == KINDS) return 0;
  strcpy(names[kinds], word);
  return (uint16_t)kinds++;
}

static Instruction read_instruction(const struct qemu_plugin_insn *insn) {
  uint32_t code;
  memcpy(&code, qemu_plugin_insn_data(insn), sizeof code);
  const char *product = NULL;
  for (size_t k = 0; k < sizeof products / sizeof *products && !product; k++)
    if ((code & products[k].mask) == products[k].value) product = products[k].name;
  char *text = product ? NULL : qemu_plugin_insn_disas(insn);
  Instruction result = {qemu_plugin_insn_vaddr(insn), code, kind_of(product ? product : text ? text : "unknown")};
  free(text);
  return result;
}

static int reads_counter(uint32_t code) { return (code & ~31u) == 0xD53BE040; /* mrs x0, cntvct_el0 */ }

static void next_section(unsigned cpu, void *data) {
  (void)cpu, (void)data;
  char line[128];
  for (Run *run = runs; run; run = run->next) {
    uint64_t times = run->times - run->before;
    run->before = run->times;
    if (section < 0 || !times) continue;
    for (const Instruction *i = run->instructions; i < run->instructions + run->count; i++) {
      snprintf(line, sizeof line, "%d %llx %08x %llu %s\n", section, (unsigned long long)i->address, i->code,
               (unsigned long long)times, names[i->kind]);
      qemu_plugin_outs(line);
    }
  }
  section++;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
  (void)id;
  size_t count = qemu_plugin_tb_n_insns(tb);
  Run *run = NULL;
  for (size_t i = 0; i < count; i++) {
    struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
    Instruction instruction = read_instruction(insn);
    if (sections && reads_counter(instruction.code)) { /* what stands before and after it is counted apart */
      qemu_plugin_register_vcpu_insn_exec_cb(insn, next_section, 0 /* reads no registers */, NULL);
      run = NULL;
      continue;
    }
    if (!run) {
      run = calloc(1, sizeof *run + (count - i) * sizeof *run->instructions);
      run->next = runs;
      runs = run;
      qemu_plugin_register_vcpu_insn_exec_inline(insn, 0 /* add */, &run->times, 1);
    }
    run->instructions[run->count++] = instruction;
  }
}

static void at_exit(qemu_plugin_id_t id, void *data) {
  (void)id, (void)data;
  char line[64];
  if (sections) return;
  for (const Run *run = runs; run; run = run->next)
    for (size_t i = 0; i < run->count; i++) totals[run->instructions[i].kind] += run->times;
  for (int i = 0; i < kinds; i++) {
    snprintf(line, sizeof line, "%s %llu\n", names[i], (unsigned long long)totals[i]);
    qemu_plugin_outs(line);
  }
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc,
                                                               char **argv) {
  (void)info;
  for (int i = 0; i < argc; i++) sections |= !strcmp(argv[i], "sections=on");
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, at_exit, NULL);
  return 0;
}
