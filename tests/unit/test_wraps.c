/* SPDX-License-Identifier: Apache-2.0 */
/* The file of wrapped keys, looked at from outside: what was erased is nowhere in it, nor what a crash left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <signal.h>

#include <cmocka.h>

#include "keymgr/wraps.h"
#include "lib/base/os.h"

static char folder[64], path[96], store[96];
static struct directory *directory;
static struct wraps *wraps;

static int set_up(void **state)
{
	(void)state;
	snprintf(folder, sizeof folder, "/tmp/secpool-wraps-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof path, "%s/wraps", folder);
	snprintf(store, sizeof store, "%s/directory.db", folder);
	if (directory_open(store, &directory) != SECPOOL_OK)
		return -1;
	return wraps_open(folder, directory, &wraps) == SECPOOL_OK ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	wraps_close(wraps);
	wraps = NULL;
	directory_close(directory);
	directory = NULL;
	return os_remove_tree(folder) == SECPOOL_OK ? 0 : -1;
}

/* As the enclave gives it; node 3 comes with it. */
static struct msg_enc_key_wrapped wrapped_of(const void *key, size_t bytes, uint64_t slot)
{
	struct msg_enc_key_wrapped wrapped = {.region = 1,
		.epoch = 1,
		.slot = slot,
		.node_count = 1,
		.nodes = {3},
		.wrapped_bytes = (uint32_t)bytes};

	memset(wrapped.records, 0x4e, KEYFILE_NODE_BYTES);
	memcpy(wrapped.wrapped, key,
		bytes < sizeof wrapped.wrapped ? bytes : sizeof wrapped.wrapped);
	return wrapped;
}

static enum secpool_error put_one(const struct msg_enc_key_wrapped *key)
{
	return wraps_put_all(wraps, &key, 1);
}

static enum secpool_error put_at(const void *key, size_t bytes, uint64_t slot)
{
	const struct msg_enc_key_wrapped wrapped = wrapped_of(key, bytes, slot);

	return put_one(&wrapped);
}

static uint64_t put(const char *key)
{
	static uint64_t slot;

	assert_int_equal(put_at(key, strlen(key), ++slot), SECPOOL_OK);
	return slot;
}

static bool is_there(const char *key)
{
	char *text = NULL;
	size_t bytes = 0;
	bool found;

	assert_int_equal(os_read_file(path, 1 << 24, &text, &bytes), SECPOOL_OK);
	assert_int_equal(bytes % KEYFILE_SLOT_BYTES, 0);
	found = memmem(text, bytes, key, strlen(key)) != NULL;
	free(text);
	return found;
}

static void name_in_directory(uint64_t slot)
{
	assert_int_equal(
		directory_run(directory,
			"INSERT INTO regions (tenant, uid, pid, start_ticks, address, bytes,"
			" page_bytes, data, lanes, on_loss, name, state, epoch, wrap)"
			" VALUES ('t', 0, 1, 1, ?1, 1, 1, 1, 1, 1, 'n', 1, 1, ?1)",
			DIRECTORY_VALUES(DIRECTORY_N(slot))),
		SECPOOL_OK);
}

static void reopen(void)
{
	wraps_close(wraps);
	wraps = NULL;
	assert_int_equal(wraps_open(folder, directory, &wraps), SECPOOL_OK);
	assert_int_equal(wraps_erase_unnamed(wraps), SECPOOL_OK);
}

static void test_an_erased_key_is_nowhere(void **state)
{
	struct stat status;
	uint64_t first, second;

	(void)state;
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	first = put("WRAPPED-KEY-OF-THE-FIRST");
	second = put("WRAPPED-KEY-OF-THE-SECOND");
	assert_true(first != second);
	assert_true(is_there("WRAPPED-KEY-OF-THE-FIRST"));
	assert_int_equal(wraps_erase(wraps, first), SECPOOL_OK);
	assert_false(is_there("WRAPPED-KEY-OF-THE-FIRST"));
	assert_true(is_there("WRAPPED-KEY-OF-THE-SECOND"));
	/* its slot is used again, and nothing of the longer key is left behind the shorter one */
	assert_int_equal(put_at("short", 5, first), SECPOOL_OK);
	assert_int_equal(wraps_erase(wraps, second), SECPOOL_OK);
	assert_false(is_there("WRAPPED-KEY"));
	assert_int_equal(wraps_erase(wraps, 0), SECPOOL_OK);
}

static void test_nodes_come_first(void **state)
{
	char nodes[96], *text = NULL;
	size_t bytes = 0;

	(void)state;
	put("key");
	snprintf(nodes, sizeof nodes, "%s/nodes", folder);
	assert_int_equal(os_read_file(nodes, 1 << 24, &text, &bytes), SECPOOL_OK);
	assert_int_equal(bytes, 4 * KEYFILE_NODE_BYTES);
	assert_int_equal(text[3 * KEYFILE_NODE_BYTES], 0x4e);
	assert_int_equal(text[bytes - 1], 0x4e);
	free(text);
}

static void test_what_no_region_names_is_overwritten_at_the_start(void **state)
{
	uint64_t kept, left;

	(void)state;
	left = put("KEY-OF-A-CRASHED-RELEASE");
	kept = put("KEY-OF-A-LIVE-REGION");
	name_in_directory(kept);
	reopen();
	assert_false(is_there("KEY-OF-A-CRASHED-RELEASE"));
	assert_true(is_there("KEY-OF-A-LIVE-REGION"));
	assert_int_equal(put_at("another", 7, left), SECPOOL_OK);
	assert_true(is_there("KEY-OF-A-LIVE-REGION"));
	assert_int_equal(wraps_erase(wraps, kept), SECPOOL_OK);
	assert_false(is_there("KEY-OF-A-LIVE-REGION"));
}

/* While a region is rotated its row names two slots. */
static void test_both_keys_of_a_rotation_are_kept(void **state)
{
	uint64_t before, next;

	(void)state;
	before = put("KEY-THAT-PAGES-MOVE-OFF");
	next = put("KEY-THAT-PAGES-MOVE-TO");
	put("KEY-OF-A-CRASHED-ROTATION");
	name_in_directory(before);
	assert_int_equal(
		directory_run(directory, "UPDATE regions SET next_epoch = 2, next_wrap = ?1",
			DIRECTORY_VALUES(DIRECTORY_N(next))),
		SECPOOL_OK);
	reopen();
	assert_true(is_there("KEY-THAT-PAGES-MOVE-OFF"));
	assert_true(is_there("KEY-THAT-PAGES-MOVE-TO"));
	assert_false(is_there("KEY-OF-A-CRASHED-ROTATION"));
	/* one whose slot is gone is missed */
	assert_int_equal(directory_run(directory, "UPDATE regions SET next_wrap = 99999",
				 DIRECTORY_VALUES()),
		SECPOOL_OK);
	wraps_close(wraps);
	wraps = NULL;
	assert_int_equal(wraps_open(folder, directory, &wraps), SECPOOL_E_STORE);
}

static void test_a_slot_cut_short_is_made_whole(void **state)
{
	(void)state;
	put("KEY-CUT-SHORT");
	assert_int_equal(truncate(path, 40), 0);
	reopen();
	assert_false(is_there("KEY-CUT-SHORT"));
}

static void test_a_lost_file_is_refused(void **state)
{
	struct wraps *other = NULL;

	(void)state;
	name_in_directory(put("key"));
	wraps_close(wraps);
	wraps = NULL;
	assert_int_equal(unlink(path), 0);
	assert_int_equal(wraps_open(folder, directory, &other), SECPOOL_E_STORE);
	assert_non_null(strstr(err_detail(), path));
	assert_null(other);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink("/dev/null", path), 0);
	assert_int_equal(wraps_open(folder, directory, &other), SECPOOL_E_STORE);
	assert_null(other);
	assert_int_equal(wraps_open("/nowhere", directory, &other), SECPOOL_E_STORE);
	assert_non_null(strstr(err_detail(), "/nowhere/wraps"));
}

static void test_bad_arguments_change_nothing(void **state)
{
	static const uint8_t bytes[KEYFILE_SLOT_USED_MOST + 1];
	struct msg_enc_key_wrapped wrapped = wrapped_of("key", 3, 9);

	(void)state;
	assert_int_equal(put_at(bytes, 0, 9), SECPOOL_E_INVALID);
	assert_int_equal(put_at(bytes, sizeof bytes, 9), SECPOOL_E_INVALID);
	assert_int_equal(put_at(bytes, 1, 0), SECPOOL_E_INVALID);
	assert_int_equal(put_at(bytes, 1, KEYFILE_SLOTS_MOST + 1), SECPOOL_E_INVALID);
	wrapped.nodes[0] = KEYFILE_NODES_MOST;
	assert_int_equal(put_one(&wrapped), SECPOOL_E_INVALID);
	wrapped.nodes[0] = 3;
	wrapped.node_count = 5;
	assert_int_equal(put_one(&wrapped), SECPOOL_E_INVALID);
	assert_int_equal(wraps_erase(wraps, 9), SECPOOL_E_INVALID);
	assert_int_equal(put_at(bytes, KEYFILE_SLOT_USED_MOST, 9), SECPOOL_OK);
	assert_int_equal(put_at(bytes, 1, 9), SECPOOL_E_INVALID);
	assert_int_equal(wraps_erase(wraps, 10), SECPOOL_E_INVALID);
	assert_int_equal(wraps_erase(wraps, 9), SECPOOL_OK);
	assert_int_equal(wraps_erase(wraps, 9), SECPOOL_E_INVALID);
	assert_int_equal(wraps_erase(wraps, 0), SECPOOL_OK);
}

/* Several with one wait for the disk: when one of them can't be stored, none is. */
static void test_several_are_all_or_none(void **state)
{
	const struct msg_enc_key_wrapped first = wrapped_of("first", 5, 5),
					 second = wrapped_of("second", 6, 6),
					 taken = wrapped_of("again", 5, 5);
	const struct msg_enc_key_wrapped *const good[] = {&first, &second}, *const bad[] = {&second,
										    &taken};

	(void)state;
	assert_int_equal(wraps_put_all(wraps, good, 2), SECPOOL_OK);
	assert_int_equal(wraps_erase(wraps, 6), SECPOOL_OK);
	assert_int_equal(wraps_put_all(wraps, bad, 2), SECPOOL_E_INVALID);
	assert_int_equal(wraps_erase(wraps, 6), SECPOOL_E_INVALID);
	assert_int_equal(wraps_erase(wraps, 5), SECPOOL_OK);
	assert_int_equal(wraps_put_all(wraps, NULL, 0), SECPOOL_OK);
}

/* As a new generation does it that found the slot's key dropped. */
static void empty_slot(uint64_t slot)
{
	uint8_t bytes[256];
	struct buf_writer w = {.bytes = bytes, .capacity = sizeof bytes};
	const struct keyfile_record record = {.place = (uint32_t)slot - 1, .bytes = bytes};
	struct keyfile_root root = {.first = 1, .last = 1, .blob = bytes, .blob_bytes = 1};

	keyfile_begin_root(&w, &root);
	keyfile_add_record(&w, &record);
	keyfile_end_root(&w);
	assert_int_equal(keyfile_parse_root(bytes, w.used, &root), SECPOOL_OK);
	assert_int_equal(wraps_apply(wraps, &root), SECPOOL_OK);
}

static void test_a_full_disk_is_an_error(void **state)
{
	struct rlimit before, none;
	uint64_t slot;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	none = before;
	none.rlim_cur = 0;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	assert_int_equal(put_at("k", 1, 1), SECPOOL_E_STORE);
	assert_non_null(strstr(err_detail(), folder));
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	slot = put("key");
	/* what can't be overwritten is an error too, and its slot is not used again */
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	assert_int_equal(wraps_erase(wraps, slot), SECPOOL_E_STORE);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(put_at("next", 4, slot), SECPOOL_E_INVALID);
	/* until a generation has emptied it */
	empty_slot(slot);
	assert_false(is_there("key"));
	assert_int_equal(put_at("next", 4, slot), SECPOOL_OK);
}

/* A key that could not be stored, nor taken back: later ones are stored all the same, and its slot is used again after the next generation. */
static void test_what_is_not_taken_back_blocks_nothing(void **state)
{
	const struct msg_enc_key_wrapped first = wrapped_of("first", 5, 1),
					 second = wrapped_of("second", 6, 2);
	const struct msg_enc_key_wrapped *const both[] = {&first, &second};
	struct rlimit before, little;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	little = before;
	/* room for the node and nothing else */
	little.rlim_cur = KEYFILE_SLOT_BYTES / 2;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
	assert_int_equal(wraps_put_all(wraps, both, 2), SECPOOL_E_STORE);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(put_at("third", 5, 3), SECPOOL_OK);
	empty_slot(1);
	empty_slot(2);
	assert_int_equal(wraps_put_all(wraps, both, 2), SECPOOL_OK);
	assert_true(is_there("first") && is_there("second") && is_there("third"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_an_erased_key_is_nowhere),
		TEST(test_nodes_come_first),
		TEST(test_what_no_region_names_is_overwritten_at_the_start),
		TEST(test_both_keys_of_a_rotation_are_kept),
		TEST(test_a_slot_cut_short_is_made_whole),
		TEST(test_a_lost_file_is_refused),
		TEST(test_bad_arguments_change_nothing),
		TEST(test_several_are_all_or_none),
		TEST(test_a_full_disk_is_an_error),
		TEST(test_what_is_not_taken_back_blocks_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
