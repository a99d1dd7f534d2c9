/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/vaes_key.h"

#ifdef __x86_64__

#include <openssl/crypto.h>

/* x * by, in every column: SubWord and the round constant of FIPS 197 5.2, by a last round on equal columns, which ShiftRows leaves as they are. */
VAES_BLOCK __m128i sub_word(__m128i columns, int constant)
{
	return _mm_aesenclast_si128(columns, _mm_set1_epi32(constant));
}

/* Column i becomes the sum of the columns 0 to i. */
VAES_BLOCK __m128i running_sum(__m128i key)
{
	key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
	return _mm_xor_si128(key, _mm_slli_si128(key, 8));
}

/* FIPS 197 5.2, key expansion for eight words of key. */
VAES_BLOCK void expand(const uint8_t *from, __m128i *keys)
{
	const __m128i last_rotated = _mm_set1_epi32(0x0c0f0e0d);
	__m128i even = vaes_load(from), odd = vaes_load(from + VAES_BLOCK_BYTES);
	int constant = 1;

	keys[0] = even;
	keys[1] = odd;
	for (int i = 2; i <= VAES_ROUNDS; i += 2, constant <<= 1) {
		even = _mm_xor_si128(
			running_sum(even), sub_word(_mm_shuffle_epi8(odd, last_rotated), constant));
		keys[i] = even;
		if (i == VAES_ROUNDS)
			break;
		odd = _mm_xor_si128(running_sum(odd), sub_word(_mm_shuffle_epi32(even, 0xff), 0));
		keys[i + 1] = odd;
	}
}

/* Both directions of Key1 from its expansion; opening: FIPS 197 5.3.5, the keys of the equivalent inverse cipher. */
VAES_BLOCK void set_xts(struct vaes_key *key, const __m128i *keys)
{
	for (int i = 0; i <= VAES_ROUNDS; i++) {
		bool outer = i == 0 || i == VAES_ROUNDS;
		__m128i inverse = outer ? keys[i] : _mm_aesimc_si128(keys[i]);

		for (int lane = 0; lane < VAES_LANES; lane++) {
			key->xts[false][i][lane] = keys[i];
			key->xts[true][VAES_ROUNDS - i][lane] = inverse;
		}
	}
}

/* RFC 8452 appendix A: mulX_POLYVAL, without a branch. */
VAES_BLOCK __m128i times_x(__m128i a)
{
	const __m128i poly = _mm_set_epi64x((long long)0xc200000000000000, 1);
	__m128i carry = _mm_srli_epi64(a, 63);
	__m128i mask = _mm_sub_epi64(_mm_setzero_si128(), _mm_unpackhi_epi64(carry, carry));

	a = _mm_or_si128(_mm_slli_epi64(a, 1), _mm_slli_si128(carry, 8));
	return _mm_xor_si128(a, _mm_and_si128(mask, poly));
}

/* NIST SP 800-38D 7.1 step 1: the hash key is the cipher of zeros; then its powers as POLYVAL takes them. */
VAES_BLOCK void set_powers(struct vaes_key *key)
{
	__m128i hash = times_x(vaes_reverse(vaes_encrypt(key->tag, _mm_setzero_si128())));
	__m128i power = hash;

	for (int i = VAES_POWERS - 1; i >= 0; i--) {
		key->power[i] = power;
		key->power_sum[i] = _mm_xor_si128(power, _mm_shuffle_epi32(power, 0x4e));
		power = vaes_dot(power, hash);
	}
}

__attribute__((target("aes,pclmul,avx"))) void vaes_key_set(
	struct vaes_key *key, const struct region_keys *keys)
{
	expand(keys->xts, key->tweak); /* secret room, until its own contents come */
	set_xts(key, key->tweak);
	expand(keys->xts + PAGECIPHER_XTS_KEY_BYTES / 2, key->tweak);
	expand(keys->tag, key->tag);
	set_powers(key);
	_mm256_zeroall();
}

VAES_BLOCK __m128i one_block(
	const struct vaes_key *key, bool opening, __m128i tweak, const uint8_t *from)
{
	const __m128i(*keys)[VAES_LANES] = key->xts[opening];
	__m128i block = _mm_xor_si128(_mm_xor_si128(vaes_load(from), tweak), keys[0][0]);

	for (int i = 1; i < VAES_ROUNDS; i++)
		block = opening ? _mm_aesdec_si128(block, keys[i][0])
				: _mm_aesenc_si128(block, keys[i][0]);
	block = opening ? _mm_aesdeclast_si128(block, keys[VAES_ROUNDS][0])
			: _mm_aesenclast_si128(block, keys[VAES_ROUNDS][0]);
	return _mm_xor_si128(block, tweak);
}

/* IEEE 1619-2018 5.2: the tweak of the next block is this one times x, modulo x^128 + x^7 + x^2 + x + 1. */
VAES_BLOCK __m128i next_tweak(__m128i tweak)
{
	__m128i carry = _mm_srli_epi64(tweak, 63);
	__m128i folded = _mm_clmulepi64_si128(carry, _mm_set_epi64x(0, 0x87), 0x01);

	tweak = _mm_or_si128(_mm_slli_epi64(tweak, 1), _mm_slli_si128(carry, 8));
	return _mm_xor_si128(tweak, folded);
}

/* The last whole block and the part of one behind it: IEEE 1619-2018 5.3.2 and, with the two tweaks swapped, 5.4.2. */
VAES_BLOCK void steal(const struct vaes_key *key, bool opening, __m128i tweak, const uint8_t *from,
	uint8_t *to, size_t part)
{
	__m128i after = next_tweak(tweak);
	uint8_t mixed[VAES_BLOCK_BYTES];

	_mm_storeu_si128((void *)mixed, one_block(key, opening, opening ? after : tweak, from));
	for (size_t i = 0; i < part; i++) {
		uint8_t byte = from[VAES_BLOCK_BYTES + i];

		to[VAES_BLOCK_BYTES + i] = mixed[i];
		mixed[i] = byte;
	}
	_mm_storeu_si128((void *)to, one_block(key, opening, opening ? tweak : after, mixed));
	OPENSSL_cleanse(mixed, sizeof mixed);
}

__attribute__((target("aes,pclmul,avx"))) void vaes_key_xts_end(const struct vaes_key *key,
	bool opening, __m128i tweak, const uint8_t *from, uint8_t *to, size_t bytes)
{
	size_t part = bytes % VAES_BLOCK_BYTES;
	size_t whole = bytes / VAES_BLOCK_BYTES - (part ? 1 : 0);

	for (; whole > 0; whole--, from += VAES_BLOCK_BYTES, to += VAES_BLOCK_BYTES) {
		_mm_storeu_si128((void *)to, one_block(key, opening, tweak, from));
		tweak = next_tweak(tweak);
	}
	if (part)
		steal(key, opening, tweak, from, to, part);
	_mm256_zeroall();
}

#endif
