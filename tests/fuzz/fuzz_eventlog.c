/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer: any bytes as a measured log. First byte 0: the rest is the values of PCR 0 and 2, then a log. Else it is the texts of two events, "firmware..." to the first NUL and
 * "device..." behind it, which are hashed as they are: the log replays, so its texts are refused or the facts say just the same.
 */
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "enclave/eventlog.h"
#include "enclave/tpm.h"

enum { PCRS = 0x5, VALUES_BYTES = 2 * TPM_PCR_BYTES };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void check_raw(const uint8_t *bytes, size_t count)
{
	struct eventlog_facts facts, before;

	memset(&facts, 0x77, sizeof facts);
	before = facts;
	if (count < VALUES_BYTES)
		return;
	if (eventlog_replay(bytes + VALUES_BYTES, count - VALUES_BYTES, PCRS, bytes, &facts) !=
		SECPOOL_OK)
		require(memcmp(&facts, &before, sizeof facts) == 0);
	else
		require(facts.firmware[0] && facts.id[0] && facts.serial[0] && facts.bytes > 0);
}

static void extended(const char *text, uint8_t *value)
{
	uint8_t both[2 * TPM_PCR_BYTES] = {0};

	require(EVP_Digest(text, strlen(text), both + TPM_PCR_BYTES, NULL, EVP_sha256(), NULL) ==
			1 &&
		EVP_Digest(both, sizeof both, value, NULL, EVP_sha256(), NULL) == 1);
}

static void check_texts(const char *firmware, const char *device)
{
	const struct eventlog_event events[] = {
		{.pcr = 0, .type = EVENTLOG_CRTM_VERSION, .text = firmware},
		{.pcr = 2, .type = EVENTLOG_NONHOST_INFO, .text = device},
	};
	uint8_t log[EVENTLOG_BYTES_MOST], values[VALUES_BYTES];
	struct eventlog_facts facts;
	char again[4 * EVENTLOG_TEXT_BYTES];
	size_t bytes = 0;

	if (eventlog_make(events, 2, log, &bytes) != SECPOOL_OK)
		return;
	extended(firmware, values);
	extended(device, values + TPM_PCR_BYTES);
	if (eventlog_replay(log, bytes, PCRS, values, &facts) != SECPOOL_OK) {
		require(!strstr(err_detail(), "does not replay"));
		return;
	}
	snprintf(again, sizeof again, "firmware:%s", facts.firmware);
	require(strcmp(again, firmware) == 0);
	snprintf(again, sizeof again, "device:%s:%llu:%s", facts.id,
		(unsigned long long)facts.bytes, facts.serial);
	require(strcmp(again, device) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	char *text, *second;

	if (count == 0)
		return 0;
	if (bytes[0] == 0) {
		check_raw(bytes + 1, count - 1);
		return 0;
	}
	text = calloc(1, count + 2); /* two texts, each with its NUL */
	require(text != NULL);
	memcpy(text, bytes + 1, count - 1);
	second = text + strlen(text) + 1;
	check_texts(text, second);
	free(text);
	return 0;
}
