/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a measured log and replaying it (PC Client Platform Firmware Profile 1.05, sections 9 and 10). All input is from outside. */
#include "enclave/eventlog.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "enclave/tpm.h"
#include "lib/base/buf.h"

enum { SHA1_BYTES = 20, DIGEST_BYTES_MOST = 64, ALG_SHA256 = 0x000b, EV_NO_ACTION = 3 };
enum { BANKS_MOST = 8, PCRS = 24, SHOWN_BYTES = 4 };
/* The first PCR and the one behind the last that begin as ones (PC Client Platform TPM Profile 1.05, section 4.6.2). */
enum { PCR_ONES_FIRST = 17, PCR_ONES_END = 23 };
/* A device's capacity has at most this many digits: 2^46 bytes and more than any has. */
enum { CAPACITY_DIGITS_MOST = 15 };

struct bank {
	unsigned algorithm, bytes;
};

struct replay {
	struct buf_reader log;
	struct bank banks[BANKS_MOST];
	unsigned bank_count;
	uint8_t pcrs[PCRS][TPM_PCR_BYTES];
	struct eventlog_facts facts;
};

/* One TCG_PCR_EVENT2. */
struct event {
	uint32_t pcr, type;
	uint8_t digest[TPM_PCR_BYTES]; /* SHA-256's */
	const uint8_t *data;
	size_t bytes;
};

static enum secpool_error refuse(const char *reason)
{
	return err_set(SECPOOL_E_ATTESTATION, "the measured log is refused: %s", reason);
}

/* ---- its form ---- */

/* Of the algorithms of TPM 2.0 part 2, section 6.3 that PCR banks have; 0: another. */
static unsigned bytes_of(unsigned algorithm)
{
	switch (algorithm) {
	case 0x0004: /* SHA-1 */
		return SHA1_BYTES;
	case ALG_SHA256:
	case 0x0012: /* SM3-256 */
	case 0x0027: /* SHA3-256 */
		return 32;
	case 0x000c: /* SHA-384 */
	case 0x0028: /* SHA3-384 */
		return 48;
	case 0x000d: /* SHA-512 */
	case 0x0029: /* SHA3-512 */
		return 64;
	default:
		return 0;
	}
}

static const struct bank *find_bank(const struct replay *replay, unsigned algorithm)
{
	for (unsigned i = 0; i < replay->bank_count; i++)
		if (replay->banks[i].algorithm == algorithm)
			return &replay->banks[i];
	return NULL;
}

/* TCG_EfiSpecIdEvent, section 10.4.5.1: which digests each event has. */
static enum secpool_error read_spec_id(struct replay *replay, size_t event_bytes)
{
	static const char wanted[16] = "Spec ID Event03";
	struct buf_reader *log = &replay->log;
	size_t end = log->used + event_bytes;
	char signature[sizeof wanted];
	uint64_t count, major;
	uint8_t skipped[UINT8_MAX];

	buf_get(log, signature, sizeof signature);
	buf_get_number(log, 4); /* platform class */
	buf_get_number(log, 1); /* minor version */
	major = buf_get_number(log, 1);
	buf_get_number(log, 2); /* errata, size of a UINTN */
	count = buf_get_number(log, 4);
	if (log->failed ||
		memcmp(signature, wanted, sizeof wanted) != 0 || /* lint: memcmp of public bytes */
		major != 2)
		return refuse("it does not begin with a \"Spec ID Event03\" of version 2");
	if (count == 0 || count > BANKS_MOST)
		return refuse("its header lists no hash algorithms, or too many");
	for (; replay->bank_count < count; replay->bank_count++) {
		struct bank *bank = &replay->banks[replay->bank_count];

		bank->algorithm = (unsigned)buf_get_number(log, 2);
		bank->bytes = (unsigned)buf_get_number(log, 2);
		if (log->failed || bank->bytes == 0 || bank->bytes != bytes_of(bank->algorithm) ||
			find_bank(replay, bank->algorithm))
			return refuse("its header lists a hash algorithm wrongly");
	}
	buf_get(log, skipped, buf_get_number(log, 1)); /* vendor's */
	if (log->failed || log->used != end)
		return refuse("its header is longer or shorter than it says");
	if (!find_bank(replay, ALG_SHA256))
		return refuse("it has no SHA-256 digests");
	return SECPOOL_OK;
}

/* The first event, a TCG_PCClientPCREvent: section 10.2.1. */
static enum secpool_error read_header(struct replay *replay)
{
	static const uint8_t zero[SHA1_BYTES];
	struct buf_reader *log = &replay->log;
	uint64_t pcr = buf_get_number(log, 4), type = buf_get_number(log, 4), bytes;
	uint8_t digest[SHA1_BYTES];

	buf_get(log, digest, sizeof digest);
	bytes = buf_get_number(log, 4);
	if (log->failed || pcr != 0 || type != EV_NO_ACTION || bytes > log->count - log->used ||
		memcmp(digest, zero, sizeof zero) != 0) /* lint: memcmp of public bytes */
		return refuse("it has no header");
	return read_spec_id(replay, bytes);
}

/* A digest of each bank that the header lists, in any order. */
static enum secpool_error read_digests(struct replay *replay, uint8_t ret_sha256[TPM_PCR_BYTES])
{
	struct buf_reader *log = &replay->log;
	uint64_t count = buf_get_number(log, 4);
	unsigned seen = 0;

	if (log->failed || count != replay->bank_count)
		return refuse("an event has other digests than its header lists");
	for (uint64_t i = 0; i < count; i++) {
		const struct bank *bank = find_bank(replay, (unsigned)buf_get_number(log, 2));
		uint8_t digest[DIGEST_BYTES_MOST];

		if (log->failed || !bank || seen & 1u << (bank - replay->banks))
			return refuse("an event has other digests than its header lists");
		seen |= 1u << (bank - replay->banks);
		buf_get(log, digest, bank->bytes);
		if (bank->algorithm == ALG_SHA256)
			memcpy(ret_sha256, digest, TPM_PCR_BYTES);
	}
	return SECPOOL_OK;
}

static enum secpool_error read_event(struct replay *replay, struct event *ret_event)
{
	struct buf_reader *log = &replay->log;
	enum secpool_error error;
	struct event event;
	uint64_t bytes;

	event.pcr = (uint32_t)buf_get_number(log, 4);
	event.type = (uint32_t)buf_get_number(log, 4);
	error = read_digests(replay, event.digest);
	if (error)
		return error;
	bytes = buf_get_number(log, 4);
	if (log->failed || bytes > log->count - log->used)
		return refuse("it ends in the middle of an event");
	if (event.pcr >= PCRS)
		return refuse("it has an event of a PCR that does not exist");
	event.data = log->bytes + log->used;
	event.bytes = bytes;
	log->used += bytes;
	*ret_event = event;
	return SECPOOL_OK;
}

/* ---- what it says ---- */

static enum secpool_error digest_of(
	const void *bytes, size_t count, uint8_t ret_digest[TPM_PCR_BYTES])
{
	if (EVP_Digest(bytes, count, ret_digest, NULL, EVP_sha256(), NULL) != 1)
		return refuse("a digest could not be computed");
	return SECPOOL_OK;
}

static enum secpool_error extend(struct replay *replay, const struct event *event)
{
	uint8_t both[2 * TPM_PCR_BYTES];

	memcpy(both, replay->pcrs[event->pcr], TPM_PCR_BYTES);
	memcpy(both + TPM_PCR_BYTES, event->digest, TPM_PCR_BYTES);
	return digest_of(both, sizeof both, replay->pcrs[event->pcr]);
}

/* The part of data up to its end or the first `until`, as a text of printable ASCII without blanks; NULL: it is none, or too long. */
static const uint8_t *take_text(
	const uint8_t *data, const uint8_t *end, int until, char text[EVENTLOG_TEXT_BYTES])
{
	size_t length = 0;

	for (; data < end && *data != until; data++) {
		if (*data <= ' ' || *data > '~' || length == EVENTLOG_TEXT_BYTES - 1)
			return NULL;
		text[length++] = (char)*data;
	}
	memset(text + length, 0, EVENTLOG_TEXT_BYTES - length);
	return length > 0 ? data : NULL;
}

static bool take_number(const char *text, uint64_t *ret_number)
{
	uint64_t number = 0;

	if (strlen(text) > CAPACITY_DIGITS_MOST || text[strspn(text, "0123456789")] != '\0' ||
		text[0] == '0')
		return false;
	for (; *text; text++)
		number = number * 10 + (uint64_t)(*text - '0');
	*ret_number = number;
	return true;
}

/* <id>:<bytes>:<serial> */
static bool take_device(const uint8_t *at, const uint8_t *end, struct eventlog_facts *facts)
{
	char number[EVENTLOG_TEXT_BYTES];

	at = take_text(at, end, ':', facts->id);
	if (!at || at == end)
		return false;
	at = take_text(at + 1, end, ':', number);
	if (!at || at == end || !take_number(number, &facts->bytes))
		return false;
	return take_text(at + 1, end, -1, facts->serial) != NULL;
}

/* Whether the event has this PCR, type and first word; *ret_at is what follows the word. */
static bool is_about(const struct event *event, unsigned pcr, enum eventlog_type type,
	const char *word, const uint8_t **ret_at)
{
	size_t length = strlen(word);

	if (event->pcr != pcr || event->type != type || event->bytes < length ||
		memcmp(event->data, word, length) != 0) /* lint: memcmp of public bytes */
		return false;
	*ret_at = event->data + length;
	return true;
}

static enum secpool_error take_facts(struct replay *replay, const struct event *event)
{
	const uint8_t *at = NULL, *end = event->data + event->bytes;
	struct eventlog_facts *facts = &replay->facts;
	uint8_t digest[TPM_PCR_BYTES];
	enum secpool_error error;
	bool firmware = is_about(event, 0, EVENTLOG_CRTM_VERSION, "firmware:", &at);

	if (!firmware && !is_about(event, 2, EVENTLOG_NONHOST_INFO, "device:", &at))
		return SECPOOL_OK;
	error = digest_of(event->data, event->bytes, digest);
	if (error)
		return error;
	if (CRYPTO_memcmp(digest, event->digest, sizeof digest) != 0)
		return refuse(firmware ? "its text of the firmware is not what was measured"
				       : "its text of the device is not what was measured");
	if (firmware && facts->firmware[0])
		return refuse("it names two firmwares");
	if (!firmware && facts->id[0])
		return refuse("it names two devices");
	if (firmware ? !take_text(at, end, -1, facts->firmware) : !take_device(at, end, facts))
		return refuse(firmware ? "its event of the firmware is malformed"
				       : "its event of the device is malformed");
	return SECPOOL_OK;
}

static void show_start(const uint8_t *value, char text[2 * SHOWN_BYTES + 1])
{
	for (size_t i = 0; i < SHOWN_BYTES; i++)
		snprintf(text + 2 * i, 3, "%02x", value[i]);
}

static enum secpool_error compare(const struct replay *replay, uint32_t pcrs, const uint8_t *values)
{
	char found[2 * SHOWN_BYTES + 1], wanted[2 * SHOWN_BYTES + 1];

	for (unsigned pcr = 0; pcr < PCRS; pcr++) {
		if (!(pcrs & 1u << pcr))
			continue;
		if (CRYPTO_memcmp(replay->pcrs[pcr], values, TPM_PCR_BYTES) != 0) {
			show_start(replay->pcrs[pcr], found);
			show_start(values, wanted);
			return err_set(SECPOOL_E_ATTESTATION,
				"the measured log does not replay: it gives PCR %u %s..., the TPM "
				"quotes %s...",
				pcr, found, wanted);
		}
		values += TPM_PCR_BYTES;
	}
	return SECPOOL_OK;
}

enum secpool_error eventlog_replay(const uint8_t *log, size_t bytes, uint32_t pcrs,
	const uint8_t *values, struct eventlog_facts *ret_facts)
{
	struct replay replay = {.log = {.bytes = log, .count = bytes}};
	enum secpool_error error;

	if ((pcrs & EVENTLOG_PCRS_NEEDED) != EVENTLOG_PCRS_NEEDED || pcrs >> PCRS != 0)
		return refuse("PCRs 0 and 2, which it is about, are not quoted");
	if (bytes > EVENTLOG_BYTES_MOST)
		return refuse("it is too long");
	memset(replay.pcrs[PCR_ONES_FIRST], 0xff, (PCR_ONES_END - PCR_ONES_FIRST) * TPM_PCR_BYTES);
	error = read_header(&replay);
	while (!error && replay.log.used < bytes) {
		struct event event;

		error = read_event(&replay, &event);
		if (error || event.type == EV_NO_ACTION) /* not extended: section 10.4.5 */
			continue;
		error = extend(&replay, &event);
		if (!error)
			error = take_facts(&replay, &event);
	}
	if (!error)
		error = compare(&replay, pcrs, values);
	if (!error && !replay.facts.firmware[0])
		error = refuse("it does not tell the device's firmware");
	if (!error && !replay.facts.id[0])
		error = refuse("it does not tell the device's id, capacity and serial");
	if (!error)
		*ret_facts = replay.facts;
	return error;
}
