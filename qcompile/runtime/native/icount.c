/* A plugin of QEMU's user-mode emulation: instructions executed, in all and by mnemonic, on standard error.
 *
 *     cc -O2 -shared -fPIC -o libicount.so icount.c
 *     qemu-aarch64 -plugin ./libicount.so -d plugin -D counts.txt program...
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
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern char *qemu_plugin_insn_disas(const struct qemu_plugin_insn *);
extern void qemu_plugin_outs(const char *);
__attribute__((visibility("default"))) int qemu_plugin_version = 1;

enum { KINDS = 1024 };
static char names[KINDS][16];
static int kinds;
static uint64_t totals[KINDS];

typedef struct Block { /* of translated code */
  uint64_t runs;
  size_t count;
  uint16_t *kind;
  struct Block *next;
} Block;
static Block *blocks;

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

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
  (void)id;
  Block *block = calloc(1, sizeof *block);
  block->count = qemu_plugin_tb_n_insns(tb);
  block->kind = calloc(block->count, sizeof *block->kind);
  for (size_t i = 0; i < block->count; i++) {
    struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
    uint32_t code;
    memcpy(&code, qemu_plugin_insn_data(insn), sizeof code);
    const char *product = NULL;
    for (size_t k = 0; k < sizeof products / sizeof *products && !product; k++)
      if ((code & products[k].mask) == products[k].value) product = products[k].name;
    char *text = product ? NULL : qemu_plugin_insn_disas(insn);
    block->kind[i] = kind_of(product ? product : text ? text : "unknown");
    free(text);
  }
  block->next = blocks;
  blocks = block;
  qemu_plugin_register_vcpu_tb_exec_inline(tb, 0 /* add */, &block->runs, 1);
}

static void at_exit(qemu_plugin_id_t id, void *data) {
  (void)id, (void)data;
  char line[64];
  for (const Block *block = blocks; block; block = block->next)
    for (size_t i = 0; i < block->count; i++) totals[block->kind[i]] += block->runs;
  for (int i = 0; i < kinds; i++) {
    snprintf(line, sizeof line, "%s %llu\n", names[i], (unsigned long long)totals[i]);
    qemu_plugin_outs(line);
  }
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc,
                                                               char **argv) {
  (void)info, (void)argc, (void)argv;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, at_exit, NULL);
  return 0;
}
