/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/secheap.h"

#include <jemalloc/jemalloc.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "enclave/secmem.h"

/* jemalloc under the names of lib/jemalloc.syms */
int secpool_je_mallctl(const char *name, void *old, size_t *old_bytes, void *new, size_t new_bytes);
void *secpool_je_mallocx(size_t bytes, int flags);
void secpool_je_dallocx(void *memory, int flags);
size_t secpool_je_sallocx(const void *memory, int flags);

/*
 * jemalloc first asks for 2 MiB to grow by (its HUGEPAGE), and when that is refused for exactly what it needs. The refusal is what
 * keeps the heap small: nothing of OpenSSL's is that large.
 */
enum { EXTENT_BYTES_MOST = 1 << 20 };

/* The argument of "experimental.arenas_create_ext"; jemalloc's manual describes it, its header does not. */
struct arena_config {
	extent_hooks_t *hooks;
	bool metadata_use_hooks;
};

/* Protects: chunk, chunk_left, locked_bytes. */
static pthread_mutex_t chunk_lock = PTHREAD_MUTEX_INITIALIZER;
static uint8_t *chunk;
static size_t chunk_left;
static size_t locked_bytes;

/* Written by secheap_init alone. */
static unsigned arena;
static bool have_arena;
static bool ready;

/* Holds: chunk_lock. The rest of the last chunk is given up when it is too short: it was never touched. */
static bool new_chunk(size_t bytes)
{
	size_t take = bytes > SECHEAP_CHUNK_BYTES ? bytes : SECHEAP_CHUNK_BYTES;
	void *pages = NULL;

	if (secmem_new_pages(take, &pages))
		return false;
	chunk = pages;
	chunk_left = take;
	locked_bytes += take;
	return true;
}

static void *extent_alloc(extent_hooks_t *hooks, void *at, size_t bytes, size_t alignment,
	bool *zero, bool *commit, unsigned index)
{
	size_t skip;
	void *extent = NULL;

	(void)hooks;
	(void)index;
	/* guard pages are not of our chunks, so no alignment above a page is promised */
	if (at || bytes > EXTENT_BYTES_MOST || alignment > 4096)
		return NULL;
	pthread_mutex_lock(&chunk_lock);
	skip = chunk_left ? (size_t)(-(uintptr_t)chunk & (alignment - 1)) : 0;
	if (chunk_left < skip + bytes) {
		skip = 0;
		if (!new_chunk(bytes))
			goto out;
	}
	extent = chunk + skip;
	chunk += skip + bytes;
	chunk_left -= skip + bytes;
	*zero = true;
	*commit = true;
out:
	pthread_mutex_unlock(&chunk_lock);
	return extent;
}

/* Extents split and merge freely: two that are neighbours are of one chunk, since guard pages stand between chunks. */
static bool extent_split(extent_hooks_t *hooks, void *at, size_t bytes, size_t left, size_t right,
	bool committed, unsigned index)
{
	(void)hooks, (void)at, (void)bytes, (void)left, (void)right, (void)committed, (void)index;
	return false;
}

static bool extent_merge(extent_hooks_t *hooks, void *left, size_t left_bytes, void *right,
	size_t right_bytes, bool committed, unsigned index)
{
	(void)hooks, (void)left, (void)left_bytes, (void)right, (void)right_bytes, (void)committed;
	(void)index;
	return false;
}

/* No dalloc and no purge: what the heap took it keeps, for its next objects. */
static extent_hooks_t hooks = {.alloc = extent_alloc, .split = extent_split, .merge = extent_merge};

static void *allocate(size_t bytes, int flags)
{
	return secpool_je_mallocx(
		bytes ? bytes : 1, MALLOCX_ARENA(arena) | MALLOCX_TCACHE_NONE | flags);
}

static void release(void *memory)
{
	if (!memory)
		return;
	secmem_wipe(memory, secpool_je_sallocx(memory, 0));
	secpool_je_dallocx(memory, MALLOCX_TCACHE_NONE);
}

/* ---- for OpenSSL: CRYPTO_set_mem_functions(3) ---- */

static void *crypto_malloc(size_t bytes, const char *file, int line)
{
	(void)file, (void)line;
	return allocate(bytes, 0);
}

static void crypto_free(void *memory, const char *file, int line)
{
	(void)file, (void)line;
	release(memory);
}

static void *crypto_realloc(void *memory, size_t bytes, const char *file, int line)
{
	size_t had;
	void *moved;

	(void)file, (void)line;
	if (!memory)
		return allocate(bytes, 0);
	if (bytes == 0) {
		release(memory);
		return NULL;
	}
	had = secpool_je_sallocx(memory, 0);
	if (bytes <= had && bytes > had / 2)
		return memory;
	moved = allocate(bytes, 0);
	if (!moved)
		return NULL;
	memcpy(moved, memory, bytes < had ? bytes : had);
	release(memory);
	return moved;
}

enum secpool_error secheap_init(void)
{
	struct arena_config config = {.hooks = &hooks, .metadata_use_hooks = false};
	size_t arena_bytes = sizeof arena;
	bool have_chunk;

	if (ready)
		return SECPOOL_OK;
	pthread_mutex_lock(&chunk_lock);
	have_chunk = chunk_left > 0;
	pthread_mutex_unlock(&chunk_lock);
	if (!have_chunk) {
		void *pages = NULL;
		enum secpool_error error = secmem_new_pages(SECHEAP_CHUNK_BYTES, &pages);

		if (error)
			return error;
		pthread_mutex_lock(&chunk_lock);
		chunk = pages;
		chunk_left = SECHEAP_CHUNK_BYTES;
		locked_bytes += SECHEAP_CHUNK_BYTES;
		pthread_mutex_unlock(&chunk_lock);
	}
	if (!have_arena) {
		if (secpool_je_mallctl("experimental.arenas_create_ext", &arena, &arena_bytes,
			    &config, sizeof config) != 0)
			return err_set(
				SECPOOL_E_NO_MEMORY, "jemalloc gave no arena for secret memory");
		have_arena = true;
	}
	if (CRYPTO_set_mem_functions(crypto_malloc, crypto_realloc, crypto_free) != 1)
		return err_set(SECPOOL_E_CRYPTO, "OpenSSL was used before secmem_init, so its keys "
						 "would lie in ordinary memory");
	ready = true;
	return SECPOOL_OK;
}

void *secheap_new(size_t bytes)
{
	return ready ? allocate(bytes, MALLOCX_ZERO) : NULL;
}

void secheap_free(void *memory)
{
	release(memory);
}

size_t secheap_locked_bytes(void)
{
	size_t bytes;

	pthread_mutex_lock(&chunk_lock);
	bytes = locked_bytes;
	pthread_mutex_unlock(&chunk_lock);
	return bytes;
}
