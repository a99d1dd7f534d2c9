/* SPDX-License-Identifier: Apache-2.0 */
/* The words of a receipt that its writer (receipt.c, in the enclave) and its reader (receipt_verify.c, in the command) share. Threads: any. */
#ifndef SECPOOL_ENCLAVE_RECEIPT_TEXT_H
#define SECPOOL_ENCLAVE_RECEIPT_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "lib/wire/msg.h"

#define RECEIPT_FORMAT "secpool-receipt-1"

/* The word for enum msg_readback; NULL for another number. */
static inline const char *receipt_readback_name(uint32_t readback)
{
	switch (readback) {
	case MSG_READBACK_MATCHED:
		return "matched";
	case MSG_READBACK_DIFFERED:
		return "differed";
	case MSG_READBACK_UNREACHABLE:
		return "unreachable";
	default:
		return NULL;
	}
}

/* The word for enum msg_client_end; NULL for another number. */
static inline const char *receipt_client_name(uint32_t client)
{
	switch (client) {
	case MSG_CLIENT_ACKNOWLEDGED:
		return "acknowledged";
	case MSG_CLIENT_READERS:
		return "readers";
	case MSG_CLIENT_DEAD:
		return "dead";
	default:
		return NULL;
	}
}

/* Lower-case hex; to has 2 * count + 1 bytes. */
static inline void receipt_hex(const uint8_t *bytes, size_t count, char *to)
{
	for (size_t i = 0; i < count; i++)
		snprintf(to + 2 * i, 3, "%02x", bytes[i]);
	to[2 * count] = 0;
}

#endif
