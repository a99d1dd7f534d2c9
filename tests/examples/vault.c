/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vault: keeps real files in encrypted pool memory, reads them back and compares their SHA-256.
 * An example to copy: it needs only secpool.h (pkg-config secpool) and OpenSSL's public hash.
 *
 *   vault [-b MIB] [-l MIB] [-t TENANT] [-m COMMAND] [-r COMMAND] [-o FILE] [FOLDER...]
 *
 * -b: how much is read, at least (512); -l: plaintext in local memory, at most (64); -m: is run in
 * the middle of storing, to lose a device; -r: is run before the release; -o: for the receipt.
 */
#define _XOPEN_SOURCE 700
#include <fcntl.h>
#include <ftw.h>
#include <openssl/evp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <time.h>
#include <unistd.h>

#include "secpool.h"

enum { CHUNK_BYTES = 64 << 10, HASH_BYTES = 32, WALK_FDS = 16, LOSS_WAIT_MS = 20000 };

struct file {
	char *path;
	size_t offset, bytes; /* in the region */
	int is_stored;	      /* 0: could not be read */
	unsigned char hash[HASH_BYTES];
};

static struct file *files;
static size_t file_count, total_bytes, stored_bytes, wanted_bytes;
static struct secpool *pool;
static char *memory; /* the region's */
static EVP_MD_CTX *hash;
static struct secpool_event loss; /* of the first device that was lost; time_ns is 0: none was */
static uint64_t failover_ns;	  /* from the loss to the end of the next access */

static void fail(const char *what, const char *why)
{
	fprintf(stderr, "vault: %s: %s\n", what, why);
	exit(1); /* the region is released with the process */
}

static void check(enum secpool_error error, const char *what)
{
	const char *detail = secpool_error_detail(); /* what failed, where, what to do */

	if (error)
		fail(what, *detail ? detail : secpool_strerror(error));
}

/* One bar on a terminal, else a line for each quarter. */
static void show_progress(const char *what, size_t done)
{
	static const char bar[] = "##################################################";
	static int shown;
	int percent = (int)(done * 100 / total_bytes), is_tty = isatty(1), step = is_tty ? 1 : 25;

	if (done && percent / step == shown)
		return;
	shown = percent / step;
	printf("  %-9s [%-50.*s] %3d %%%c", what, percent / 2, bar, percent,
		is_tty && percent < 100 ? '\r' : '\n');
	fflush(stdout);
}

static size_t mebibytes(const char *text)
{
	char *end;
	size_t count = strtoul(text, &end, 10);

	if (!count || *end)
		fail(text, "a number of MiB is expected");
	return count << 20;
}

static int add_file(const char *path, const struct stat *st, int kind, struct FTW *where)
{
	(void)where;
	if (kind != FTW_F || !S_ISREG(st->st_mode) || st->st_size == 0)
		return 0;
	struct file file = {strdup(path), total_bytes, (size_t)st->st_size, 0, {0}};
	struct file *more = realloc(files, (file_count + 1) * sizeof *files);
	if (!file.path || !more)
		fail(path, "out of memory");
	files = more;
	files[file_count++] = file;
	total_bytes += file.bytes;
	return total_bytes >= wanted_bytes; /* enough: ends the walk */
}

/* Called after each access to pool memory. Loads and stores go on without it, also after a loss. */
static void take_events(void)
{
	struct secpool_event event = {.size = sizeof event};
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (loss.time_ns && !failover_ns)
		failover_ns =
			(uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec - loss.time_ns;
	while (secpool_event_next(pool, &event) == SECPOOL_OK)
		if (event.type == SECPOOL_EVENT_DEVICE_LOST && !loss.time_ns)
			loss = event;
}

/* Stores a file in the region, by plain stores, and keeps the hash of what was on disk. */
static void store_file(struct file *file)
{
	static char chunk[CHUNK_BYTES];
	size_t done = 0;
	ssize_t got;
	int fd = open(file->path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	EVP_DigestInit_ex(hash, EVP_sha256(), NULL);
	while ((got = read(fd, chunk, MIN(CHUNK_BYTES, file->bytes - done))) > 0) {
		EVP_DigestUpdate(hash, chunk, (size_t)got);
		memcpy(memory + file->offset + done, chunk, (size_t)got);
		take_events();
		done += (size_t)got;
	}
	EVP_DigestFinal_ex(hash, file->hash, NULL);
	file->is_stored = done == file->bytes;
	stored_bytes += done;
	close(fd);
}

/* Stores all files. Half-way it starts the command, which takes a device away meanwhile. */
static void store_all(const char *command)
{
	FILE *child = NULL;

	show_progress("storing", 0);
	for (size_t i = 0; i < file_count; i++) {
		size_t end = files[i].offset + files[i].bytes;
		if (command && !child && end > total_bytes / 2 && !(child = popen(command, "w")))
			fail(command, "can't be started");
		store_file(&files[i]);
		show_progress("storing", end);
	}
	/* a small job can be faster than the command: then the device goes before the reading */
	struct pollfd events = {.fd = secpool_event_fd(pool), .events = POLLIN};
	while (child && !loss.time_ns && poll(&events, 1, LOSS_WAIT_MS) > 0)
		take_events();
	if (child && (pclose(child) != 0 || !loss.time_ns))
		fail(command, "failed, or no device was reported lost");
}

/* Reads a file in the region, by plain loads. */
static int is_same(const struct file *file)
{
	unsigned char found[HASH_BYTES];

	EVP_DigestInit_ex(hash, EVP_sha256(), NULL);
	for (size_t done = 0; done < file->bytes; done += CHUNK_BYTES) {
		const char *start = memory + file->offset + done;
		EVP_DigestUpdate(hash, start, MIN(CHUNK_BYTES, file->bytes - done));
		take_events();
	}
	EVP_DigestFinal_ex(hash, found, NULL);
	return memcmp(found, file->hash, HASH_BYTES) == 0;
}

/* Checks all files and says how it went; returns 0 when there were some and none is wrong. */
static size_t check_all(void)
{
	struct secpool_stats stats = {.size = sizeof stats};
	size_t checked = 0, wrong = 0;

	show_progress("checking", 0);
	for (struct file *file = files; file < files + file_count; file++) {
		if (file->is_stored && ++checked && !is_same(file) && ++wrong)
			fprintf(stderr, "vault: %s differs\n", file->path);
		show_progress("checking", file->offset + file->bytes);
	}
	check(secpool_stats(pool, &stats), "stats");
	printf("\n  bytes stored         %zu (encrypted, on two devices)\n", stored_bytes);
	printf("  resident limit       %ju (plaintext, locked)\n",
		(uintmax_t)stats.local_bytes_limit);
	if (loss.time_ns)
		printf("  device lost          %s\n  failover             next access done after "
		       "%.3f ms\n",
			loss.device, (double)failover_ns / 1e6);
	printf("  files checked        %zu (%zu skipped)\n", checked, file_count - checked);
	printf("  wrong files          %zu\n", wrong);
	printf("  where to look next   lib/secpool.h, docs/caveats.md, `secpool status`\n\n");
	fflush(stdout);
	return checked ? wrong : 1;
}

int main(int argc, char **argv)
{
	char *default_folders[] = {"/usr/lib", "/usr/share", NULL}, **folder;
	const char *option['z'] = {['b'] = "512", ['l'] = "64", ['t'] = "default"};
	struct secpool_region *region;
	struct secpool_receipt receipt = {.size = sizeof receipt};

	for (int c; (c = getopt(argc, argv, "b:l:t:m:r:o:")) != -1; option[c] = optarg)
		if (c == '?')
			return 2;
	wanted_bytes = mebibytes(option['b']);
	for (folder = argv[optind] ? argv + optind : default_folders;
		*folder && total_bytes < wanted_bytes; folder++)
		if (nftw(*folder, add_file, WALK_FDS, FTW_PHYS | FTW_MOUNT) < 0)
			fail(*folder, "can't be read");
	if (file_count == 0)
		fail("no files", "name a folder that has some");

	struct secpool_options options = {
		.size = sizeof options, .local_bytes = mebibytes(option['l'])};
	struct secpool_region_options mirrored = {
		.size = sizeof mirrored,
		.bytes = total_bytes,
		.redundancy = SECPOOL_REDUNDANCY_MIRROR,
		.copies = 2,
		.name = "vault",
	};
	check(secpool_open(option['t'], &options, &pool), "open");
	check(secpool_region_create(pool, &mirrored, &region), "region");
	memory = secpool_region_address(region);
	if (!(hash = EVP_MD_CTX_new()))
		fail("hash", "out of memory");

	store_all(option['m']);
	size_t wrong = check_all();
	if (option['r'] && system(option['r']) != 0)
		fail(option['r'], "did not succeed");
	check(secpool_region_release(region, &receipt), "release");
	FILE *out = option['o'] ? fopen(option['o'], "w") : stdout;
	if (!out || fputs(receipt.text, out) < 0 || fflush(out))
		fail("receipt", "can't be written");
	secpool_close(pool);
	EVP_MD_CTX_free(hash);
	return wrong != 0;
}
