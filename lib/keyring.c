/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/keyring.h"

#include <assert.h>

/* A version that no page can have: it is never sealed. */
#define NO_VERSION UINT64_MAX

static unsigned bit_of(uint64_t version)
{
	return (version & PAGE_KEY_BIT) != 0;
}

void keyring_init(struct keyring *ring, struct pagecipher **cipher)
{
	*ring = (struct keyring){.ciphers = {*cipher}};
	*cipher = NULL;
}

void keyring_done(struct keyring *ring)
{
	for (unsigned i = 0; i < 2; i++) {
		pagecipher_free(ring->ciphers[i]);
		ring->ciphers[i] = NULL;
	}
}

uint64_t keyring_next(const struct keyring *ring, uint64_t version)
{
	/* acquire: the cipher that was put in before */
	unsigned current = atomic_load_explicit(&ring->current, memory_order_acquire);
	uint64_t number = version & ~PAGE_KEY_BIT;

	if (bit_of(version) != current && number > KEYRING_RISES_TO)
		number = 0;
	if (number + 1 >= PAGE_KEY_BIT)
		return NO_VERSION;
	return (number + 1) | (current ? PAGE_KEY_BIT : 0);
}

bool keyring_is_old(const struct keyring *ring, uint64_t version)
{
	return bit_of(version) != atomic_load_explicit(&ring->current, memory_order_acquire);
}

bool keyring_is_turning(const struct keyring *ring)
{
	return ring->ciphers[0] && ring->ciphers[1];
}

static enum secpool_error find(
	const struct keyring *ring, uint64_t version, struct pagecipher **ret_cipher)
{
	if (version > PAGE_VERSION_MOST)
		return err_set(SECPOOL_E_LIMIT, "a page was written as often as it may");
	/* whoever has a version of this key has it from a page that was published after the key was put in */
	*ret_cipher = ring->ciphers[bit_of(version)];
	assert(*ret_cipher);
	return SECPOOL_OK;
}

enum secpool_error keyring_seal(struct keyring *ring, unsigned worker, uint64_t pgno,
	uint64_t version, const void *plain, void *ciphertext, uint8_t tag[PAGECIPHER_TAG_BYTES])
{
	struct pagecipher *cipher = NULL;
	enum secpool_error error = find(ring, version, &cipher);

	return error ? error
		     : pagecipher_seal(cipher, worker, PAGECIPHER_DATA, pgno,
			       version & ~PAGE_KEY_BIT, plain, ciphertext, tag);
}

enum secpool_error keyring_open(struct keyring *ring, unsigned worker, uint64_t pgno,
	uint64_t version, const void *ciphertext, const uint8_t tag[PAGECIPHER_TAG_BYTES],
	void *plain)
{
	struct pagecipher *cipher = NULL;
	enum secpool_error error = find(ring, version, &cipher);

	return error ? error
		     : pagecipher_open(cipher, worker, PAGECIPHER_DATA, pgno,
			       version & ~PAGE_KEY_BIT, ciphertext, tag, plain);
}

enum secpool_error keyring_open_exposed(struct keyring *ring, unsigned worker, uint64_t pgno,
	uint64_t version, const void *ciphertext, const uint8_t tag[PAGECIPHER_TAG_BYTES],
	void *plain)
{
	struct pagecipher *cipher = NULL;
	enum secpool_error error = find(ring, version, &cipher);

	return error ? error
		     : pagecipher_open_exposed(cipher, worker, PAGECIPHER_DATA, pgno,
			       version & ~PAGE_KEY_BIT, ciphertext, tag, plain);
}

enum secpool_error keyring_open_live(struct keyring *ring, unsigned worker, uint64_t pgno,
	uint64_t version, const void *ciphertext, const uint8_t tag[PAGECIPHER_TAG_BYTES],
	bool exposed, void *kept, void *plain)
{
	struct pagecipher *cipher = NULL;
	enum secpool_error error = find(ring, version, &cipher);

	return error ? error
		     : pagecipher_open_live(cipher, worker, PAGECIPHER_DATA, pgno,
			       version & ~PAGE_KEY_BIT, ciphertext, tag, exposed, kept, plain);
}

enum secpool_error keyring_check(struct keyring *ring, unsigned worker, uint64_t pgno,
	uint64_t version, const void *ciphertext, const uint8_t tag[PAGECIPHER_TAG_BYTES])
{
	struct pagecipher *cipher = NULL;
	enum secpool_error error = find(ring, version, &cipher);

	return error ? error
		     : pagecipher_check(cipher, worker, PAGECIPHER_DATA, pgno,
			       version & ~PAGE_KEY_BIT, ciphertext, tag);
}

void keyring_turn(struct keyring *ring, struct pagecipher **cipher)
{
	unsigned next = !atomic_load(&ring->current);

	assert(!ring->ciphers[next]);
	ring->ciphers[next] = *cipher;
	*cipher = NULL;
	/* release: the cipher before */
	atomic_store_explicit(&ring->current, next, memory_order_release);
}

void keyring_retire(struct keyring *ring)
{
	unsigned old = !atomic_load(&ring->current);

	pagecipher_free(ring->ciphers[old]);
	ring->ciphers[old] = NULL;
}

const struct pagecipher *keyring_current(const struct keyring *ring)
{
	return ring->ciphers[atomic_load(&ring->current)];
}

uint64_t keyring_blocks(const struct keyring *ring)
{
	return pagecipher_blocks(ring->ciphers[atomic_load(&ring->current)]);
}
