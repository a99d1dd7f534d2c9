/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plaintext in local memory stays within local_bytes by the kernel's own count, in both fault modes and with small and large pages; metadata stay within 32 bytes for each page of 4 KiB
 * when regions are several times the local memory. timeout: 180
 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/support.h"

enum { MIB = 1 << 20, LOCAL = 16 * MIB, BYTES = 64 * MIB, STEP = 4096, METADATA_MOST = 32 };

/* Key schedules are in locked memory too, and are no plaintext. */
enum { SECRETS_MOST = 1 * MIB };

/* What is resident of the memory that is locked: proc(5), smaps. Only the library locks memory here. */
static size_t locked_bytes(pid_t pid)
{
	size_t bytes = 0, rss = 0;
	char line[512];
	FILE *file;

	snprintf(line, sizeof line, "/proc/%d/smaps", (int)pid);
	file = fopen(line, "re");

	SUPPORT_CHECK(file != NULL);
	while (fgets(line, sizeof line, file)) {
		size_t kib;
		if (sscanf(line, "Rss: %zu kB", &kib) == 1)
			rss = kib << 10;
		else if (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " lo"))
			bytes += rss;
	}
	fclose(file);
	return bytes;
}

/* Whether all threads of a process stand still: field 3 of proc(5), stat, behind the name in brackets. */
static bool is_stopped(void *arg)
{
	char path[320], line[512], *end;
	struct dirent *entry;
	bool stopped = true;
	DIR *tasks;

	snprintf(path, sizeof path, "/proc/%d/task", *(pid_t *)arg);
	tasks = opendir(path);
	if (!tasks)
		return false;
	while (stopped && (entry = readdir(tasks)) != NULL) {
		FILE *file;
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "/proc/%d/task/%s/stat", *(pid_t *)arg, entry->d_name);
		file = fopen(path, "re");
		end = file && fgets(line, sizeof line, file) ? strrchr(line, ')') : NULL;
		stopped = end && end[2] == 'T';
		if (file)
			fclose(file);
	}
	closedir(tasks);
	return stopped;
}

/* The same of this process while all of its threads stand still: the kernel reads one mapping after the other, and pages that are moved from one to another meanwhile are counted in both. */
static size_t locked_at_once(void)
{
	int pipe_fds[2];
	size_t bytes = 0;
	pid_t pid;

	SUPPORT_CHECK(pipe(pipe_fds) == 0);
	pid = fork();
	if (pid == 0) {
		pid_t parent = getppid();
		if (kill(parent, SIGSTOP) == 0 && support_wait(is_stopped, &parent, 10000))
			bytes = locked_bytes(parent);
		kill(parent, SIGCONT);
		_exit(write(pipe_fds[1], &bytes, sizeof bytes) != sizeof bytes);
	}
	SUPPORT_CHECK(pid > 0 && read(pipe_fds[0], &bytes, sizeof bytes) == sizeof bytes);
	SUPPORT_CHECK(support_join(pid, 10000) == 0 && bytes > 0);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	return bytes;
}

static void check_budget(struct secpool *pool, const char *when)
{
	struct secpool_stats stats = {.size = sizeof stats};
	size_t bytes = locked_bytes(getpid());

	SUPPORT_OK(secpool_stats(pool, &stats));
	if (bytes > LOCAL + SECRETS_MOST)
		bytes = locked_at_once();
	if (bytes > LOCAL + SECRETS_MOST)
		support_fail("%s: %zu bytes are resident, %d may be (%zu by our own count)", when,
			bytes, LOCAL, (size_t)stats.resident_bytes);
	SUPPORT_CHECK(stats.resident_bytes <= LOCAL);
}

static void use(enum secpool_fault_mode mode, size_t page_bytes)
{
	struct secpool_region_options options = {
		.size = sizeof options, .bytes = BYTES, .page_bytes = page_bytes};
	struct secpool_stats stats = {.size = sizeof stats};
	struct secpool_region *region;
	struct secpool *pool;
	uint8_t *memory;
	uint64_t random = 88172645463325252ull;

	support_fault_mode = mode;
	pool = support_open("alpha", LOCAL);
	SUPPORT_OK(secpool_region_create(pool, &options, &region));
	memory = secpool_region_address(region);
	for (size_t at = 0; at < BYTES; at += STEP) {
		memory[at] = (uint8_t)(at / STEP);
		if (at % (2 * MIB) == 0)
			check_budget(pool, "in order");
	}
	for (int i = 0; i < (page_bytes > STEP ? 300 : 20000); i++) {
		random = random * 6364136223846793005ull + 1442695040888963407ull;
		size_t at = (size_t)(random >> 33) % (BYTES / STEP) * STEP;
		SUPPORT_CHECK(memory[at] == (uint8_t)(at / STEP));
		if (i % 4 == 0)
			memory[at] = (uint8_t)(at / STEP);
		if (i % 500 == 0)
			check_budget(pool, "at random");
	}
	SUPPORT_OK(secpool_pin(region, 0, LOCAL / 4));
	SUPPORT_OK(secpool_prefetch(region, BYTES / 2, LOCAL));
	check_budget(pool, "pinned and prefetched");
	SUPPORT_OK(secpool_stats(pool, &stats));
	if (page_bytes == STEP)
		SUPPORT_CHECK(stats.metadata_bytes <= BYTES / STEP * METADATA_MOST);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
}

int main(void)
{
	support_up(2, "128M", NULL);
	use(SECPOOL_FAULT_THREAD, STEP);
	use(SECPOOL_FAULT_INLINE, STEP);
	use(SECPOOL_FAULT_INLINE, 64 << 10);
	use(SECPOOL_FAULT_THREAD, 1 * MIB);
	support_down();
	return 0;
}
