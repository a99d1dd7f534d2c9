/* SPDX-License-Identifier: Apache-2.0 */
/* Generations of the key tree (anchor.h) against a real secpool-vtpm process: numbers that were skipped hold none up, and a count that was cut short is gone on with. timeout: 120 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "enclave/anchor.h"
#include "enclave/secmem.h"
#include "lib/base/os.h"
#include "tests/unit/vtpm_process.h"

enum { PCRS = 1 << 7, PATH_BYTES = 160, NEXT_BYTES = 1 << 20, SKIPPED = ANCHOR_STEPS_MOST + 4 };

static struct vtpm vtpm;
static char state_dir[PATH_BYTES], next_path[PATH_BYTES + 16];
static struct anchor anchor;
static struct keytree tree;
static uint8_t next[NEXT_BYTES];

static void start(bool provisions)
{
	const struct anchor_options options = {.tpm = vtpm.where,
		.state_dir = state_dir,
		.pcrs = PCRS,
		.may_provision = provisions};
	bool provisioned = false;

	if (anchor_start(&anchor, &tree, &options, &provisioned))
		fail_msg("%s", err_detail());
	assert_int_equal(provisioned, provisions);
	anchor.skipped_most = SKIPPED;
}

static void stop(void)
{
	keytree_done(&tree);
	anchor_done(&anchor);
}

static int set_up(void **state)
{
	(void)state;
	vtpm_init(&vtpm);
	vtpm_start(&vtpm, (const char *const[]){"--provision", NULL});
	snprintf(state_dir, sizeof state_dir, "%s/keys", vtpm.folder);
	snprintf(next_path, sizeof next_path, "%s/" KEYFILE_NEXT, state_dir);
	assert_int_equal(os_make_dir(state_dir, 0700), SECPOOL_OK);
	start(true);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	stop();
	vtpm_done(&vtpm);
	return 0;
}

/* Sealed for this value, and written as the front does it. */
static void seal(uint64_t last)
{
	struct buf_writer writer = {.bytes = next, .capacity = sizeof next};

	if (anchor_seal(&anchor, &tree, last, &writer))
		fail_msg("%s", err_detail());
	assert_int_equal(os_write_file_durable(next_path, next, writer.used, 0600), SECPOOL_OK);
}

static void skipped_numbers_hold_none_up(void **state)
{
	struct buf_writer writer = {.bytes = next, .capacity = sizeof next};
	uint64_t first = anchor.generation, last = first + SKIPPED;

	(void)state;
	assert_int_equal(anchor_commit(&anchor, &tree), SECPOOL_E_INVALID);
	assert_int_equal(anchor_seal(&anchor, &tree, last + 1, &writer), SECPOOL_E_LIMIT);
	assert_non_null(strstr(err_detail(), "anchor_skipped_most"));
	assert_false(anchor.pending);
	seal(last);
	assert_int_equal(anchor_commit(&anchor, &tree), SECPOOL_OK);
	assert_true(anchor.pending);
	assert_int_equal(anchor.counted, first + ANCHOR_STEPS_MOST);
	assert_int_equal(anchor.generation, first);
	assert_int_equal(anchor_commit(&anchor, &tree), SECPOOL_OK);
	assert_false(anchor.pending);
	assert_int_equal(anchor.generation, last);
	/* none below is sealed for again */
	assert_int_equal(anchor_seal(&anchor, &tree, last, &writer), SECPOOL_E_INVALID);
	assert_int_equal(anchor_seal(&anchor, &tree, last - 1, &writer), SECPOOL_E_INVALID);
	/* what opens now is the new one */
	stop();
	start(false);
	assert_int_equal(anchor.generation, last);
	seal(last + 1);
	assert_int_equal(anchor_commit(&anchor, &tree), SECPOOL_OK);
	assert_int_equal(anchor.generation, last + 1);
}

static void a_count_cut_short_is_gone_on_with(void **state)
{
	uint64_t last = anchor.generation + SKIPPED;

	(void)state;
	seal(last);
	assert_int_equal(anchor_commit(&anchor, &tree), SECPOOL_OK);
	assert_true(anchor.pending);
	stop();
	start(false);
	assert_int_equal(anchor.generation, last);
	assert_int_equal(anchor.counted, last);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(skipped_numbers_hold_none_up),
		TEST(a_count_cut_short_is_gone_on_with),
	};

	if (secmem_init(SECMEM_ALLOW_LOCKED) != SECPOOL_OK)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
