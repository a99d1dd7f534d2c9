/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sealed regions against who holds the devices and the state folder's manifests: older pages, which were true once under the same key, changed pages and manifests, another region's manifest. Readers get what was sealed, or nothing; and they
 * never write to a device. Nor does the tag key help, which every reader has: pages are forged with it. timeout: 240
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "enclave/gmac.h"
#include "enclave/keypage.h"
#include "tests/support/support.h"

enum { PAGE = 4096, PAGES = 64, LOCAL = 4 << 20, MEDIA = 32 << 20, DEVICES = 2, WAIT_MS = 60000 };
enum { OLD = 1, SEALED = 2, OTHER = 3 };

/* What the processes share. */
static struct board {
	atomic_ullong region, other;
	atomic_bool old_there, go_on;
} * board;

static uint64_t seed_of(int state, size_t page)
{
	return (uint64_t)state << 32 | page;
}

static void write_state(struct secpool_region *region, int state)
{
	uint8_t *at = secpool_region_address(region);

	for (size_t i = 0; i < PAGES; i++)
		support_fill(at + i * PAGE, PAGE, seed_of(state, i));
	SUPPORT_OK(secpool_flush(region));
}

static bool is_set(void *arg)
{
	return atomic_load((atomic_bool *)arg);
}

static int write_all(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL);
	struct secpool_region *region = support_region(pool, PAGES * PAGE, 2);
	struct secpool_region *other = support_region(pool, PAGES * PAGE, 2);

	(void)arg;
	write_state(region, OLD);
	atomic_store(&board->old_there, true);
	SUPPORT_CHECK(support_wait(is_set, &board->go_on, WAIT_MS));
	write_state(region, SEALED);
	write_state(other, OTHER);
	SUPPORT_OK(secpool_region_seal(region, "one"));
	SUPPORT_OK(secpool_region_seal(other, "other"));
	SUPPORT_OK(secpool_region_grant(region, "alpha2"));
	atomic_store(&board->region, secpool_region_number(region));
	atomic_store(&board->other, secpool_region_number(other));
	secpool_close(pool);
	return 0;
}

/* ---- media ---- */

static uint8_t *media_of(unsigned device)
{
	int fd = open(support_path("devices/dev%u/media", device), O_RDWR);
	void *at = mmap(NULL, MEDIA, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	SUPPORT_CHECK(fd >= 0 && at != MAP_FAILED);
	/* readers have their own mappings, and no other */
	SUPPORT_CHECK(madvise(at, MEDIA, MADV_DONTFORK) == 0);
	close(fd);
	return at;
}

static uint8_t *media[DEVICES], *old_media[DEVICES], *sealed_media[DEVICES];

static void save(uint8_t *to[DEVICES])
{
	for (unsigned i = 0; i < DEVICES; i++) {
		to[i] = malloc(MEDIA);
		SUPPORT_CHECK(to[i]);
		memcpy(to[i], media[i], MEDIA);
	}
}

static void put_back(uint8_t *const from[DEVICES])
{
	for (unsigned i = 0; i < DEVICES; i++)
		memcpy(media[i], from[i], MEDIA);
}

/* ---- readers ---- */

static sigjmp_buf after_fault;

static void on_fault(int number)
{
	(void)number;
	siglongjmp(after_fault, 1);
}

static bool raises_sigbus(const volatile uint8_t *at)
{
	struct sigaction action = {.sa_handler = on_fault};

	SUPPORT_CHECK(sigaction(SIGBUS, &action, NULL) == 0);
	if (sigsetjmp(after_fault, 1) != 0)
		return true;
	(void)*at;
	return false;
}

static struct secpool *open_reader(void)
{
	struct secpool_options options = {
		.size = sizeof options, .local_bytes = LOCAL, .read_only = 1};
	struct secpool *pool;

	SUPPORT_OK(secpool_open("alpha2", &options, &pool));
	return pool;
}

/* arg: the error that attaching gives. */
static int refuse(void *arg)
{
	enum secpool_error want = (enum secpool_error)(uintptr_t)arg;
	struct secpool *pool = open_reader();
	struct secpool_region *region = NULL;
	enum secpool_error error = secpool_region_attach(pool, "alpha/one", 0, &region);

	if (error != want)
		support_fail("attach gave %d (%s), %d was expected", error, secpool_error_detail(),
			want);
	SUPPORT_CHECK(region == NULL);
	secpool_close(pool);
	return 0;
}

/* arg: whether each page is what was sealed, or lost; never anything else. */
static int read_pages(void *arg)
{
	bool good = arg != NULL;
	struct secpool *pool = open_reader();
	struct secpool_region *region;
	uint8_t page[PAGE], *at;

	SUPPORT_OK(secpool_region_attach(pool, "alpha/one", 0, &region));
	at = secpool_region_address(region);
	for (size_t i = 0; i < PAGES; i++) {
		bool mapped = i % 2;
		if (good && mapped) {
			SUPPORT_CHECK(support_matches(at + i * PAGE, PAGE, seed_of(SEALED, i)));
		} else if (good) {
			SUPPORT_OK(secpool_read(region, i * PAGE, page, PAGE));
			SUPPORT_CHECK(support_matches(page, PAGE, seed_of(SEALED, i)));
		} else {
			SUPPORT_CHECK(mapped ? raises_sigbus(at + i * PAGE)
					     : secpool_read(region, i * PAGE, page, PAGE) ==
						       SECPOOL_E_LOST);
		}
	}
	secpool_close(pool);
	return 0;
}

/* The whole of this process's mappings: none of a device can be written to. */
static int look_at_mappings(void *arg)
{
	struct secpool *pool = open_reader();
	struct secpool_region *region;
	unsigned found = 0;
	char line[512];
	FILE *maps;

	(void)arg;
	SUPPORT_OK(secpool_region_attach(pool, "alpha/one", 0, &region));
	maps = fopen("/proc/self/maps", "r");
	SUPPORT_CHECK(maps);
	while (fgets(line, sizeof line, maps))
		if (strstr(line, "/media") && strstr(line, "devices/dev")) {
			found++;
			SUPPORT_CHECK(strstr(line, " r--s "));
		}
	fclose(maps);
	SUPPORT_CHECK(found == DEVICES);
	secpool_close(pool);
	return 0;
}

/* ---- forging ---- */

/* The square of the hash key that the region's tag key gives, as a block. */
static uint8_t hash_key_squared[GMAC_TAG_BYTES];

enum secpool_error __real_pagecipher_new(int key_fd, const struct pagecipher_binding *expect,
	unsigned workers, struct pagecipher **ret);
enum secpool_error __wrap_pagecipher_new(int key_fd, const struct pagecipher_binding *expect,
	unsigned workers, struct pagecipher **ret);

/*
 * GMAC is GHASH, masked by the nonce (NIST SP 800-38D, sections 6.4 and 7): each block of the data times a power of the hash key, the last one's the second, summed up. So the tags of the block that is 1 and of the one that is 0,
 * under one nonce, differ by just that square.
 */
static void learn(const uint8_t *tag_key)
{
	static const uint8_t nonce[GMAC_NONCE_BYTES], zero[GMAC_TAG_BYTES];
	static const uint8_t one[GMAC_TAG_BYTES] = {0x80};
	uint8_t tag[GMAC_TAG_BYTES];
	struct gmac gmac;

	SUPPORT_OK(gmac_init(&gmac, tag_key));
	SUPPORT_OK(gmac_tag(&gmac, nonce, zero, sizeof zero, tag));
	SUPPORT_OK(gmac_tag(&gmac, nonce, one, sizeof one, hash_key_squared));
	for (size_t i = 0; i < sizeof tag; i++)
		hash_key_squared[i] ^= tag[i];
	gmac_done(&gmac);
}

/* The library's own call: the test learns what a reader can. */
enum secpool_error __wrap_pagecipher_new(int key_fd, const struct pagecipher_binding *expect,
	unsigned workers, struct pagecipher **ret)
{
	void *page = mmap(NULL, KEYPAGE_BYTES, PROT_READ, MAP_SHARED, key_fd, 0);
	struct region_keys keys;

	SUPPORT_CHECK(page != MAP_FAILED);
	SUPPORT_OK(keypage_get(page, expect, &keys));
	learn(keys.tag);
	explicit_bzero(&keys, sizeof keys);
	munmap(page, KEYPAGE_BYTES);
	return __real_pagecipher_new(key_fd, expect, workers, ret);
}

/* 1 in the last block but two, whose power is the fourth, and the square in the last, whose power is the second: the tag stays as it was. */
static void forge(uint8_t *page)
{
	page[PAGE - 3 * GMAC_TAG_BYTES] ^= 0x80;
	for (size_t i = 0; i < GMAC_TAG_BYTES; i++)
		page[PAGE - GMAC_TAG_BYTES + i] ^= hash_key_squared[i];
}

static int forge_all(void *arg)
{
	struct secpool *pool = open_reader();
	struct secpool_region *region;
	uint8_t page[PAGE];

	(void)arg;
	SUPPORT_OK(secpool_region_attach(pool, "alpha/one", 0, &region));
	for (unsigned i = 0; i < DEVICES; i++) {
		uint8_t *at = media_of(i);
		for (size_t done = 0; done < MEDIA; done += PAGE)
			forge(at + done);
		munmap(at, MEDIA);
	}
	for (size_t i = 0; i < PAGES; i++)
		SUPPORT_CHECK(secpool_read(region, i * PAGE, page, PAGE) == SECPOOL_E_LOST);
	secpool_close(pool);
	return 0;
}

static void run(int (*work)(void *arg), uintptr_t arg)
{
	SUPPORT_CHECK(support_join(support_fork(work, (void *)arg), WAIT_MS) == 0);
}

/* ---- attacks ---- */

static const char *manifest_of(unsigned long long region)
{
	return support_path("state/manifests/%llu", region);
}

static void flip(const char *path, off_t at)
{
	int fd = open(path, O_RDWR);
	uint8_t byte;

	SUPPORT_CHECK(fd >= 0 && pread(fd, &byte, 1, at) == 1);
	byte ^= 0x10;
	SUPPORT_CHECK(pwrite(fd, &byte, 1, at) == 1);
	close(fd);
}

static void attack_manifest(void)
{
	const char *mine = manifest_of(atomic_load(&board->region));
	const char *other = manifest_of(atomic_load(&board->other));
	const char *kept = support_path("kept");
	static const off_t places[] = {0, 8, 72, 136, 200, 256, 264, 280, 256 + 56 * PAGES - 1};

	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		flip(mine, places[i]);
		run(refuse, SECPOOL_E_INTEGRITY);
		flip(mine, places[i]);
	}
	/* another's, of the same length and tenant */
	SUPPORT_CHECK(rename(mine, kept) == 0 && link(other, mine) == 0);
	run(refuse, SECPOOL_E_INTEGRITY);
	SUPPORT_CHECK(unlink(mine) == 0);
	run(refuse, SECPOOL_E_STORE);
	SUPPORT_CHECK(rename(kept, mine) == 0);
	SUPPORT_CHECK(truncate(mine, 256 + 56 * PAGES + 1) == 0);
	run(refuse, SECPOOL_E_INTEGRITY);
	SUPPORT_CHECK(truncate(mine, 256 + 56 * PAGES) == 0);
	run(read_pages, true);
}

static void attack_pages(void)
{
	/* what was written under the same key before it was sealed */
	put_back(old_media);
	run(read_pages, false);
	put_back(sealed_media);
	run(read_pages, true);
	/* one device lies: the other's copies are read, and nothing is written over the lies */
	for (size_t at = 100; at < MEDIA; at += PAGE)
		media[0][at] ^= 0x80;
	memcpy(old_media[0], media[0], MEDIA);
	run(read_pages, true);
	SUPPORT_CHECK(memcmp(media[0], old_media[0], MEDIA) == 0);
	SUPPORT_CHECK(memcmp(media[1], sealed_media[1], MEDIA) == 0);
	/* both do */
	for (size_t at = 100; at < MEDIA; at += PAGE)
		media[1][at] ^= 0x80;
	run(read_pages, false);
	put_back(sealed_media);
	run(read_pages, true);
	run(forge_all, 0);
	put_back(sealed_media);
	run(read_pages, true);
}

int main(void)
{
	pid_t writer;

	board = mmap(
		NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	SUPPORT_CHECK(board != MAP_FAILED);
	support_up(DEVICES, "32M", NULL);
	support_wait_device("dev0", "online", true, WAIT_MS);
	support_wait_device("dev1", "online", true, WAIT_MS);
	writer = support_fork(write_all, NULL);
	SUPPORT_CHECK(support_wait(is_set, &board->old_there, WAIT_MS));
	for (unsigned i = 0; i < DEVICES; i++)
		media[i] = media_of(i);
	save(old_media);
	atomic_store(&board->go_on, true);
	SUPPORT_CHECK(support_join(writer, WAIT_MS) == 0);
	save(sealed_media);
	run(read_pages, true);
	run(look_at_mappings, 0);
	attack_manifest();
	attack_pages();
	support_down();
	return 0;
}
