/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/zram.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/os.h"

enum { DEVICES_MOST = 16, SWAP_PRIORITY = 100, PATH_BYTES = 160 };

static enum secpool_error write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	enum secpool_error error;

	if (fd < 0)
		return os_error("%s", path);
	error = os_write_all(fd, text, strlen(text));
	os_close(&fd);
	return error;
}

static bool read_number(const char *path, unsigned long long *ret_number)
{
	size_t count;
	char *text;

	if (os_read_file(path, 64, &text, &count) != SECPOOL_OK)
		return false;
	*ret_number = strtoull(text, NULL, 10);
	free(text);
	return true;
}

/* A device that was not set up by anybody. */
static enum secpool_error find_device(struct zram *zram)
{
	unsigned long long bytes;
	char path[PATH_BYTES];

	for (int i = 0; i < DEVICES_MOST; i++) {
		snprintf(path, sizeof path, "/sys/block/zram%d/disksize", i);
		if (read_number(path, &bytes) && bytes == 0) {
			zram->device = i;
			return SECPOOL_OK;
		}
	}
	return err_set(SECPOOL_E_NOT_FOUND, "there is no unused zram device (modprobe zram)");
}

static enum secpool_error run_mkswap(const char *device)
{
	int status = -1;
	pid_t child = fork();

	if (child == 0) {
		int null = open("/dev/null", O_RDWR);
		dup2(null, 1);
		dup2(null, 2);
		execlp("mkswap", "mkswap", device, (char *)NULL);
		_exit(127);
	}
	if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
		return err_set(SECPOOL_E_SYSTEM, "mkswap %s did not work", device);
	return SECPOOL_OK;
}

static enum secpool_error set_up_swap(struct zram *zram, size_t bytes)
{
	char path[PATH_BYTES], text[32];
	enum secpool_error error = find_device(zram);

	if (error)
		return error;
	snprintf(path, sizeof path, "/sys/block/zram%d/disksize", zram->device);
	snprintf(text, sizeof text, "%zu", bytes);
	error = write_text(path, text);
	snprintf(path, sizeof path, "/dev/zram%d", zram->device);
	if (!error)
		error = run_mkswap(path);
	if (!error && swapon(path, SWAP_FLAG_PREFER | SWAP_PRIORITY) != 0)
		error = os_error("swapon %s", path);
	zram->is_swap = !error;
	return error;
}

static enum secpool_error set_up_group(struct zram *zram, size_t limit_bytes)
{
	static const struct {
		const char *base, *limit;
	} kinds[] = {
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, /* version 1 */
		{"/sys/fs/cgroup", "memory.max"},
	};
	char path[PATH_BYTES * 2], text[32];
	enum secpool_error error = SECPOOL_E_NOT_FOUND;

	snprintf(text, sizeof text, "%zu", limit_bytes);
	for (size_t i = 0; error && i < sizeof kinds / sizeof *kinds; i++) {
		snprintf(zram->group, sizeof zram->group, "%s/secpool-bench.%d", kinds[i].base,
			(int)getpid());
		if (mkdir(zram->group, 0755) != 0)
			continue;
		snprintf(path, sizeof path, "%s/%s", zram->group, kinds[i].limit);
		error = write_text(path, text);
		if (error)
			rmdir(zram->group);
	}
	if (!error)
		return SECPOOL_OK;
	zram->group[0] = '\0';
	return err_set(SECPOOL_E_NOT_FOUND, "no control group can limit memory here");
}

enum secpool_error zram_open(size_t swap_bytes, size_t limit_bytes, struct zram *ret_zram)
{
	struct zram zram = {.device = -1};
	enum secpool_error error = set_up_group(&zram, limit_bytes);

	if (!error)
		error = set_up_swap(&zram, swap_bytes);
	if (error)
		zram_close(&zram);
	*ret_zram = zram;
	return error;
}

bool zram_join(const struct zram *zram)
{
	char path[PATH_BYTES], text[16];

	/* the group's out-of-memory killer strikes now and then with most of the swap space free (Linux 6.18); a process that it may not kill goes on. That takes CAP_SYS_RESOURCE */
	(void)!write_text("/proc/self/oom_score_adj", "-1000");
	snprintf(path, sizeof path, "%s/cgroup.procs", zram->group);
	snprintf(text, sizeof text, "%d", (int)getpid());
	return write_text(path, text) == SECPOOL_OK;
}

void zram_close(struct zram *zram)
{
	char path[PATH_BYTES];

	snprintf(path, sizeof path, "/dev/zram%d", zram->device);
	if (zram->is_swap && swapoff(path) != 0)
		fprintf(stderr, "secpool-bench: swapoff %s failed\n", path);
	snprintf(path, sizeof path, "/sys/block/zram%d/reset", zram->device);
	if (zram->device >= 0 && write_text(path, "1") != SECPOOL_OK)
		fprintf(stderr, "secpool-bench: %s\n", err_detail());
	if (zram->group[0])
		rmdir(zram->group);
	*zram = (struct zram){.device = -1};
}
