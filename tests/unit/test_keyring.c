/* SPDX-License-Identifier: Apache-2.0 */
/* Which key a version stands for, that versions rise and fit, and that what was written under a key that was wiped opens under none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "enclave/keypage.h"
#include "enclave/secmem.h"
#include "lib/base/os.h"
#include "lib/keyring.h"
#include "lib/wire/msg.h"

enum { PAGE = 4096, PGNO = 9 };

static struct keyring ring;
static uint8_t plain[PAGE], sealed[PAGE], opened[PAGE], tag[PAGECIPHER_TAG_BYTES];

static struct pagecipher *new_cipher(uint64_t epoch)
{
	struct pagecipher_binding binding = {.region = 1, .epoch = epoch, .page_bytes = PAGE};
	struct pagecipher *cipher = NULL;
	struct region_keys keys;
	void *page = NULL;
	int fd = -1;

	os_random(&keys, sizeof keys);
	assert_int_equal(secmem_new_shared(&fd, &page), SECPOOL_OK);
	keypage_put(page, &binding, MSG_PROTECTION_XTS_GMAC, KEYPAGE_ANY, &keys);
	secmem_free_pages(page, KEYPAGE_BYTES);
	assert_int_equal(pagecipher_new(fd, &binding, 1, &cipher), SECPOOL_OK);
	close(fd);
	return cipher;
}

static int set_up(void **state)
{
	struct pagecipher *cipher = new_cipher(1);

	(void)state;
	keyring_init(&ring, &cipher);
	assert_null(cipher);
	os_random(plain, sizeof plain);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	keyring_done(&ring);
	return 0;
}

static void turn(uint64_t epoch)
{
	struct pagecipher *cipher = new_cipher(epoch);

	keyring_turn(&ring, &cipher);
	assert_null(cipher);
}

static void seal(uint64_t version)
{
	assert_int_equal(keyring_seal(&ring, 0, PGNO, version, plain, sealed, tag), SECPOOL_OK);
}

static enum secpool_error open_page(uint64_t version)
{
	enum secpool_error error = keyring_open(&ring, 0, PGNO, version, sealed, tag, opened);

	assert_int_equal(keyring_check(&ring, 0, PGNO, version, sealed, tag), error);
	if (!error)
		assert_memory_equal(opened, plain, PAGE);
	return error;
}

static void test_versions_rise_through_turns(void **state)
{
	uint64_t version = keyring_next(&ring, 0);

	(void)state;
	assert_true(version == 1);
	assert_true(keyring_next(&ring, version) == 2);
	turn(2);
	assert_true(keyring_is_old(&ring, version));
	version = keyring_next(&ring, version);
	assert_true(version == (2 | PAGE_KEY_BIT));
	assert_false(keyring_is_old(&ring, version));
	assert_true(keyring_next(&ring, 0) == (1 | PAGE_KEY_BIT));
	keyring_retire(&ring);
	turn(3);
	assert_true(keyring_is_old(&ring, version));
	assert_true(keyring_next(&ring, version) == 3);
}

/* With a new key a great number begins again; under one key it never does, and never reaches the key's bit. */
static void test_versions_fit(void **state)
{
	uint64_t greatest = KEYRING_RISES_TO + PAGECIPHER_BLOCKS_HARD / 256;

	(void)state;
	assert_true(keyring_next(&ring, greatest) == greatest + 1);
	assert_true(keyring_next(&ring, PAGE_KEY_BIT - 1) > PAGE_VERSION_MOST);
	assert_int_equal(keyring_seal(&ring, 0, PGNO, keyring_next(&ring, PAGE_KEY_BIT - 1), plain,
				 sealed, tag),
		SECPOOL_E_LIMIT);
	turn(2);
	assert_true(
		keyring_next(&ring, KEYRING_RISES_TO) == ((KEYRING_RISES_TO + 1) | PAGE_KEY_BIT));
	assert_true(keyring_next(&ring, KEYRING_RISES_TO + 1) == (1 | PAGE_KEY_BIT));
	assert_true(
		keyring_next(&ring, greatest | PAGE_KEY_BIT) == ((greatest + 1) | PAGE_KEY_BIT));
}

static void test_each_version_has_its_key(void **state)
{
	uint8_t old[PAGE], old_tag[sizeof tag];

	(void)state;
	seal(1);
	memcpy(old, sealed, PAGE);
	memcpy(old_tag, tag, sizeof tag);
	turn(2);
	assert_true(keyring_is_turning(&ring));
	/* what is under the old key still opens, and only as that */
	assert_int_equal(open_page(1), SECPOOL_OK);
	assert_int_equal(open_page(1 | PAGE_KEY_BIT), SECPOOL_E_INTEGRITY);
	seal(keyring_next(&ring, 1));
	assert_int_equal(open_page(2 | PAGE_KEY_BIT), SECPOOL_OK);
	assert_int_equal(open_page(2), SECPOOL_E_INTEGRITY);
	assert_memory_not_equal(sealed, old, PAGE);
	/* of the old key nothing is left; a third one comes where it was */
	keyring_retire(&ring);
	assert_false(keyring_is_turning(&ring));
	turn(3);
	assert_int_equal(open_page(2 | PAGE_KEY_BIT), SECPOOL_OK);
	memcpy(sealed, old, PAGE);
	memcpy(tag, old_tag, sizeof tag);
	assert_int_equal(open_page(1), SECPOOL_E_INTEGRITY);
	assert_int_equal(open_page(1 | PAGE_KEY_BIT), SECPOOL_E_INTEGRITY);
}

static void test_blocks_are_the_current_keys(void **state)
{
	(void)state;
	assert_true(keyring_blocks(&ring) == 0);
	seal(1);
	assert_true(keyring_blocks(&ring) >= PAGE / 16);
	turn(2);
	assert_true(keyring_blocks(&ring) == 0);
	seal(keyring_next(&ring, 1));
	assert_true(keyring_blocks(&ring) >= PAGE / 16);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			test_versions_rise_through_turns, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_versions_fit, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_each_version_has_its_key, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			test_blocks_are_the_current_keys, set_up, tear_down),
	};

	if (secmem_init(SECMEM_ALLOW_LOCKED) != SECPOOL_OK)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
