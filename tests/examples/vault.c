/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vault: keeps real files in encrypted pool memory, reads them back and compares their SHA-256. An example to copy: it needs only
 * secpool.h (pkg-config secpool) and OpenSSL's public hash. `make demo` runs it while a device is pulled.
 *
 *   vault FOLDER... [--bytes 512M] [--tenant default] [--local-bytes 64M]
 *         [--halfway COMMAND] [--before-release COMMAND] [--receipt FILE]
 */
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <openssl/evp.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "secpool.h"

enum { CHUNK_BYTES = 64 << 10, HASH_BYTES = 32, WALK_FDS = 16, EVENT_WAIT_S = 20 };

struct file {
	char *path;
	size_t offset, bytes; /* in the region */
	int is_stored;	      /* 0: could not be read, or changed meanwhile */
	unsigned char hash[HASH_BYTES];
};

static struct {
	struct file *files;
	size_t count, bytes, bytes_wanted;
	struct secpool *pool;
	struct secpool_region *region;
	char *memory;
	EVP_MD_CTX *hash;
	double lost_at, failover_s,
		longest_s; /* a device's loss; from it to the next access done; longest access */
	char lost_device[SECPOOL_NAME_BYTES];
} vault;

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fail(const char *what, const char *why)
{
	fprintf(stderr, "vault: %s: %s\n", what, why);
	exit(1); /* the pool is released with the process */
}

static void check(enum secpool_error error, const char *what)
{
	if (error)
		fail(what,
			*secpool_error_detail() ? secpool_error_detail() : secpool_strerror(error));
}

static size_t parse_bytes(const char *text)
{
	char *end;
	unsigned long long n = strtoull(text, &end, 10);
	unsigned shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;

	if (end == text || (shift ? end[1] : end[0]) || n == 0 || n > (1ull << 50) >> shift)
		fail(text, "is not a size such as 64M");
	return (size_t)n << shift;
}

/* ---- which files ---- */
static int take_file(const char *path, const struct stat *st, int kind, struct FTW *where)
{
	(void)where;
	if (kind != FTW_F || !S_ISREG(st->st_mode) || st->st_size == 0)
		return 0;
	struct file *files = realloc(vault.files, (vault.count + 1) * sizeof *files);
	char *copy = strdup(path);
	if (!files || !copy)
		fail("list of files", "out of memory");
	vault.files = files;
	files[vault.count++] =
		(struct file){.path = copy, .offset = vault.bytes, .bytes = (size_t)st->st_size};
	vault.bytes += (size_t)st->st_size;
	return vault.bytes >= vault.bytes_wanted;
}

/* ---- what is shown ---- */
static void show_progress(const char *what, size_t done)
{
	static int shown = -1;
	static const char *last;
	int percent = (int)(done * 100 / vault.bytes), is_tty = isatty(1), step = is_tty ? 1 : 25;

	if (last == what && percent / step == shown)
		return;
	last = what;
	shown = percent / step;
	if (is_tty)
		printf("\r  %-9s [%-50.*s] %3d %%%s", what, percent / 2,
			"##################################################", percent,
			percent == 100 ? "\n" : "");
	else
		printf("  %-9s %3d %%\n", what, percent);
	fflush(stdout);
}

/* One access to pool memory ended: how long it took, and whether a device was lost meanwhile. */
static void note_access(double began)
{
	struct secpool_event event = {.size = sizeof event};
	double now = now_s();

	if (now - began > vault.longest_s)
		vault.longest_s = now - began;
	while (secpool_event_next(vault.pool, &event) == SECPOOL_OK) {
		if (event.type != SECPOOL_EVENT_DEVICE_LOST || vault.lost_at > 0)
			continue;
		vault.lost_at = (double)event.time_ns / 1e9;
		vault.failover_s = now - vault.lost_at;
		memcpy(vault.lost_device, event.device, sizeof vault.lost_device);
	}
}

/* ---- commands of the demo ---- */
static pid_t start_command(char *command)
{
	extern char **environ;
	char *argv[] = {"sh", "-c", command, NULL};
	pid_t pid;

	if (posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ))
		fail(command, "can't be started");
	return pid;
}

static void end_command(pid_t pid, const char *command)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || status != 0)
		fail(command, "did not succeed");
}

/* ---- the work ---- */
static void store_file(struct file *file)
{
	static char chunk[CHUNK_BYTES];
	struct stat before, after;
	size_t done = 0;
	ssize_t got = 0;
	int fd = open(file->path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &before) < 0 || (size_t)before.st_size != file->bytes)
		goto out;
	EVP_DigestInit_ex(vault.hash, EVP_sha256(), NULL);
	while (done < file->bytes && (got = read(fd, chunk, sizeof chunk)) > 0) {
		if ((size_t)got > file->bytes - done)
			goto out; /* it grew */
		EVP_DigestUpdate(vault.hash, chunk, (size_t)got);
		double began = now_s();
		memcpy(vault.memory + file->offset + done, chunk, (size_t)got);
		note_access(began);
		done += (size_t)got;
	}
	EVP_DigestFinal_ex(vault.hash, file->hash, NULL);
	file->is_stored = done == file->bytes && fstat(fd, &after) == 0 &&
			  after.st_size == before.st_size &&
			  after.st_mtim.tv_sec == before.st_mtim.tv_sec &&
			  after.st_mtim.tv_nsec == before.st_mtim.tv_nsec;
out:
	if (fd >= 0)
		close(fd);
}

static int is_same(const struct file *file)
{
	unsigned char hash[HASH_BYTES];

	EVP_DigestInit_ex(vault.hash, EVP_sha256(), NULL);
	for (size_t done = 0, n; done < file->bytes; done += n) {
		n = file->bytes - done < CHUNK_BYTES ? file->bytes - done : CHUNK_BYTES;
		double began = now_s();
		EVP_DigestUpdate(vault.hash, vault.memory + file->offset + done, n);
		note_access(began);
	}
	EVP_DigestFinal_ex(vault.hash, hash, NULL);
	return memcmp(hash, file->hash, HASH_BYTES) == 0;
}

static void store_all(char *halfway)
{
	size_t half = vault.bytes / 2;
	pid_t pid = 0;

	for (size_t i = 0; i < vault.count; i++) {
		if (halfway && !pid && vault.files[i].offset + vault.files[i].bytes > half)
			pid = start_command(halfway); /* and goes on meanwhile */
		store_file(&vault.files[i]);
		show_progress("storing", vault.files[i].offset + vault.files[i].bytes);
	}
	if (!pid)
		return;
	end_command(pid, halfway);
	/* a small job can be faster than the command: then the device goes before the reading */
	for (double began = now_s(); vault.lost_at == 0 && now_s() - began < EVENT_WAIT_S;) {
		double access = now_s();
		*(volatile char *)vault.memory;
		note_access(access);
	}
}

static size_t verify_all(size_t *ret_checked)
{
	size_t wrong = 0;

	*ret_checked = 0;
	for (size_t i = 0; i < vault.count; i++) {
		struct file *file = &vault.files[i];
		if (file->is_stored && ++*ret_checked && !is_same(file)) {
			fprintf(stderr, "vault: %s differs\n", file->path);
			wrong++;
		}
		show_progress("checking", file->offset + file->bytes);
	}
	return wrong;
}

static void release(const char *receipt_path)
{
	struct secpool_receipt receipt = {.size = sizeof receipt};
	FILE *out = NULL;

	check(secpool_region_release(vault.region, &receipt), "release");
	if (!receipt_path)
		return;
	out = fopen(receipt_path, "w");
	if (!out || fputs(receipt.text, out) < 0 || fclose(out))
		fail(receipt_path, "can't be written");
}

static void show_account(size_t checked, size_t wrong)
{
	struct secpool_stats stats = {.size = sizeof stats};

	check(secpool_stats(vault.pool, &stats), "stats");
	printf("\n  bytes stored         %zu (%.1f MiB, encrypted, on two devices)\n", vault.bytes,
		(double)vault.bytes / (1 << 20));
	printf("  resident limit       %llu (%.1f MiB of plaintext, in locked memory)\n",
		(unsigned long long)stats.local_bytes_limit,
		(double)stats.local_bytes_limit / (1 << 20));
	printf("  pages filled         %llu, written back %llu\n", (unsigned long long)stats.fills,
		(unsigned long long)stats.write_backs);
	if (vault.lost_at > 0)
		printf("  device lost          %s\n  failover             next access done after "
		       "%.3f ms\n",
			vault.lost_device, vault.failover_s * 1e3);
	printf("  longest access       %.3f ms (of 64 KiB)\n", vault.longest_s * 1e3);
	printf("  files checked        %zu (%zu were skipped: not readable, or changed "
	       "meanwhile)\n",
		checked, vault.count - checked);
	printf("  wrong files          %zu\n\n", wrong);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"bytes", 1, 0, 'b'}, {"tenant", 1, 0, 't'},
		{"local-bytes", 1, 0, 'l'}, {"halfway", 1, 0, 'h'}, {"before-release", 1, 0, 'r'},
		{"receipt", 1, 0, 'f'}, {0}};
	struct secpool_options pool_options = {
		.size = sizeof pool_options, .local_bytes = 64 << 20};
	struct secpool_region_options region_options = {.size = sizeof region_options,
		.redundancy = SECPOOL_REDUNDANCY_MIRROR,
		.copies = 2,
		.name = "vault"};
	char *tenant = "default", *halfway = NULL, *before_release = NULL, *receipt = NULL;
	size_t checked, wrong;

	vault.bytes_wanted = 512 << 20;
	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		switch (c) {
		case 'b':
			vault.bytes_wanted = parse_bytes(optarg);
			break;
		case 'l':
			pool_options.local_bytes = parse_bytes(optarg);
			break;
		case 't':
			tenant = optarg;
			break;
		case 'h':
			halfway = optarg;
			break;
		case 'r':
			before_release = optarg;
			break;
		case 'f':
			receipt = optarg;
			break;
		default:
			return 2;
		}
	}
	for (int i = optind; i < argc && vault.bytes < vault.bytes_wanted; i++)
		if (nftw(argv[i], take_file, WALK_FDS, FTW_PHYS | FTW_MOUNT) < 0)
			fail(argv[i], "can't be read");
	if (vault.count == 0)
		fail("no files", "usage: vault FOLDER... [--bytes 512M] [--tenant default] "
				 "[--local-bytes 64M] [--halfway COMMAND] "
				 "[--before-release COMMAND] [--receipt FILE]");

	check(secpool_open(tenant, &pool_options, &vault.pool), "open");
	region_options.bytes = vault.bytes;
	check(secpool_region_create(vault.pool, &region_options, &vault.region), "region");
	vault.memory = secpool_region_address(vault.region);
	vault.hash = EVP_MD_CTX_new();
	if (!vault.hash)
		fail("hash", "out of memory");

	store_all(halfway);
	wrong = verify_all(&checked);
	show_account(checked, wrong);
	if (before_release)
		end_command(start_command(before_release), before_release);
	release(receipt);
	secpool_close(vault.pool);
	EVP_MD_CTX_free(vault.hash);
	for (size_t i = 0; i < vault.count; i++)
		free(vault.files[i].path);
	free(vault.files);
	if (halfway && vault.lost_at == 0)
		fail("halfway", "no device was reported lost");
	return wrong || checked == 0;
}
