/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store whose TPM is lost, moved to another one by its recovery key: what is refused, and kill -9 at every durable step. Each piece of work is a process of its own, as a start of the enclave is, on real secpool-vtpms; the linker
 * puts a step() after each call that makes something durable, and after the showing of the new key. timeout: 300
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/mman.h>

#include "enclave/hostkeys.h"
#include "enclave/recover.h"
#include "enclave/secmem.h"
#include "lib/base/log.h"
#include "tests/unit/vtpm_process.h"

enum { PCRS = 1 << 7, PATH_BYTES = 160, REGION = 7, KEY_BYTES = 80, VTPMS = 3 };

/* What a piece of work leaves for the test. */
static struct shared {
	_Atomic int steps, crash_at; /* 0: never */
	enum secpool_error error;
	char text[ERR_DETAIL_BYTES];
	uint64_t generation;
	bool provisioned, recovered;
	uint8_t head[AUDIT_DIGEST_BYTES];
} * shared;

static struct vtpm lost, second_tpm, third_tpm;
static struct vtpm *const vtpms[VTPMS] = {&lost, &second_tpm, &third_tpm};
static char folder[PATH_BYTES], state_dir[PATH_BYTES + 16];
static char key[KEY_BYTES]; /* that was shown last */

/* ---- the steps ---- */

static void step(void)
{
	if (++shared->steps == shared->crash_at)
		kill(getpid(), SIGKILL);
}

#define STEPPED(type, name, parameters, arguments)                                                 \
	type __real_##name parameters;                                                             \
	type __wrap_##name parameters;                                                             \
	type __wrap_##name parameters                                                              \
	{                                                                                          \
		type result = __real_##name arguments;                                             \
                                                                                                   \
		step();                                                                            \
		return result;                                                                     \
	}
STEPPED(int, fsync, (int fd), (fd))
STEPPED(int, fdatasync, (int fd), (fd))
STEPPED(int, rename, (const char *from, const char *to), (from, to))
STEPPED(int, unlink, (const char *path), (path))
STEPPED(enum secpool_error, os_write_all, (int fd, const void *bytes, size_t count),
	(fd, bytes, count))
STEPPED(enum secpool_error, tpm_counter_make,
	(struct tpm * tpm, const uint8_t *auth, uint32_t *ret_index, uint64_t *ret_value),
	(tpm, auth, ret_index, ret_value))
STEPPED(enum secpool_error, tpm_counter_remove, (struct tpm * tpm, uint32_t index), (tpm, index))

/* ---- pieces of work, each in a child ---- */

struct job {
	unsigned tpm;	   /* of vtpms */
	bool no_recovery;  /* policy: recovery: none */
	bool nowhere;	   /* no descriptor for a new recovery key */
	const char *typed; /* the recovery key; NULL: no recovery */
	uint64_t generation, next;
	int shown; /* a file for a new recovery key */
};

static _Noreturn void end_job(enum secpool_error error)
{
	shared->error = error;
	snprintf(shared->text, sizeof shared->text, "%s", error ? err_detail() : "");
	_exit(0);
}

static void need(enum secpool_error error)
{
	if (error)
		end_job(error);
}

static struct anchor_options options_of(const struct job *job, bool may_provision)
{
	return (struct anchor_options){.tpm = vtpms[job->tpm]->where,
		.state_dir = state_dir,
		.pcrs = PCRS,
		.may_provision = may_provision,
		.recovery = !job->no_recovery,
		.recovery_fd = job->nowhere ? 0 : job->shown};
}

static enum secpool_error append(void *arg, const char *line, bool wait)
{
	FILE *file = fopen(arg, "ae");

	(void)wait;
	if (!file || fprintf(file, "%s\n", line) < 0 || fclose(file) != 0)
		return os_error("append to the audit");
	return SECPOOL_OK;
}

/* A start as the enclave makes it, with its record of the audit. */
static void start(const struct job *job, bool may_provision, struct keytree *tree,
	struct hostkeys *keys, struct audit *audit)
{
	static char path[PATH_BYTES + 32];
	const struct anchor_options options = options_of(job, may_provision);
	struct audit_entry entry = {.kind = AUDIT_UNSEALED};

	need(hostkeys_open(&options, tree, keys));
	keys->anchor.skipped_most = 1;
	audit_init(audit, &keys->signer);
	need(audit_resume(audit, state_dir, may_provision));
	snprintf(path, sizeof path, "%s/audit", state_dir);
	audit->sink = append;
	audit->sink_arg = path;
	shared->generation = keys->anchor.generation;
	shared->provisioned = keys->provisioned;
	shared->recovered = anchor_is_recovered(&keys->anchor);
	if (keys->provisioned)
		entry.kind = AUDIT_PROVISIONED;
	else if (shared->recovered)
		entry.kind = AUDIT_RECOVERED;
	need(audit_keep(audit, &entry));
	memcpy(shared->head, audit->head, sizeof shared->head);
}

/* As the front does it: nodes, then the slot. */
static void store(const struct keytree_added *leaf)
{
	uint8_t slot[KEYFILE_SLOT_BYTES];
	char path[PATH_BYTES + 32];
	int nodes, wraps;

	snprintf(path, sizeof path, "%s/nodes", state_dir);
	nodes = open(path, O_RDWR);
	snprintf(path, sizeof path, "%s/wraps", state_dir);
	wraps = open(path, O_RDWR);
	for (uint32_t i = 0; i < leaf->node_count; i++)
		need(keyfile_write_node(nodes, leaf->nodes[i], leaf->records[i]));
	keyfile_put_slot(slot, leaf->blob, leaf->blob_bytes);
	need(keyfile_write_slot(wraps, leaf->slot, slot));
	if (nodes < 0 || wraps < 0 || close(nodes) != 0 || close(wraps) != 0)
		end_job(SECPOOL_E_SYSTEM);
}

/* A generation, as the front and the enclave make it. counted: only until the TPM has counted, as if the machine stopped then. */
static void advance(struct keytree *tree, struct hostkeys *keys, bool counted)
{
	static uint8_t bytes[1 << 20];
	struct buf_writer w = {.bytes = bytes, .capacity = sizeof bytes};
	struct keyfile_root root;
	char path[PATH_BYTES + 32];
	int nodes, wraps;

	need(anchor_seal(&keys->anchor, tree, keys->anchor.sealed + 1, &w));
	need(keyfile_parse_root(w.bytes, w.used, &root));
	snprintf(path, sizeof path, "%s/root.next", state_dir);
	need(os_write_file_durable(path, w.bytes, w.used, 0600));
	need(anchor_commit(&keys->anchor, tree));
	shared->generation = keys->anchor.generation;
	if (counted)
		return;
	snprintf(path, sizeof path, "%s/nodes", state_dir);
	nodes = open(path, O_RDWR);
	snprintf(path, sizeof path, "%s/wraps", state_dir);
	wraps = open(path, O_RDWR);
	need(keyfile_apply(&root, nodes, wraps));
	need(keyfile_take_next(&root, state_dir));
}

/* ret_key: what a recovery key was shown for, stays as it was where none was. */
static bool run(void (*what)(const struct job *), struct job job)
{
	int status = 0, shown = memfd_create("shown", MFD_CLOEXEC);
	ssize_t got;
	pid_t pid;

	assert_true(shown >= 0);
	job.shown = shown;
	shared->error = SECPOOL_E_INTERNAL;
	shared->steps = 0;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		need(secmem_init(SECMEM_ALLOW_LOCKED));
		what(&job);
		end_job(SECPOOL_OK);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	got = pread(shown, key, sizeof key - 1, 0);
	if (got > 0)
		key[got] = '\0';
	close(shown);
	return WIFEXITED(status);
}

static struct keytree tree;
static struct hostkeys keys;

static void do_make(const struct job *job)
{
	const struct wrap_label label = {
		.purpose = WRAP_REGION_KEYS, .tenant = "mine", .region = REGION, .epoch = 1};
	const uint8_t secret[96] = {1, 2, 3};
	struct keytree_added leaf;
	struct audit audit;

	start(job, true, &tree, &keys, &audit);
	need(keytree_add(&tree, &label, secret, sizeof secret, &leaf));
	store(&leaf);
	advance(&tree, &keys, false);
	hostkeys_done(&keys);
}

/* Opens what there is; the region's key must be in it. */
static void do_open(const struct job *job)
{
	struct audit audit;

	start(job, false, &tree, &keys, &audit);
	need(keytree_claim(&tree, 0, REGION, 1));
	hostkeys_done(&keys);
}

static void do_advance(const struct job *job)
{
	struct audit audit;

	start(job, false, &tree, &keys, &audit);
	advance(&tree, &keys, false);
	hostkeys_done(&keys);
}

/* A generation of which root.next is left. */
static void do_count(const struct job *job)
{
	struct audit audit;

	start(job, false, &tree, &keys, &audit);
	advance(&tree, &keys, true);
	hostkeys_done(&keys);
}

/* What `secpool keystore recover` has the enclave do, and the start behind it. */
static void do_recover(const struct job *job)
{
	const struct anchor_options options = options_of(job, false);
	struct recover_claim claim = {.generation = job->generation, .next = job->next};
	int ends[2];

	memcpy(claim.audit_head, shared->head, sizeof claim.audit_head);
	if (pipe(ends) != 0 || write(ends[1], job->typed, strlen(job->typed)) < 0)
		end_job(SECPOOL_E_SYSTEM);
	close(ends[1]);
	claim.key_fd = ends[0];
	need(recover_run(&options, &claim, &tree));
	do_open(job);
}

/* As a firmware update does it. */
static void do_measure(const struct job *job)
{
	struct tpm *tpm = NULL;

	need(tpm_open(vtpms[job->tpm]->where, &tpm));
	need(tpm_extend(tpm, 7, "another firmware"));
	tpm_close(tpm);
}

/* ---- the store ---- */

static void shell(const char *format, ...) PRINTF_LIKE(1, 2);
static void shell(const char *format, ...)
{
	char command[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof command, format, args);
	va_end(args);
	assert_int_equal(system(command), 0);
}

static void keep_as(const char *name)
{
	shell("rm -rf %s/%s && cp -a %s %s/%s", folder, name, state_dir, folder, name);
}

static void put_back(const char *name)
{
	shell("rm -rf %s && cp -a %s/%s %s", state_dir, folder, name, state_dir);
}

static void must(bool ended)
{
	assert_true(ended);
	if (shared->error)
		fail_msg("%s: %s", err_name(shared->error), shared->text);
}

static void must_not(bool ended, enum secpool_error error, const char *word)
{
	assert_true(ended);
	if (shared->error != error || !strstr(shared->text, word))
		fail_msg("%s: '%s', not '%s'", err_name(shared->error), shared->text, word);
}

/* A store of the first TPM, and the key that was shown for it. */
static void make_store(char ret_key[KEY_BYTES])
{
	shell("rm -rf %s && mkdir -m 700 %s", state_dir, state_dir);
	must(run(do_make, (struct job){.tpm = 0}));
	assert_true(shared->provisioned);
	memcpy(ret_key, key, KEY_BYTES);
}

static int set_up(void **state)
{
	(void)state;
	memset(shared, 0, sizeof *shared);
	for (unsigned i = 0; i < VTPMS; i++) {
		vtpm_init(vtpms[i]);
		vtpm_start(vtpms[i], (const char *const[]){"--provision", NULL});
	}
	snprintf(folder, sizeof folder, "%s", lost.folder);
	snprintf(state_dir, sizeof state_dir, "%s/keys", folder);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	for (unsigned i = 0; i < VTPMS; i++)
		vtpm_done(vtpms[i]);
	return 0;
}

/* ---- the tests ---- */

/* To a second TPM, and to a third: each time by the key that was shown last, and by no other; generations go on. */
static void moves_twice(void **state)
{
	char first[KEY_BYTES], second[KEY_BYTES], third[KEY_BYTES];
	uint64_t generation;

	(void)state;
	make_store(first);
	generation = shared->generation;
	keep_as("before");
	must_not(run(do_open, (struct job){.tpm = 1}), SECPOOL_E_TPM, "secpool keystore recover");
	must(run(do_recover, (struct job){1, false, false, first, generation, generation + 5, 0}));
	assert_true(shared->recovered && shared->generation == generation + 5);
	memcpy(second, key, sizeof second);
	assert_string_not_equal(first, second);
	/* the record of the start comes again until there is another generation */
	must(run(do_open, (struct job){.tpm = 1}));
	assert_true(shared->recovered);
	must(run(do_advance, (struct job){.tpm = 1}));
	must(run(do_open, (struct job){.tpm = 1}));
	assert_true(!shared->recovered && shared->generation == generation + 6);
	keep_as("moved");
	/* neither the first TPM nor what was copied before opens now */
	must_not(run(do_open, (struct job){.tpm = 0}), SECPOOL_E_TPM, "cleared, or is another");
	put_back("before");
	must_not(run(do_open, (struct job){.tpm = 1}), SECPOOL_E_TPM, "cleared, or is another");
	put_back("moved");
	must_not(run(do_recover,
			 (struct job){2, false, false, first, generation + 6, generation + 7, 0}),
		SECPOOL_E_DENIED, "this recovery key does not open it");
	must(run(do_recover,
		(struct job){2, false, false, second, generation + 6, generation + 7, 0}));
	memcpy(third, key, sizeof third);
	must(run(do_advance, (struct job){.tpm = 2}));
	must(run(do_open, (struct job){.tpm = 2}));
	assert_string_not_equal(second, third);
}

/* What the operator says must fit, and a wrong answer changes nothing. */
static void refuses(void **state)
{
	char first[KEY_BYTES], other[KEY_BYTES], typed[KEY_BYTES];
	uint64_t g;

	(void)state;
	make_store(other);
	make_store(first);
	g = shared->generation;
	keep_as("before");
	must_not(run(do_recover, (struct job){1, false, false, other, g, g + 1, 0}),
		SECPOOL_E_DENIED, "does not open");
	must_not(run(do_recover, (struct job){1, false, false, "hello\n", g, g + 1, 0}),
		SECPOOL_E_INVALID, "no recovery key");
	memcpy(typed, first, sizeof typed);
	typed[6] = typed[6] == 'A' ? 'B' : 'A';
	must_not(run(do_recover, (struct job){1, false, false, typed, g, g + 1, 0}),
		SECPOOL_E_INVALID, "mistyped");
	must_not(run(do_recover, (struct job){1, false, false, first, g + 1, g + 2, 0}),
		SECPOOL_E_DENIED, "of generation");
	must_not(run(do_recover, (struct job){1, false, false, first, g, g, 0}), SECPOOL_E_STORE,
		"rolled back");
	/* a number that a changed directory has: it would leave no room for what was asserted */
	for (uint64_t next = UINT64_MAX; next > g + (1 << 20); next >>= 1)
		must_not(run(do_recover, (struct job){1, false, false, first, g, next, 0}),
			SECPOOL_E_STORE, "was changed");
	must_not(run(do_recover, (struct job){1, false, true, first, g, g + 1, 0}),
		SECPOOL_E_POLICY, "secpool keystore provision");
	shared->head[3] ^= 1;
	must_not(run(do_recover, (struct job){1, false, false, first, g, g + 1, 0}),
		SECPOOL_E_DENIED, "its head is");
	shared->head[3] ^= 1;
	shell("diff -r %s/before %s", folder, state_dir);
	must(run(do_open, (struct job){.tpm = 0}));
	/* an old backup: its own generation is not the one that the newest receipt has */
	must(run(do_advance, (struct job){.tpm = 0}));
	put_back("before");
	must_not(run(do_recover, (struct job){1, false, false, first, g + 1, g + 2, 0}),
		SECPOOL_E_DENIED, "newer backup");
}

/* Other firmware, and the same TPM: shut until the recovery key has sealed it anew, and then only as it is now. */
static void other_firmware(void **state)
{
	char first[KEY_BYTES];
	uint64_t g;

	(void)state;
	make_store(first);
	g = shared->generation;
	keep_as("before");
	must(run(do_measure, (struct job){.tpm = 0}));
	must_not(run(do_open, (struct job){.tpm = 0}), SECPOOL_E_TPM, "PCRs changed");
	must(run(do_recover, (struct job){0, false, false, first, g, g + 1, 0}));
	must(run(do_advance, (struct job){.tpm = 0}));
	must(run(do_open, (struct job){.tpm = 0}));
	/* the counter of before is gone from this TPM, so that not even the firmware of before opens a copy */
	put_back("before");
	must_not(run(do_open, (struct job){.tpm = 0}), SECPOOL_E_TPM, "cleared, or is another");
}

/* recovery: none makes a store that nothing but its TPM opens, also of one that had a key. */
static void does_without(void **state)
{
	char first[KEY_BYTES];
	uint64_t g;

	(void)state;
	shell("mkdir -m 700 %s", state_dir);
	must_not(run(do_make, (struct job){.nowhere = true}), SECPOOL_E_POLICY, "seen by nobody");
	key[0] = '\0';
	must(run(do_make, (struct job){.no_recovery = true, .nowhere = true}));
	assert_string_equal(key, "");
	g = shared->generation;
	make_store(first);
	g = shared->generation;
	key[0] = '\0';
	must(run(do_recover, (struct job){1, true, true, first, g, g + 1, 0}));
	assert_string_equal(key, "");
	must_not(run(do_recover, (struct job){2, false, false, first, g + 1, g + 2, 0}),
		SECPOOL_E_DENIED, "nothing for a recovery key");
}

/* Blanks, small letters and no dashes: as somebody types it. */
static void is_typed_by_hand(void **state)
{
	char first[KEY_BYTES], typed[2 * KEY_BYTES];
	size_t at = 0;

	(void)state;
	make_store(first);
	for (const char *c = first; *c; c++) {
		typed[at++] = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c == '-' ? ' ' : *c);
	}
	typed[at] = '\0';
	must(run(do_recover, (struct job){1, false, false, typed, shared->generation,
				     shared->generation + 1, 0}));
}

/* all: else only up to the commit. After kill -9 anywhere: either the new TPM opens it, and the old key can do nothing more, or the old key can do it again. */
static void kill_everywhere(const char *first, uint64_t g, bool all)
{
	uint64_t next;
	int points = 0, before = 0;
	bool ended = false, opens = false;

	keep_as("before");
	for (next = g + 1; !ended && (all || !opens); next += 3) {
		uint8_t head[AUDIT_DIGEST_BYTES];

		put_back("before");
		memcpy(head, shared->head, sizeof head);
		shared->crash_at = ++points;
		ended = run(do_recover, (struct job){1, false, false, first, g, next, 0});
		shared->crash_at = 0;
		keep_as("killed");
		memcpy(shared->head, head, sizeof head);
		run(do_open, (struct job){.tpm = 1});
		opens = shared->error == SECPOOL_OK;
		if (opens) {
			assert_true(shared->generation == next);
		} else {
			before++;
			must_not(true, SECPOOL_E_TPM, "cleared, or is another");
		}
		put_back("killed");
		memcpy(shared->head, head, sizeof head);
		run(do_recover, (struct job){2, false, false, first, g, next + 1, 0});
		if (opens)
			must_not(true, SECPOOL_E_DENIED, "");
		else
			must(true);
		memcpy(shared->head, head, sizeof head);
	}
	printf("recover: killed at %d points, %d of them before it was the new TPM's\n", points - 1,
		before);
	assert_true(all ? before >= 3 && points - before >= 10 : before >= 8 && opens);
}

static void killed_anywhere(void **state)
{
	char first[KEY_BYTES];

	(void)state;
	make_store(first);
	kill_everywhere(first, shared->generation, true);
}

/* The TPM went when it had counted, and root.next was not in its place yet: what is refused changes nothing, and what is not goes on from it. */
static void counted_and_gone(void **state)
{
	char first[KEY_BYTES];
	uint64_t g;

	(void)state;
	make_store(first);
	must(run(do_count, (struct job){.tpm = 0}));
	g = shared->generation;
	shell("test -e %s/root.next", state_dir);
	keep_as("before");
	must_not(run(do_recover, (struct job){1, false, false, first, g - 1, g + 1, 0}),
		SECPOOL_E_DENIED, "of generation");
	must_not(run(do_recover, (struct job){1, false, true, first, g, g + 1, 0}),
		SECPOOL_E_POLICY, "secpool keystore provision");
	shared->head[3] ^= 1;
	must_not(run(do_recover, (struct job){1, false, false, first, g, g + 1, 0}),
		SECPOOL_E_DENIED, "its head is");
	shared->head[3] ^= 1;
	shell("diff -r %s/before %s", folder, state_dir);
	kill_everywhere(first, g, false);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(moves_twice),
		TEST(refuses),
		TEST(other_firmware),
		TEST(does_without),
		TEST(is_typed_by_hand),
		TEST(killed_anywhere),
		TEST(counted_and_gone),
	};

	log_init("test_recover", (enum log_level)0);
	shared = mmap(
		NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
