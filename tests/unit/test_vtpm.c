/* SPDX-License-Identifier: Apache-2.0 */
/*
 * secpool-vtpm as a process: its command line, its state on disk, and its socket under bad
 * clients.
 */
#include "tests/unit/vtpm_fixture.h"

static void bad_usage_is_2(void **state)
{
	static const char *const bad[][3] = {{"--no-such-option", NULL}, {"word", NULL},
		{"--extend", "24:x", NULL}, {"--extend", "x", NULL}, {"--extend", "-1:x", NULL},
		{"--extend", "1", NULL}, {"--socket", "", NULL}, {"--extend", NULL}};

	(void)state;
	for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(failed_start(&vtpm, bad[i]), 2);
	assert_int_equal(failed_start(&vtpm, (const char *const[]){"--help", NULL}), 0);
}

static void missing_state_is_refused(void **state)
{
	struct tpm_public ek, again;
	char path[128];

	(void)state;
	assert_int_equal(failed_start(&vtpm, NULL), 1);
	path_of("", path);
	assert_int_not_equal(access(path, F_OK), 0);
	vtpm_start(&vtpm, PROVISION);
	get_ek(&ek);
	assert_int_equal(vtpm_end(&vtpm, SIGTERM), 0);
	path_of("state", path);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(failed_start(&vtpm, NULL), 1);
	assert_int_not_equal(access(path, F_OK), 0);
	vtpm_start(&vtpm, PROVISION);
	get_ek(&again);
	assert_memory_not_equal(again.area, ek.area, ek.bytes);
}

static void state_is_kept(void **state)
{
	struct tpm_public ek, again;
	struct stat about;
	char path[128];

	(void)state;
	vtpm_start(&vtpm, PROVISION);
	get_ek(&ek);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(
			vtpm_end(&vtpm, i == 1 ? SIGKILL : SIGTERM), i == 1 ? 1000 + SIGKILL : 0);
		assert_int_equal(access(vtpm.socket, F_OK) == 0, i == 1);
		vtpm_start(&vtpm, i == 2 ? PROVISION : NULL);
		get_ek(&again);
		assert_int_equal(again.bytes, ek.bytes);
		assert_memory_equal(again.area, ek.area, ek.bytes);
	}
	path_of("key", path);
	assert_int_equal(stat(path, &about), 0);
	assert_int_equal(about.st_mode & 07777, 0600);
	assert_int_equal(about.st_size, 32);
	path_of("state", path);
	assert_int_equal(stat(path, &about), 0);
	assert_int_equal(about.st_mode & 07777, 0600);
	assert_int_equal(stat(vtpm.socket, &about), 0);
	assert_int_equal(about.st_mode & 07777, 0600);
}

/* The trap of notes/tpm.md, section 1: TPMs made of nothing all have the same keys. */
static void each_tpm_is_another(void **state)
{
	struct tpm_public ek, other;
	struct vtpm first;

	(void)state;
	vtpm_start(&vtpm, PROVISION);
	get_ek(&ek);
	first = vtpm;
	vtpm_init(&vtpm);
	vtpm_start(&vtpm, PROVISION);
	get_ek(&other);
	assert_memory_not_equal(other.area, ek.area, ek.bytes);
	vtpm_done(&vtpm);
	vtpm = first;
}

static void write_file(const char *path, const char *bytes, size_t count)
{
	assert_int_equal(os_write_file_durable(path, bytes, count, 0600), SECPOOL_OK);
}

static void damaged_state_is_refused(void **state)
{
	char path[128], *text = NULL;
	size_t bytes = 0;

	(void)state;
	vtpm_start(&vtpm, PROVISION);
	assert_int_equal(vtpm_end(&vtpm, SIGTERM), 0);
	path_of("state", path);
	assert_int_equal(os_read_file(path, 1 << 20, &text, &bytes), SECPOOL_OK);
	for (size_t at = 0; at < bytes; at += at < 36 ? 7 : 97) {
		text[at] ^= 16;
		write_file(path, text, bytes);
		assert_int_equal(failed_start(&vtpm, at % 2 ? PROVISION : NULL), 1);
		text[at] ^= 16;
	}
	for (size_t cut = 0; cut < bytes; cut += 1 + bytes / 12) {
		write_file(path, text, cut);
		assert_int_equal(failed_start(&vtpm, cut % 2 ? PROVISION : NULL), 1);
	}
	write_file(path, text, bytes);
	vtpm_start(&vtpm, NULL);
	free(text);
}

static void damaged_key_is_refused(void **state)
{
	char path[128], *text = NULL;
	size_t bytes = 0;

	(void)state;
	vtpm_start(&vtpm, PROVISION);
	assert_int_equal(vtpm_end(&vtpm, SIGTERM), 0);
	path_of("key", path);
	assert_int_equal(os_read_file(path, 64, &text, &bytes), SECPOOL_OK);
	write_file(path, text, bytes - 1);
	assert_int_equal(failed_start(&vtpm, PROVISION), 1);
	text[3] ^= 1;
	write_file(path, text, bytes);
	assert_int_equal(failed_start(&vtpm, PROVISION), 1);
	text[3] ^= 1;
	write_file(path, text, bytes);
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(failed_start(&vtpm, PROVISION), 1);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(failed_start(&vtpm, PROVISION), 1);
	assert_int_not_equal(access(path, F_OK), 0);
	write_file(path, text, bytes);
	vtpm_start(&vtpm, NULL);
	free(text);
}

static void second_is_refused(void **state)
{
	struct vtpm second, other;

	(void)state;
	vtpm_start(&vtpm, PROVISION);
	second = vtpm;
	snprintf(second.socket, sizeof second.socket, "%s/sock2", vtpm.folder);
	assert_int_equal(failed_start(&second, NULL), 1);
	assert_int_equal(failed_start(&second, PROVISION), 1);
	vtpm_init(&other); /* its own state, but our socket */
	memcpy(other.socket, vtpm.socket, sizeof other.socket);
	assert_int_equal(failed_start(&other, PROVISION), 1);
	vtpm_done(&other);
	expect_served();
}

static void what_is_no_socket_stays(void **state)
{
	struct stat about;

	(void)state;
	write_file(vtpm.socket, "a file", 6);
	assert_int_equal(failed_start(&vtpm, PROVISION), 1);
	assert_int_equal(stat(vtpm.socket, &about), 0);
	assert_int_equal(about.st_size, 6);
}

static void refused_extend_ends_the_start(void **state)
{
	(void)state;
	/* PCR 17 needs a locality that a socket does not give */
	assert_int_equal(
		failed_start(&vtpm, (const char *const[]){"--provision", "--extend", "17:x", NULL}),
		1);
	assert_int_not_equal(access(vtpm.socket, F_OK), 0);
	vtpm_start(&vtpm, NULL);
}

static void is_hardened(void **state)
{
	char path[64], *text = NULL, *found;
	size_t bytes = 0;

	(void)state;
	vtpm_start(&vtpm, PROVISION);
	snprintf(path, sizeof path, "/proc/%d/limits", vtpm.pid);
	assert_int_equal(os_read_file(path, 65536, &text, &bytes), SECPOOL_OK);
	found = strstr(text, "Max core file size");
	assert_non_null(found);
	assert_memory_equal(found + 26, "0 ", 2);
	free(text);
	snprintf(path, sizeof path, "/proc/%d/status", vtpm.pid);
	assert_int_equal(os_read_file(path, 65536, &text, &bytes), SECPOOL_OK);
	assert_non_null(strstr(text, "NoNewPrivs:\t1"));
#ifndef __SANITIZE_ADDRESS__ /* it makes mlockall do nothing */
	found = strstr(text, "VmLck:");
	assert_non_null(found);
	assert_true(strtoul(found + 6, NULL, 10) > 0);
#endif
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(bad_usage_is_2, setup, teardown),
		cmocka_unit_test_setup_teardown(missing_state_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(state_is_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(each_tpm_is_another, setup, teardown),
		cmocka_unit_test_setup_teardown(damaged_state_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(damaged_key_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(second_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_no_socket_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(refused_extend_ends_the_start, setup, teardown),
		cmocka_unit_test_setup_teardown(is_hardened, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
