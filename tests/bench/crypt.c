/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/crypt.h"

#include <stdlib.h>
#include <string.h>

#include "enclave/keypage.h"
#include "enclave/secmem.h"
#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/wire/msg.h"

enum { TAGS = CRYPT_BYTES / PAGECIPHER_PAGE_BYTES_LEAST };

static enum secpool_error new_cipher(struct crypt *crypt)
{
	struct pagecipher_binding binding = {
		.region = 1, .epoch = 1, .page_bytes = crypt->page_bytes};
	struct region_keys *keys = secmem_new(sizeof *keys);
	void *page = NULL;
	int fd = -1;
	enum secpool_error error;

	if (!keys)
		return err_set(SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory for keys");
	os_random(keys, sizeof *keys);
	error = secmem_new_shared(&fd, &page);
	if (!error) {
		keypage_put(page, &binding, MSG_PROTECTION_XTS_GMAC, KEYPAGE_ANY, keys);
		error = pagecipher_new(fd, &binding, 1, &crypt->cipher);
	}
	secmem_free_pages(page, KEYPAGE_BYTES);
	os_close(&fd);
	secmem_free(keys);
	return error;
}

enum secpool_error crypt_open(struct crypt *crypt, size_t page_bytes)
{
	enum secpool_error error;

	*crypt = (struct crypt){.page_bytes = page_bytes};
	crypt->plain = aligned_alloc(PAGECIPHER_PAGE_BYTES_LEAST, CRYPT_BYTES);
	crypt->sealed = aligned_alloc(PAGECIPHER_PAGE_BYTES_LEAST, CRYPT_BYTES);
	crypt->tags = calloc(TAGS, sizeof *crypt->tags);
	if (!crypt->plain || !crypt->sealed || !crypt->tags) {
		crypt_close(crypt);
		return err_set(SECPOOL_E_NO_MEMORY, "no memory for pages");
	}
	os_random(crypt->plain, CRYPT_BYTES);
	memset(crypt->sealed, 0, CRYPT_BYTES);
	error = new_cipher(crypt);
	if (error)
		crypt_close(crypt);
	return error;
}

void crypt_close(struct crypt *crypt)
{
	pagecipher_free(crypt->cipher);
	free(crypt->plain);
	free(crypt->sealed);
	free(crypt->tags);
	*crypt = (struct crypt){.page_bytes = 0};
}

enum secpool_error crypt_seal(struct crypt *crypt, double *ret_seconds)
{
	uint64_t start = clock_now_ns();
	enum secpool_error error = SECPOOL_OK;

	crypt->version++;
	for (size_t i = 0; i < CRYPT_BYTES / crypt->page_bytes && !error; i++)
		error = pagecipher_seal(crypt->cipher, 0, PAGECIPHER_DATA, i, crypt->version,
			crypt->plain + i * crypt->page_bytes, crypt->sealed + i * crypt->page_bytes,
			crypt->tags[i]);
	if (!error)
		*ret_seconds = (double)(clock_now_ns() - start) / (double)CLOCK_NS_PER_S;
	return error;
}

enum secpool_error crypt_unseal(struct crypt *crypt, double *ret_seconds)
{
	uint64_t start = clock_now_ns();
	enum secpool_error error = SECPOOL_OK;

	for (size_t i = 0; i < CRYPT_BYTES / crypt->page_bytes && !error; i++)
		error = pagecipher_open(crypt->cipher, 0, PAGECIPHER_DATA, i, crypt->version,
			crypt->sealed + i * crypt->page_bytes, crypt->tags[i],
			crypt->plain + i * crypt->page_bytes);
	if (!error)
		*ret_seconds = (double)(clock_now_ns() - start) / (double)CLOCK_NS_PER_S;
	return error;
}

void crypt_copy(struct crypt *crypt, double *ret_seconds)
{
	uint64_t start = clock_now_ns();

	for (size_t at = 0; at < CRYPT_BYTES; at += crypt->page_bytes) {
		memcpy(crypt->sealed + at, crypt->plain + at, crypt->page_bytes);
		__asm__ volatile(""
				 :
				 : "r"(crypt->sealed)
				 : "memory"); /* neither dropped nor joined */
	}
	*ret_seconds = (double)(clock_now_ns() - start) / (double)CLOCK_NS_PER_S;
}
