/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as evidence: EK, AK, attest, signature, nonce and PCR values. The input is five
 * length-prefixed pieces (two bytes, little endian, cut at the input's end), then the PCR mask,
 * then the values.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "enclave/quote_verify.h"

enum { PIECES = 5, PCR_VALUES_MOST = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

struct piece {
	const uint8_t *bytes;
	size_t count;
};

static struct piece take(const uint8_t **at, size_t *left)
{
	struct piece piece = {.bytes = *at};

	if (*left >= 2) {
		piece.count = (size_t)((*at)[0] | (*at)[1] << 8);
		*at += 2;
		*left -= 2;
		piece.bytes = *at;
	}
	if (piece.count > *left)
		piece.count = *left;
	*at += piece.count;
	*left -= piece.count;
	return piece;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static const uint8_t secret[QUOTE_SECRET_BYTES];
	uint8_t credential[TPM_PUBLIC_BYTES], sealed[TPM_PUBLIC_BYTES];
	uint8_t values[PCR_VALUES_MOST * TPM_PCR_BYTES] = {0}, name[QUOTE_NAME_BYTES];
	size_t credential_bytes = 0, sealed_bytes = 0, left = bytes;
	const uint8_t *at = data;
	struct piece piece[PIECES];
	struct quote_facts facts;
	uint32_t pcrs = 0;
	char pem[512];

	for (unsigned i = 0; i < PIECES; i++)
		piece[i] = take(&at, &left);
	for (unsigned i = 0; i < 4 && left > 0; i++, left--)
		pcrs = pcrs << 8 | *at++;
	if (left > 0)
		memcpy(values, at, left < sizeof values ? left : sizeof values);
	for (unsigned i = 0; i < 2; i++) {
		if (quote_public_name(piece[i].bytes, piece[i].count, name) == SECPOOL_OK)
			assert(name[0] == 0 && name[1] == 0x0b);
		if (quote_public_pem(piece[i].bytes, piece[i].count, pem, sizeof pem) == SECPOOL_OK)
			assert(memchr(pem, '\0', sizeof pem));
	}
	if (quote_make_credential(piece[0].bytes, piece[0].count, piece[1].bytes, piece[1].count,
		    secret, credential, &credential_bytes, sealed, &sealed_bytes) == SECPOOL_OK)
		assert(credential_bytes <= sizeof credential && sealed_bytes <= sizeof sealed);
	(void)!quote_verify(piece[0].bytes, piece[0].count, piece[1].bytes, piece[1].count,
		piece[2].bytes, piece[2].count, piece[3].bytes, piece[3].count, piece[4].bytes,
		piece[4].count, pcrs, values, PCR_VALUES_MOST, &facts);
	return 0;
}
