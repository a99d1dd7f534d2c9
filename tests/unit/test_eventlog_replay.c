/* SPDX-License-Identifier: Apache-2.0 */
/* eventlog_replay: logs that replay, also with other banks and events; every way of being wrong has its own reason; any change of a byte is noticed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>

#include "enclave/eventlog.h"
#include "enclave/tpm.h"
#include "lib/base/buf.h"

enum { PCRS = 0x5, ALG_SHA1 = 4, ALG_SHA256 = 0x000b, NO_ACTION = 3, SEPARATOR = 4 };

static const struct eventlog_event GOOD[] = {
	{.pcr = 0, .type = EVENTLOG_CRTM_VERSION, .text = "firmware:one"},
	{.pcr = 2, .type = EVENTLOG_NONHOST_INFO, .text = "device:d0:4096:S:1"},
};

/* The PCRs as a TPM has them after these events; text by text, from zero. */
static void extend(uint8_t pcr[TPM_PCR_BYTES], const char *text)
{
	uint8_t both[2 * TPM_PCR_BYTES];

	memcpy(both, pcr, TPM_PCR_BYTES);
	assert_int_equal(
		EVP_Digest(text, strlen(text), both + TPM_PCR_BYTES, NULL, EVP_sha256(), NULL), 1);
	assert_int_equal(EVP_Digest(both, sizeof both, pcr, NULL, EVP_sha256(), NULL), 1);
}

static void values_of(
	const struct eventlog_event *events, size_t count, uint8_t values[2][TPM_PCR_BYTES])
{
	memset(values, 0, 2 * TPM_PCR_BYTES);
	for (size_t i = 0; i < count; i++)
		if (events[i].pcr == 0 || events[i].pcr == 2)
			extend(values[events[i].pcr / 2], events[i].text);
}

static void expect_refused(
	const uint8_t *log, size_t bytes, uint32_t pcrs, const uint8_t *values, const char *reason)
{
	struct eventlog_facts facts, before;

	memset(&facts, 0x77, sizeof facts);
	before = facts;
	err_clear();
	assert_int_equal(eventlog_replay(log, bytes, pcrs, values, &facts), SECPOOL_E_ATTESTATION);
	assert_memory_equal(&facts, &before, sizeof facts);
	if (!strstr(err_detail(), reason))
		fail_msg("'%s' does not say '%s'", err_detail(), reason);
}

static void expect_events_refused(
	const struct eventlog_event *events, size_t count, const char *reason)
{
	uint8_t log[EVENTLOG_BYTES_MOST], values[2][TPM_PCR_BYTES];
	size_t bytes = 0;

	values_of(events, count, values);
	assert_int_equal(eventlog_make(events, count, log, &bytes), SECPOOL_OK);
	expect_refused(log, bytes, PCRS, values[0], reason);
}

static void own_log_is_read(void **state)
{
	uint8_t log[EVENTLOG_BYTES_MOST], values[2][TPM_PCR_BYTES];
	struct eventlog_facts facts;
	size_t bytes = 0;

	(void)state;
	values_of(GOOD, 2, values);
	assert_int_equal(eventlog_make(GOOD, 2, log, &bytes), SECPOOL_OK);
	assert_int_equal(eventlog_replay(log, bytes, PCRS, values[0], &facts), SECPOOL_OK);
	assert_string_equal(facts.firmware, "one");
	assert_string_equal(facts.id, "d0");
	assert_string_equal(facts.serial, "S:1");
	assert_int_equal(facts.bytes, 4096);
}

/* Every truncation, every changed bit: refused, and the facts stay untouched. What no digest covers (event types, EV_NO_ACTION) may differ only without changing the facts. */
static void every_change_is_noticed(void **state)
{
	uint8_t log[EVENTLOG_BYTES_MOST], values[2][TPM_PCR_BYTES];
	struct eventlog_facts facts, changed;
	size_t bytes = 0, accepted = 0;

	(void)state;
	values_of(GOOD, 2, values);
	assert_int_equal(eventlog_make(GOOD, 2, log, &bytes), SECPOOL_OK);
	assert_int_equal(eventlog_replay(log, bytes, PCRS, values[0], &facts), SECPOOL_OK);
	for (size_t cut = 0; cut < bytes; cut++)
		expect_refused(log, cut, PCRS, values[0], "the measured log");
	for (size_t bit = 0; bit < 8 * bytes; bit++) {
		log[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (eventlog_replay(log, bytes, PCRS, values[0], &changed) == SECPOOL_OK) {
			accepted++;
			assert_memory_equal(&changed, &facts, sizeof facts);
		}
		log[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	/* platform class, minor version, errata and size of a UINTN mean nothing here: 4 + 1 + 1 + 1 bytes */
	assert_int_equal(accepted, 7 * 8);
	memset(log + bytes, 0, 4);
	expect_refused(log, bytes + 1, PCRS, values[0], "the measured log is refused");
	values[1][31] ^= 1;
	expect_refused(log, bytes, PCRS, values[0], "it gives PCR 2");
}

static void facts_are_told_once_and_well(void **state)
{
	static const struct {
		struct eventlog_event event;
		const char *reason;
	} cases[] = {
		{{0, EVENTLOG_CRTM_VERSION, "firmware:two"}, "two firmwares"},
		{{2, EVENTLOG_NONHOST_INFO, "device:d1:4096:S"}, "two devices"},
	};
	static const char *const devices[] = {"device:", "device:d0",
		"device:d0:", "device:d0:4096", "device:d0:4096:", "device::4096:S", "device:d0::S",
		"device:d0:0:S", "device:d0:04:S", "device:d0:4k:S", "device:d0:-1:S",
		"device:d0:1234567890123456:S", "device:d 0:1:S", "device:d0:1:S\n",
		"device:0123456789012345678901234567890123456789012345678901234567890123:1:S"};
	static const char *const firmwares[] = {"firmware:", "firmware:a b", "firmware:\x80",
		"firmware:0123456789012345678901234567890123456789012345678901234567890123"};
	struct eventlog_event events[3] = {GOOD[0], GOOD[1]};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		events[2] = cases[i].event;
		expect_events_refused(events, 3, cases[i].reason);
	}
	expect_events_refused(GOOD, 1, "does not tell the device's id");
	expect_events_refused(GOOD + 1, 1, "does not tell the device's firmware");
	expect_events_refused(GOOD, 0, "does not tell the device's firmware");
	for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
		events[1].text = devices[i];
		expect_events_refused(events, 2, "event of the device is malformed");
	}
	events[1] = GOOD[1];
	for (size_t i = 0; i < sizeof firmwares / sizeof *firmwares; i++) {
		events[0].text = firmwares[i];
		expect_events_refused(events, 2, "event of the firmware is malformed");
	}
	/* the same words in another PCR, or as another type, tell nothing */
	events[0] = (struct eventlog_event){4, EVENTLOG_CRTM_VERSION, "firmware:one"};
	expect_events_refused(events, 2, "does not tell the device's firmware");
	events[0] = (struct eventlog_event){0, EVENTLOG_NONHOST_INFO, "firmware:one"};
	expect_events_refused(events, 2, "does not tell the device's firmware");
}

/* ---- logs as others write them ---- */

static void put_text(struct buf_writer *w, const char *text)
{
	buf_put_number(w, strlen(text), 4);
	buf_put(w, text, strlen(text));
}

static void put_header(struct buf_writer *w, unsigned banks)
{
	static const uint8_t zero[20];

	buf_put_number(w, 0, 4);
	buf_put_number(w, NO_ACTION, 4);
	buf_put(w, zero, sizeof zero);
	buf_put_number(w, 16 + 12 + 4 * banks + 1 + 3, 4);
	buf_put(w, "Spec ID Event03", 16);
	buf_put_number(w, 1, 4);
	buf_put_number(w, 0x02000200, 4);
	buf_put_number(w, banks, 4);
	for (unsigned i = 0; i < banks; i++) {
		buf_put_number(w, i ? ALG_SHA256 : ALG_SHA1, 2);
		buf_put_number(w, i ? 32 : 20, 2);
	}
	buf_put_number(w, 3, 1);
	buf_put(w, "abc", 3);
}

static void put_event(struct buf_writer *w, unsigned pcr, unsigned type, const char *text)
{
	uint8_t digest[32] = {0};

	buf_put_number(w, pcr, 4);
	buf_put_number(w, type, 4);
	buf_put_number(w, 2, 4);
	if (type != NO_ACTION)
		assert_int_equal(
			EVP_Digest(text, strlen(text), digest, NULL, EVP_sha256(), NULL), 1);
	buf_put_number(w, ALG_SHA256, 2);
	buf_put(w, digest, 32);
	buf_put_number(w, ALG_SHA1, 2);
	buf_put(w, digest, 20);
	put_text(w, text);
}

static void other_banks_and_events(void **state)
{
	uint8_t log[EVENTLOG_BYTES_MOST], values[3][TPM_PCR_BYTES] = {0};
	struct buf_writer w = {.bytes = log, .capacity = sizeof log};
	struct eventlog_facts facts;
	size_t header, whole;

	(void)state;
	put_header(&w, 2);
	header = w.used;
	put_event(&w, 0, NO_ACTION, "of no consequence");
	put_event(&w, 0, EVENTLOG_CRTM_VERSION, "firmware:one");
	put_event(&w, 4, SEPARATOR, "loader");
	put_event(&w, 2, EVENTLOG_NONHOST_INFO, "device:d0:4096:S");
	put_event(&w, 2, SEPARATOR, "x");
	whole = w.used;
	extend(values[0], "firmware:one");
	extend(values[1], "device:d0:4096:S");
	extend(values[1], "x");
	extend(values[2], "loader");
	assert_int_equal(eventlog_replay(log, whole, 0x15, values[0], &facts), SECPOOL_OK);
	assert_string_equal(facts.firmware, "one");
	assert_int_equal(eventlog_replay(log, whole, PCRS, values[0], &facts), SECPOOL_OK);
	values[2][0] ^= 1;
	expect_refused(log, whole, 0x15, values[0], "it gives PCR 4");
	expect_refused(log, whole, 0x4, values[0], "PCRs 0 and 2");
	expect_refused(log, whole, 0x1000005, values[0], "PCRs 0 and 2");
	log[header] = 24; /* the first event's PCR */
	expect_refused(log, whole, PCRS, values[0], "PCR that does not exist");
	log[header] = 0;
	log[header + 8] = 1; /* its count of digests */
	expect_refused(log, whole, PCRS, values[0], "other digests than its header lists");
	log[header + 8] = 2;
	log[header + 12] = ALG_SHA1; /* twice the same */
	expect_refused(log, whole, PCRS, values[0], "other digests than its header lists");
	log[header + 12] = ALG_SHA256;
	log[60] = ALG_SHA256; /* the header's first algorithm, with SHA-1's length */
	expect_refused(log, whole, PCRS, values[0], "lists a hash algorithm wrongly");
	log[60] = ALG_SHA1;
	log[56] = 0; /* how many there are */
	expect_refused(log, whole, PCRS, values[0], "no hash algorithms, or too many");
	log[56] = 2;
	log[32] ^= 1;
	expect_refused(log, whole, PCRS, values[0], "Spec ID Event03");
	log[32] ^= 1;
	assert_int_equal(eventlog_replay(log, whole, PCRS, values[0], &facts), SECPOOL_OK);
}

static void no_sha256(void **state)
{
	uint8_t log[EVENTLOG_BYTES_MOST + 1] = {0}, values[2][TPM_PCR_BYTES] = {0};
	struct buf_writer w = {.bytes = log, .capacity = sizeof log};

	(void)state;
	put_header(&w, 1);
	expect_refused(log, w.used, PCRS, values[0], "no SHA-256 digests");
	expect_refused(log, sizeof log, PCRS, values[0], "too long");
	expect_refused(log, 0, PCRS, values[0], "no header");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(own_log_is_read),
		cmocka_unit_test(every_change_is_noticed),
		cmocka_unit_test(facts_are_told_once_and_well),
		cmocka_unit_test(other_banks_and_events),
		cmocka_unit_test(no_sha256),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
