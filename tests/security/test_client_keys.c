/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys in a program that uses the library: while they are used they are in secret memory and nowhere else; after a rotation, a release and the pool's end nothing of them is left in the whole process, secret memory included. Looked
 * for are the keys' raw bytes, every round key of both directions and every power of the hash key, as our own engines keep them. timeout: 240
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "enclave/cpu.h"
#include "enclave/keypage.h"
#include "enclave/pagecipher.h"
#include "enclave/secmem.h"
#include "enclave/vaes_key.h"
#include "tests/support/support.h"

enum {
	PAGE = 4096,
	PAGES = 2048,
	LOCAL_BYTES = 4 << 20,
	CHUNKS_MOST = 64,
	PARTS_MOST = 1 << 14,
	CONTROL_BYTES = 64
};

/* What the program is to do next, and what it says. */
enum stage { STAGE_START, STAGE_USED, STAGE_ROTATED, STAGE_RELEASED, STAGE_CLOSED, STAGES };

static struct shared {
	_Atomic int wanted, reached;
	_Atomic unsigned keys;	   /* pagecipher_new was called so often */
	_Atomic unsigned parts[2]; /* of the region's first key, of later ones */
	uint8_t masked[2][PARTS_MOST][SUPPORT_PART_BYTES];
	struct support_needle control;	     /* in the program's ordinary memory */
	_Atomic size_t in_secret[STAGES][2]; /* how often parts of either stood in secret memory */
	_Atomic unsigned secret_maps[STAGES];
} * shared;

/* ---- in the program ---- */

static struct {
	const uint8_t *at;
	size_t bytes;
} chunks[CHUNKS_MOST];
static unsigned chunk_count;

enum secpool_error __real_secmem_new_pages(size_t bytes, void **ret_pages);
enum secpool_error __wrap_secmem_new_pages(size_t bytes, void **ret_pages);
enum secpool_error __real_pagecipher_new(int key_fd, const struct pagecipher_binding *expect,
	unsigned workers, struct pagecipher **ret);
enum secpool_error __wrap_pagecipher_new(int key_fd, const struct pagecipher_binding *expect,
	unsigned workers, struct pagecipher **ret);

enum secpool_error __wrap_secmem_new_pages(size_t bytes, void **ret_pages)
{
	enum secpool_error error = __real_secmem_new_pages(bytes, ret_pages);

	if (!error) {
		SUPPORT_CHECK(chunk_count < CHUNKS_MOST);
		chunks[chunk_count].at = *ret_pages;
		chunks[chunk_count++].bytes = bytes;
	}
	return error;
}

/* Masked, byte by byte. */
static void keep(unsigned which, const void *bytes, size_t count)
{
	const volatile uint8_t *at = bytes;

	for (size_t part = 0; part + SUPPORT_PART_BYTES <= count; part += SUPPORT_PART_BYTES) {
		SUPPORT_CHECK(shared->parts[which] < PARTS_MOST);
		uint8_t *to = shared->masked[which][shared->parts[which]];
		for (size_t i = 0; i < SUPPORT_PART_BYTES; i++)
			to[i] = at[part + i] ^ SUPPORT_MASK;
		shared->parts[which]++;
	}
}

/* What an engine makes of the keys; the rest of its struct is copies of these. */
static void keep_expanded(unsigned which, const struct region_keys *keys)
{
#ifdef __x86_64__
	struct vaes_key *key;

	if (!cpu_has_vaes256())
		return;
	key = mmap(NULL, sizeof *key, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	SUPPORT_CHECK(key != MAP_FAILED);
	vaes_key_set(key, keys);
	for (unsigned direction = 0; direction < 2; direction++)
		for (unsigned round = 0; round <= VAES_ROUNDS; round++)
			keep(which, key->xts[direction][round], VAES_BLOCK_BYTES);
	keep(which, key->power, sizeof key->power);
	keep(which, key->power_sum, sizeof key->power_sum);
	keep(which, key->tweak, sizeof key->tweak);
	keep(which, key->tag, sizeof key->tag);
	explicit_bzero(key, sizeof *key);
	munmap(key, sizeof *key);
#else
	(void)which, (void)keys;
#endif
}

/* The library's own call: the test learns the keys, from the key page in place. */
enum secpool_error __wrap_pagecipher_new(int key_fd, const struct pagecipher_binding *expect,
	unsigned workers, struct pagecipher **ret)
{
	void *page = mmap(NULL, KEYPAGE_BYTES, PROT_READ, MAP_SHARED, key_fd, 0);
	struct region_keys *keys =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned which = shared->keys > 0;

	SUPPORT_CHECK(page != MAP_FAILED && keys != MAP_FAILED);
	SUPPORT_OK(keypage_get(page, expect, keys));
	keep(which, keys,
		offsetof(struct region_keys, root)); /* a root is a digest, and zeros here */
	keep_expanded(which, keys);
	explicit_bzero(keys, sizeof *keys);
	munmap(keys, PAGE);
	munmap(page, KEYPAGE_BYTES);
	shared->keys++;
	return __real_pagecipher_new(key_fd, expect, workers, ret);
}

/* Mappings of memfd_secret: the heap's chunks, and key pages if any is kept. */
static unsigned count_secret_maps(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];
	unsigned count = 0;

	SUPPORT_CHECK(maps != NULL);
	while (fgets(line, sizeof line, maps))
		count += strstr(line, "secretmem") != NULL;
	fclose(maps);
	return count;
}

/* Counts in its own secret memory, says so, and waits for the next order. */
static void reach(enum stage stage)
{
	for (unsigned which = 0; which < 2; which++) {
		struct support_sieve *sieve =
			support_sieve_new(shared->masked[which], shared->parts[which]);
		for (unsigned i = 0; i < chunk_count; i++)
			shared->in_secret[stage][which] +=
				support_sieve_count_bytes(sieve, chunks[i].at, chunks[i].bytes);
		support_sieve_free(sieve);
	}
	shared->secret_maps[stage] = count_secret_maps() - chunk_count;
	shared->reached = stage;
	while (shared->wanted <= (int)stage)
		usleep(1000);
}

static void use(struct secpool_region *region, uint64_t seed)
{
	uint8_t *memory = secpool_region_address(region);

	for (uint64_t page = 0; page < PAGES; page++)
		support_fill(memory + page * PAGE, PAGE, seed + page);
	SUPPORT_OK(secpool_flush(region));
	for (uint64_t page = 0; page < PAGES; page++)
		SUPPORT_CHECK(support_matches(memory + page * PAGE, PAGE, seed + page));
}

static int be_program(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *region = support_region(pool, (size_t)PAGES * PAGE, 2);
	volatile uint8_t *ordinary = malloc(PAGE);

	(void)arg;
	SUPPORT_CHECK(ordinary != NULL);
	for (size_t i = 0; i < shared->control.bytes; i++)
		ordinary[i] = support_needle_byte(&shared->control, i);
	use(region, 1000);
	reach(STAGE_USED);
	use(region, 900000);
	reach(STAGE_ROTATED);
	SUPPORT_OK(secpool_region_release(region, NULL));
	reach(STAGE_RELEASED);
	secpool_close(pool);
	reach(STAGE_CLOSED);
	return 0;
}

/* ---- from outside ---- */

static bool has_reached(void *arg)
{
	return shared->reached == *(const int *)arg;
}

/* All of the program's memory that root can read: secret memory is what it can't. */
static void expect_nothing_outside(pid_t program, enum stage stage)
{
	size_t read_bytes = 0;

	SUPPORT_CHECK(support_count_process(&shared->control, program, NULL) >= 1);
	for (unsigned which = 0; which < 2; which++) {
		struct support_sieve *sieve =
			support_sieve_new(shared->masked[which], shared->parts[which]);
		size_t found = support_sieve_count_process(sieve, program, &read_bytes);
		support_sieve_free(sieve);
		if (found)
			support_fail("stage %d: %zu parts of %s keys in ordinary memory", stage,
				found, which ? "later" : "the first");
	}
	SUPPORT_CHECK(read_bytes > 1 << 20);
}

static void expect_stage(pid_t program, enum stage stage, bool first, bool later)
{
	int wanted = stage;

	if (!support_wait(has_reached, &wanted, 60000))
		support_fail("the program did not reach stage %d", stage);
	printf("stage %d: %u keys; parts in secret memory: %zu of the first, %zu of later ones; "
	       "key pages: %u\n",
		stage, shared->keys, shared->in_secret[stage][0], shared->in_secret[stage][1],
		shared->secret_maps[stage]);
	if ((shared->in_secret[stage][0] > 0) != first ||
		(shared->in_secret[stage][1] > 0) != later)
		support_fail("stage %d: not what was expected", stage);
	/* the page in which a key came is not kept */
	SUPPORT_CHECK(shared->secret_maps[stage] == 0);
	expect_nothing_outside(program, stage);
}

int main(void)
{
	char text[4096];
	pid_t program;

	if (geteuid() != 0)
		support_skip("only root may look into all of a process");
	shared = mmap(
		NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	SUPPORT_CHECK(shared != MAP_FAILED);
	support_needle_random(&shared->control, CONTROL_BYTES);
	support_up(3, "64M", NULL);
	program = support_fork(be_program, NULL);
	expect_stage(program, STAGE_USED, true, false);
	/* the new key comes, all pages move to it, and the old one is wiped */
	if (support_cli(text, sizeof text, "tenant", "rotate", "alpha", NULL) != 0)
		support_fail("rotate: %s", text);
	SUPPORT_CHECK(shared->keys >= 2);
	shared->wanted = STAGE_ROTATED;
	expect_stage(program, STAGE_ROTATED, false, true);
	shared->wanted = STAGE_RELEASED;
	expect_stage(program, STAGE_RELEASED, false, false);
	shared->wanted = STAGE_CLOSED;
	expect_stage(program, STAGE_CLOSED, false, false);
	shared->wanted = STAGES;
	SUPPORT_CHECK(support_join(program, 60000) == 0);
	support_down();
	return 0;
}
