/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of secpool-vtpm as a process share. Threads: one. */
#ifndef SECPOOL_TESTS_UNIT_VTPM_FIXTURE_H
#define SECPOOL_TESTS_UNIT_VTPM_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "enclave/tpm.h"
#include "tests/unit/vtpm_process.h"

enum { ANSWER_BYTES = 20, SERVED_WITHIN_MS = 5000, CONNECTIONS = 40 };

/* TPM2_GetRandom(8) */
static const uint8_t GET_RANDOM[12] = {0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 8};
static const char *const PROVISION[] = {"--provision", NULL};

static struct vtpm vtpm;

static inline int setup(void **state)
{
	(void)state;
	vtpm_init(&vtpm);
	return 0;
}

static inline int teardown(void **state)
{
	(void)state;
	vtpm_done(&vtpm);
	return 0;
}

/* Starts it with these arguments where a start must fail. */
static inline int failed_start(struct vtpm *which, const char *const *more)
{
	vtpm_spawn(which, more);
	return vtpm_wait(which);
}

static inline int connect_or_fail(void)
{
	struct timeval limit = {.tv_sec = SERVED_WITHIN_MS / 1000};
	int fd = vtpm_connect(&vtpm);

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
	return fd;
}

static inline void ask(int fd)
{
	assert_int_equal(send(fd, GET_RANDOM, sizeof GET_RANDOM, MSG_NOSIGNAL), sizeof GET_RANDOM);
}

static inline void expect_random(int fd)
{
	uint8_t got[ANSWER_BYTES] = {0};

	assert_int_equal(recv(fd, got, sizeof got, MSG_WAITALL), sizeof got);
	assert_int_equal(got[5], ANSWER_BYTES);
	assert_int_equal(got[6] | got[7] | got[8] | got[9], 0);
}

static inline void expect_served(void)
{
	int fd = connect_or_fail();

	ask(fd);
	expect_random(fd);
	close(fd);
}

static inline void expect_closed(int fd)
{
	char byte;

	assert_int_equal(recv(fd, &byte, 1, 0), 0);
	close(fd);
}

static inline void get_ek(struct tpm_public *ret_ek)
{
	uint8_t blob[TPM_BLOB_BYTES];
	struct tpm_public ak;
	struct tpm *tpm = NULL;
	size_t bytes = 0;

	assert_int_equal(tpm_open(vtpm.where, &tpm), SECPOOL_OK);
	assert_int_equal(tpm_attestation_key(tpm, blob, &bytes, ret_ek, &ak), SECPOOL_OK);
	tpm_close(tpm);
}

static inline void path_of(const char *name, char path[128])
{
	snprintf(path, 128, "%.60s/state/%s", vtpm.folder, name);
}

#endif
