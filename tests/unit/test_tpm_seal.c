/* SPDX-License-Identifier: Apache-2.0 */
/* Sealing and unsealing (tpm.h) against a real secpool-vtpm process. */
#include "tests/unit/tpm_fixture.h"

static void seals_and_unseals(void **state)
{
	uint8_t blob[TPM_BLOB_BYTES];
	struct tpm *tpm = open_tpm();
	size_t bytes = seal(tpm, blob);

	(void)state;
	for (size_t at = 0; at + 8 <= bytes; at++)
		assert_memory_not_equal(blob + at, SECRET, 8);
	for (unsigned i = 0; i < 5; i++) /* nothing piles up in the TPM's three places */
		expect_unsealed(tpm, blob, bytes);
	tpm_close(tpm);
	tpm = open_tpm();
	expect_unsealed(tpm, blob, bytes);
	expect_refused(tpm, blob, bytes, SECRET_BYTES - 1, "32 bytes instead of 31");
	tpm_close(tpm);
}

static void seal_checks_arguments(void **state)
{
	uint8_t blob[TPM_BLOB_BYTES], many[129] = {1};
	size_t bytes = 4711;
	struct tpm *tpm = open_tpm();

	(void)state;
	assert_int_equal(tpm_seal(tpm, PCRS, NULL, SECRET, 0, blob, &bytes), SECPOOL_E_INVALID);
	assert_int_equal(tpm_seal(tpm, PCRS, NULL, many, 129, blob, &bytes), SECPOOL_E_INVALID);
	assert_int_equal(tpm_seal(tpm, 0, NULL, SECRET, 32, blob, &bytes), SECPOOL_E_INVALID);
	assert_int_equal(
		tpm_seal(tpm, 1u << 24, NULL, SECRET, 32, blob, &bytes), SECPOOL_E_INVALID);
	assert_int_equal(bytes, 4711);
	assert_int_equal(tpm_seal(tpm, PCRS, NULL, many, 128, blob, &bytes), SECPOOL_OK);
	tpm_close(tpm);
}

static void changed_pcr_refuses(void **state)
{
	uint8_t blob[TPM_BLOB_BYTES];
	struct tpm *tpm = open_tpm();
	size_t bytes = seal(tpm, blob);

	(void)state;
	assert_int_equal(tpm_extend(tpm, 7, "another PCR"), SECPOOL_OK);
	expect_unsealed(tpm, blob, bytes);
	assert_int_equal(tpm_extend(tpm, 24, "no such PCR"), SECPOOL_E_INVALID);
	assert_int_equal(tpm_extend(tpm, 2, "ours"), SECPOOL_OK);
	expect_refused(tpm, blob, bytes, SECRET_BYTES, "PCRs changed");
	tpm_close(tpm);
}

static void measured_at_start(void **state)
{
	uint8_t blob[TPM_BLOB_BYTES];
	struct tpm *tpm = open_tpm();
	size_t bytes = seal(tpm, blob);

	(void)state;
	tpm_close(tpm);
	assert_int_equal(vtpm_end(&vtpm, SIGTERM), 0);
	vtpm_start(&vtpm, OTHER_FIRMWARE);
	tpm = open_tpm();
	expect_refused(tpm, blob, bytes, SECRET_BYTES, "PCRs changed");
	tpm_close(tpm);
	assert_int_equal(vtpm_end(&vtpm, SIGTERM), 0);
	vtpm_start(&vtpm, SAME_FIRMWARE);
	tpm = open_tpm();
	expect_unsealed(tpm, blob, bytes);
	tpm_close(tpm);
}

static void flipped_blob_refuses(void **state)
{
	uint8_t blob[TPM_BLOB_BYTES], got[SECRET_BYTES];
	struct tpm *tpm = open_tpm();
	size_t bytes = seal(tpm, blob);

	(void)state;
	for (size_t at = 0; at < bytes; at += at < 64 ? 1 : 3) {
		blob[at] ^= (uint8_t)(1u << (at % 8));
		assert_int_equal(
			tpm_unseal(tpm, NULL, blob, bytes, got, SECRET_BYTES), SECPOOL_E_TPM);
		blob[at] ^= (uint8_t)(1u << (at % 8));
	}
	for (size_t cut = 0; cut < bytes; cut += 5)
		assert_int_equal(
			tpm_unseal(tpm, NULL, blob, cut, got, SECRET_BYTES), SECPOOL_E_TPM);
	expect_unsealed(tpm, blob, bytes);
	tpm_close(tpm);
}

/* notes/tpm.md, section 6: crashes after a seal must not lock the TPM. */
static void crashes_do_not_lock_out(void **state)
{
	uint8_t blob[TPM_BLOB_BYTES];
	struct tpm *tpm = open_tpm();
	size_t bytes = seal(tpm, blob);

	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		expect_unsealed(tpm, blob, bytes);
		tpm_close(tpm);
		assert_int_equal(vtpm_end(&vtpm, SIGKILL), 1000 + SIGKILL);
		vtpm_start(&vtpm, SAME_FIRMWARE);
		tpm = open_tpm();
	}
	expect_unsealed(tpm, blob, bytes);
	tpm_close(tpm);
}

/* Passes bytes between a client and the TPM until either goes, and keeps them all in a file. */
static _Noreturn void run_proxy(int listener, const char *transcript)
{
	int out = open(transcript, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	int ends[2] = {accept(listener, NULL, NULL), vtpm_connect(&vtpm)};
	uint8_t bytes[4096];

	if (out < 0 || ends[0] < 0 || ends[1] < 0)
		_exit(1);
	for (;;) {
		struct pollfd polls[2] = {
			{.fd = ends[0], .events = POLLIN}, {.fd = ends[1], .events = POLLIN}};
		if (poll(polls, 2, VTPM_WAIT_MS) <= 0)
			_exit(1);
		for (unsigned i = 0; i < 2; i++) {
			ssize_t got = polls[i].revents ? read(ends[i], bytes, sizeof bytes) : -1;
			if (got == 0)
				_exit(0);
			if (got > 0 && (write(out, bytes, (size_t)got) != got ||
					       write(ends[1 - i], bytes, (size_t)got) != got))
				_exit(1);
		}
	}
}

/* Who reads the bus sees the secret in neither direction: notes/tpm.md, section 3. */
static void bus_shows_no_secret(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char where[128], transcript[96], *text = NULL;
	uint8_t blob[TPM_BLOB_BYTES];
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), status = -1;
	struct tpm *tpm = NULL;
	size_t bytes;
	pid_t proxy;

	(void)state;
	snprintf(address.sun_path, sizeof address.sun_path, "%s/proxy", vtpm.folder);
	snprintf(where, sizeof where, "unix:%s", address.sun_path);
	snprintf(transcript, sizeof transcript, "%s/transcript", vtpm.folder);
	assert_int_equal(bind(listener, (const struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(listener, 1), 0);
	proxy = fork();
	assert_true(proxy >= 0);
	if (proxy == 0)
		run_proxy(listener, transcript);
	assert_int_equal(tpm_open(where, &tpm), SECPOOL_OK);
	bytes = seal(tpm, blob);
	expect_unsealed(tpm, blob, bytes);
	tpm_close(tpm);
	assert_int_equal(waitpid(proxy, &status, 0), proxy);
	assert_int_equal(status, 0);
	close(listener);
	assert_int_equal(os_read_file(transcript, 1 << 20, &text, &bytes), SECPOOL_OK);
	/* the blob's private area did pass, so it is the right transcript */
	assert_non_null(memmem(text, bytes, blob + 200, 64));
	for (size_t at = 0; at + 8 <= SECRET_BYTES; at++)
		assert_null(memmem(text, bytes, SECRET + at, 8));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(seals_and_unseals, setup, teardown),
		cmocka_unit_test_setup_teardown(seal_checks_arguments, setup, teardown),
		cmocka_unit_test_setup_teardown(changed_pcr_refuses, setup, teardown),
		cmocka_unit_test_setup_teardown(measured_at_start, setup, teardown),
		cmocka_unit_test_setup_teardown(flipped_blob_refuses, setup, teardown),
		cmocka_unit_test_setup_teardown(crashes_do_not_lock_out, setup, teardown),
		cmocka_unit_test_setup_teardown(bus_shows_no_secret, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
