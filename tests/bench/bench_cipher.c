/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page cipher on one core: seal and open with tag beside OpenSSL's XTS alone, GMAC alone, memcpy and memset, in GB/s (10^9 bytes).
 * Each candidate goes through the same buffer of many pages, so that all see the same caches.
 */
#include "tests/bench/bench.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "enclave/gmac.h"
#include "enclave/keypage.h"
#include "enclave/pagecipher.h"
#include "enclave/secmem.h"
#include "enclave/selftest.h"
#include "enclave/xts.h"
#include "lib/base/os.h"
#include "lib/wire/msg.h"

/* What one call of a candidate goes through, in bytes: larger than the second-level cache; a whole number of the largest pages. */
enum { SPAN_BYTES = 8 << 20 };

/* Everything that the candidates work on. */
struct work {
	size_t page_bytes, pages;
	uint8_t *plain, *sealed, *other;
	uint8_t (*tags)[PAGECIPHER_TAG_BYTES];
	struct pagecipher *cipher;
	struct gmac gmac;
	EVP_CIPHER_CTX *xts;
	uint64_t version; /* each sealing takes a new one, as the library does */
	bool failed;
};

static void run_openssl(void *arg, unsigned times)
{
	struct work *work = arg;
	uint8_t tweak[XTS_TWEAK_BYTES] = {0};
	int done;

	for (unsigned t = 0; t < times; t++) {
		for (size_t i = 0; i < work->pages; i++) {
			size_t at = i * work->page_bytes;

			memcpy(tweak, &i, sizeof i);
			if (EVP_EncryptInit_ex2(work->xts, NULL, NULL, tweak, NULL) != 1 ||
				EVP_EncryptUpdate(work->xts, work->other + at, &done,
					work->plain + at, (int)work->page_bytes) != 1)
				work->failed = true;
		}
	}
}

static void run_seal(void *arg, unsigned times)
{
	struct work *work = arg;

	for (unsigned t = 0; t < times; t++) {
		work->version++;
		for (size_t i = 0; i < work->pages; i++) {
			size_t at = i * work->page_bytes;

			if (pagecipher_seal(work->cipher, 0, PAGECIPHER_DATA, i, work->version,
				    work->plain + at, work->sealed + at, work->tags[i]))
				work->failed = true;
		}
	}
}

/* Opens what run_seal left. */
static void run_open(void *arg, unsigned times)
{
	struct work *work = arg;

	for (unsigned t = 0; t < times; t++) {
		for (size_t i = 0; i < work->pages; i++) {
			size_t at = i * work->page_bytes;

			if (pagecipher_open(work->cipher, 0, PAGECIPHER_DATA, i, work->version,
				    work->sealed + at, work->tags[i], work->other + at))
				work->failed = true;
		}
	}
}

static void run_gmac(void *arg, unsigned times)
{
	struct work *work = arg;
	uint8_t nonce[GMAC_NONCE_BYTES] = {0}, tag[GMAC_TAG_BYTES];

	for (unsigned t = 0; t < times; t++) {
		for (size_t i = 0; i < work->pages; i++) {
			memcpy(nonce, &i, sizeof i);
			if (gmac_tag(&work->gmac, nonce, work->plain + i * work->page_bytes,
				    work->page_bytes, tag))
				work->failed = true;
		}
	}
}

/* The compiler may neither drop nor join the copies of a round. */
static void keep(const void *memory)
{
	__asm__ volatile("" : : "r"(memory) : "memory");
}

static void run_memcpy(void *arg, unsigned times)
{
	struct work *work = arg;

	for (unsigned t = 0; t < times; t++) {
		for (size_t i = 0; i < work->pages; i++) {
			size_t at = i * work->page_bytes;

			memcpy(work->other + at, work->plain + at, work->page_bytes);
			keep(work->other);
		}
	}
}

static void run_memset(void *arg, unsigned times)
{
	struct work *work = arg;

	for (unsigned t = 0; t < times; t++) {
		for (size_t i = 0; i < work->pages; i++) {
			memset(work->other + i * work->page_bytes, (int)t, work->page_bytes);
			keep(work->other);
		}
	}
}

/* The page cipher under fresh keys, and OpenSSL and GMAC under the same ones. */
static enum secpool_error set_keys(struct work *work)
{
	struct pagecipher_binding binding = {
		.region = 1, .epoch = 1, .page_bytes = work->page_bytes};
	struct region_keys *keys = secmem_new(sizeof *keys);
	void *page = NULL;
	int fd = -1;
	enum secpool_error error;

	if (!keys)
		return err_set(SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory for keys");
	os_random(keys, sizeof *keys);
	error = secmem_new_shared(&fd, &page);
	if (error)
		goto out;
	keypage_put(page, &binding, MSG_PROTECTION_XTS_GMAC, KEYPAGE_ANY, keys);
	error = pagecipher_new(fd, &binding, 1, &work->cipher);
	if (error)
		goto out;
	error = gmac_init(&work->gmac, keys->tag);
	if (error)
		goto out;
	work->xts = EVP_CIPHER_CTX_new();
	if (!work->xts ||
		EVP_EncryptInit_ex2(work->xts, EVP_aes_256_xts(), keys->xts, NULL, NULL) != 1)
		error = err_set(SECPOOL_E_CRYPTO, "OpenSSL's AES-256-XTS");
out:
	secmem_free_pages(page, KEYPAGE_BYTES);
	os_close(&fd);
	secmem_free(keys);
	return error;
}

static void end_keys(struct work *work)
{
	pagecipher_free(work->cipher);
	gmac_done(&work->gmac);
	EVP_CIPHER_CTX_free(work->xts);
}

static double gb_per_s(double seconds)
{
	return (double)SPAN_BYTES / seconds / 1e9;
}

static void report_ratio(
	struct bench *bench, const char *metric, double slow, double fast, const char *config)
{
	bench_report(bench, metric, fast / slow, "x", 0, 0, config);
}

static int measure(struct bench *bench, struct work *work)
{
	enum { OPENSSL, SEAL, OPEN, GMAC, MEMCPY, MEMSET, CANDIDATES };
	struct bench_candidate all[CANDIDATES] = {
		[OPENSSL] = {.metric = "openssl_xts", .run = run_openssl},
		[SEAL] = {.metric = "pagecipher_seal", .run = run_seal},
		[OPEN] = {.metric = "pagecipher_open", .run = run_open},
		[GMAC] = {.metric = "gmac", .run = run_gmac},
		[MEMCPY] = {.metric = "memcpy", .run = run_memcpy},
		[MEMSET] = {.metric = "memset", .run = run_memset},
	};
	char config[32];

	snprintf(config, sizeof config, "page_bytes=%zu", work->page_bytes);
	for (size_t i = 0; i < CANDIDATES; i++)
		all[i].arg = work;
	bench_compare(all, CANDIDATES, 1);
	run_open(work, 1);
	if (work->failed || memcmp(work->other, work->plain, SPAN_BYTES) != 0)
		return bench_failed(bench, "a page could not be sealed or opened");
	for (size_t i = 0; i < CANDIDATES; i++)
		bench_report(bench, all[i].metric, gb_per_s(bench_median(&all[i])), "GB/s",
			gb_per_s(all[i].seconds[BENCH_ROUNDS - 1]), gb_per_s(all[i].seconds[0]),
			config);
	report_ratio(bench, "seal_vs_openssl_xts", bench_median(&all[SEAL]),
		bench_median(&all[OPENSSL]), config);
	report_ratio(bench, "open_vs_openssl_xts", bench_median(&all[OPEN]),
		bench_median(&all[OPENSSL]), config);
	report_ratio(bench, "seal_vs_memcpy", bench_median(&all[SEAL]), bench_median(&all[MEMCPY]),
		config);
	return 0;
}

int bench_cipher(struct bench *bench)
{
	struct work work = {0};
	uint8_t *memory = mmap(NULL, 3 * SPAN_BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	static uint8_t tags[SPAN_BYTES / PAGECIPHER_PAGE_BYTES_LEAST][PAGECIPHER_TAG_BYTES];
	int status = 0;

	if (secmem_init(SECMEM_ALLOW_LOCKED))
		return bench_failed(bench, "secret memory");
	if (selftest_run()) /* it puts this CPU's fastest engine to use */
		return bench_failed(bench, "self-test");
	if (memory == MAP_FAILED)
		return bench_failed(bench, "memory for pages");
	work.plain = memory;
	work.sealed = memory + SPAN_BYTES;
	work.other = memory + 2 * SPAN_BYTES;
	work.tags = tags;
	os_random(work.plain, SPAN_BYTES);
	for (work.page_bytes = PAGECIPHER_PAGE_BYTES_LEAST;
		work.page_bytes <= PAGECIPHER_PAGE_BYTES_MOST && status == 0;
		work.page_bytes *= 2) {
		work.pages = SPAN_BYTES / work.page_bytes;
		work.cipher = NULL;
		work.gmac.context = NULL;
		work.xts = NULL;
		status = set_keys(&work) ? bench_failed(bench, "keys") : measure(bench, &work);
		end_keys(&work);
	}
	munmap(memory, 3 * SPAN_BYTES);
	return status ? status : bench_engines(bench);
}
