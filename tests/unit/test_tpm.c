/* SPDX-License-Identifier: Apache-2.0 */
/* tpm.h against a real secpool-vtpm process. */
#include "tests/unit/tpm_fixture.h"

static void where_is_checked(void **state)
{
	static const char *const bad[] = {"", "unix:", "unix:relative", "cmd:cat",
		"device:/dev/sda", "device:", "swtpm:path=/tmp/x", "/tmp/sock"};
	char too_long[256] = "unix:/";
	struct tpm *tpm = NULL;

	(void)state;
	for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(tpm_open(bad[i], &tpm), SECPOOL_E_INVALID);
	memset(too_long + 6, 'x', 200);
	assert_int_equal(tpm_open(too_long, &tpm), SECPOOL_E_INVALID);
	assert_int_equal(tpm_open("unix:/tmp/there-is-no-such-socket", &tpm), SECPOOL_E_TPM);
	assert_non_null(strstr(err_detail(), "/tmp/there-is-no-such-socket"));
	if (access("/dev/tpmrm0", F_OK) != 0)
		assert_int_equal(tpm_open("device:/dev/tpmrm0", &tpm), SECPOOL_E_TPM);
	assert_null(tpm);
	tpm_close(NULL);
}

/* At its debug level tpm2-tss prints sealed keys: it is silenced before main, and a TPM is not opened when somebody undid that. */
static void open_wants_the_log_off(void **state)
{
	struct tpm *tpm = NULL;

	(void)state;
	assert_string_equal(getenv("TSS2_LOG"), "all+none");
	assert_null(getenv("TSS2_LOGFILE"));
	setenv("TSS2_LOG", "all+trace", 1);
	assert_int_equal(tpm_open(vtpm.where, &tpm), SECPOOL_E_TPM);
	assert_null(tpm);
	setenv("TSS2_LOG", "all+none", 1);
	tpm = open_tpm();
	tpm_close(tpm);
}

/* Whether the TPM's clock went on in order over its last loss of power: TPMS_CLOCK_INFO.safe, at the end of what a quote says before its firmware and PCRs (TPM 2.0 part 2, TPMS_CLOCK_INFO and TPMS_ATTEST). */
static bool was_orderly(void)
{
	enum { HEAD_BYTES = 4 + 2 + 2 + 34 + 2, SAFE = 8 + 4 + 4 };
	uint8_t blob[TPM_BLOB_BYTES], nonce[TPM_NONCE_BYTES] = {1};
	struct tpm *tpm = open_tpm();
	struct tpm_public ek, ak;
	struct tpm_quote quote;
	size_t bytes = 0;

	assert_int_equal(tpm_attestation_key(tpm, blob, &bytes, &ek, &ak), SECPOOL_OK);
	assert_int_equal(tpm_quote(tpm, PCRS, nonce, sizeof nonce, &quote), SECPOOL_OK);
	tpm_close(tpm);
	assert_int_equal(quote.attest[6] * 256 + quote.attest[7], 34);
	return quote.attest[HEAD_BYTES + sizeof nonce + SAFE] == 1;
}

static void lose_power(void)
{
	assert_int_equal(vtpm_end(&vtpm, SIGKILL), 1000 + SIGKILL);
	vtpm_start(&vtpm, SAME_FIRMWARE);
}

/* Who closes a TPM leaves it so that a loss of its power does no harm; the control is one that is killed while it is in use. */
static void close_shuts_down(void **state)
{
	struct tpm *tpm;

	(void)state;
	(void)was_orderly();
	lose_power();
	assert_true(was_orderly());
	lose_power();
	tpm = open_tpm();
	assert_int_equal(tpm_extend(tpm, 7, "in use"), SECPOOL_OK);
	lose_power();
	tpm_close(tpm);
	assert_false(was_orderly());
}

static void describes(void **state)
{
	char text[64] = "", tiny[4] = "";
	struct tpm *tpm = open_tpm();

	(void)state;
	tpm_describe(tpm, text, sizeof text);
	assert_non_null(strchr(text, ' '));
	assert_true(strlen(text) > 4);
	tpm_describe(tpm, tiny, sizeof tiny);
	assert_int_equal(tiny[3], '\0');
	tpm_close(tpm);
}

static void other_tpm_refuses(void **state)
{
	uint8_t blob[TPM_BLOB_BYTES], key[TPM_BLOB_BYTES];
	struct tpm_public ek = {.bytes = 1}, ak = {.bytes = 1};
	struct tpm *tpm = open_tpm();
	size_t bytes = seal(tpm, blob), key_bytes = 0;
	struct vtpm first = vtpm;

	(void)state;
	assert_int_equal(tpm_attestation_key(tpm, key, &key_bytes, &ek, &ak), SECPOOL_OK);
	tpm_close(tpm);
	vtpm_init(&vtpm);
	vtpm_start(&vtpm, PROVISION);
	tpm = open_tpm();
	expect_refused(tpm, blob, bytes, SECRET_BYTES, "sealed to another TPM");
	ek.bytes = ak.bytes = 4711;
	assert_int_equal(tpm_attestation_key(tpm, key, &key_bytes, &ek, &ak), SECPOOL_E_TPM);
	assert_non_null(strstr(err_detail(), "another TPM"));
	assert_int_equal(ek.bytes + ak.bytes, 2 * 4711);
	tpm_close(tpm);
	vtpm_done(&vtpm);
	vtpm = first;
}

static void attestation_key_is_kept(void **state)
{
	uint8_t blob[TPM_BLOB_BYTES];
	struct tpm_public ek, ak, ek2, ak2;
	struct tpm_quote quote;
	struct tpm *tpm = open_tpm();
	size_t bytes = 0;

	(void)state;
	assert_int_equal(tpm_quote(tpm, PCRS, SECRET, 32, &quote), SECPOOL_E_INVALID);
	assert_int_equal(tpm_attestation_key(tpm, blob, &bytes, &ek, &ak), SECPOOL_OK);
	assert_in_range(bytes, 100, TPM_BLOB_BYTES);
	tpm_close(tpm);
	tpm = open_tpm();
	for (unsigned i = 0; i < 4; i++) { /* again and again: the former is flushed */
		assert_int_equal(tpm_attestation_key(tpm, blob, &bytes, &ek2, &ak2), SECPOOL_OK);
		assert_int_equal(ek2.bytes, ek.bytes);
		assert_memory_equal(ek2.area, ek.area, ek.bytes);
		assert_int_equal(ak2.bytes, ak.bytes);
		assert_memory_equal(ak2.area, ak.area, ak.bytes);
	}
	for (size_t at = 0; at < bytes; at += 7) {
		blob[at] ^= 4;
		assert_int_equal(tpm_attestation_key(tpm, blob, &bytes, &ek2, &ak2), SECPOOL_E_TPM);
		blob[at] ^= 4;
	}
	tpm_close(tpm);
}

/* A TPM has room for three objects: an attestation key that stays loaded leaves sealing its two. */
static void all_at_once(void **state)
{
	uint8_t blob[TPM_BLOB_BYTES], key[TPM_BLOB_BYTES];
	struct tpm_public ek, ak;
	struct tpm_quote quote;
	size_t key_bytes = 0, bytes;
	struct tpm *tpm = open_tpm();

	(void)state;
	assert_int_equal(tpm_attestation_key(tpm, key, &key_bytes, &ek, &ak), SECPOOL_OK);
	for (unsigned i = 0; i < 3; i++) {
		bytes = seal(tpm, blob);
		expect_unsealed(tpm, blob, bytes);
		assert_int_equal(tpm_quote(tpm, PCRS, SECRET, 32, &quote), SECPOOL_OK);
	}
	tpm_close(tpm);
}

static void quote_checks_arguments(void **state)
{
	uint8_t blob[TPM_BLOB_BYTES], nonce[65] = {0}, secret[64];
	struct tpm_public ek, ak;
	struct tpm_quote quote = {.attest_bytes = 4711};
	size_t bytes = 0, secret_bytes = 4711;
	struct tpm *tpm = open_tpm();

	(void)state;
	assert_int_equal(tpm_attestation_key(tpm, blob, &bytes, &ek, &ak), SECPOOL_OK);
	assert_int_equal(tpm_quote(tpm, 0, nonce, 32, &quote), SECPOOL_E_INVALID);
	assert_int_equal(tpm_quote(tpm, 0x1ff, nonce, 32, &quote), SECPOOL_E_INVALID);
	assert_int_equal(tpm_quote(tpm, PCRS, nonce, 65, &quote), SECPOOL_E_INVALID);
	assert_int_equal(quote.attest_bytes, 4711);
	assert_int_equal(
		tpm_activate(tpm, nonce, 65, nonce, 65, secret, &secret_bytes), SECPOOL_E_INVALID);
	assert_int_equal(
		tpm_activate(tpm, nonce, 2, nonce, 2, secret, &secret_bytes), SECPOOL_E_TPM);
	assert_int_equal(secret_bytes, 4711);
	assert_int_equal(tpm_quote(tpm, 0xff, nonce, 64, &quote), SECPOOL_OK);
	assert_int_equal(quote.pcr_count, 8);
	tpm_close(tpm);
}

/*
 * What a stuck or dead TPM costs: an error in bounded time, then more errors at once, then a new
 * start works.
 */
static void expect_gone(struct tpm *tpm)
{
	uint8_t blob[TPM_BLOB_BYTES], got[SECRET_BYTES];
	uint64_t start_ns = clock_now_ns();
	size_t bytes = 4711;

	assert_int_equal(
		tpm_seal(tpm, PCRS, NULL, SECRET, SECRET_BYTES, blob, &bytes), SECPOOL_E_TPM);
	assert_int_equal(bytes, 4711);
	assert_int_equal(tpm_extend(tpm, 1, "x"), SECPOOL_E_TPM);
	assert_non_null(strstr(err_detail(), "open it again"));
	memset(blob, 0, sizeof blob);
	assert_int_equal(tpm_unseal(tpm, NULL, blob, 100, got, SECRET_BYTES), SECPOOL_E_TPM);
	assert_true(clock_now_ns() - start_ns < NS_LIMIT_S * CLOCK_NS_PER_S);
	tpm_close(tpm);
}

static void hung_tpm_is_an_error(void **state)
{
	struct tpm *tpm = open_tpm(), *other = NULL;
	uint64_t start_ns;

	(void)state;
	kill(vtpm.pid, SIGSTOP);
	expect_gone(tpm);
	start_ns = clock_now_ns();
	assert_int_equal(tpm_open(vtpm.where, &other), SECPOOL_E_TPM);
	assert_true(clock_now_ns() - start_ns < NS_LIMIT_S * CLOCK_NS_PER_S);
	kill(vtpm.pid, SIGCONT);
	tpm_close(open_tpm());
}

static void killed_tpm_is_an_error(void **state)
{
	uint8_t blob[TPM_BLOB_BYTES];
	struct tpm *tpm = open_tpm();
	size_t bytes = seal(tpm, blob);

	(void)state;
	assert_int_equal(vtpm_end(&vtpm, SIGKILL), 1000 + SIGKILL);
	expect_gone(tpm);
	vtpm_start(&vtpm, SAME_FIRMWARE);
	tpm = open_tpm();
	expect_unsealed(tpm, blob, bytes);
	tpm_close(tpm);
}

/* A user who went without flushing leaves its objects: they are swept at the next open. */
static void leftovers_are_swept(void **state)
{
	uint8_t blob[TPM_BLOB_BYTES];
	struct tpm_public ek, ak;

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		pid_t pid = fork();
		int status = -1;

		assert_true(pid >= 0);
		if (pid == 0) {
			struct tpm *tpm = NULL;
			size_t bytes = 0;
			_exit(tpm_open(vtpm.where, &tpm) ||
				tpm_attestation_key(tpm, blob, &bytes, &ek, &ak));
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
	}
	tpm_close(open_tpm());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(where_is_checked),
		cmocka_unit_test_setup_teardown(open_wants_the_log_off, setup, teardown),
		cmocka_unit_test_setup_teardown(close_shuts_down, setup, teardown),
		cmocka_unit_test_setup_teardown(describes, setup, teardown),
		cmocka_unit_test_setup_teardown(other_tpm_refuses, setup, teardown),
		cmocka_unit_test_setup_teardown(attestation_key_is_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(all_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(quote_checks_arguments, setup, teardown),
		cmocka_unit_test_setup_teardown(hung_tpm_is_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(killed_tpm_is_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(leftovers_are_swept, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
