/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A normal user, who is a tenant by group: the key manager passes /dev/userfaultfd and raises the limit of locked memory; where it has no CAP_SYS_RESOURCE it says so in an event, and the program works with
 * data within its own limit. Then with a key manager that can't open the device (it is hidden in a mount namespace of the test's): loads and stores work, system calls on missing pages are EFAULT unless pinned,
 * and `secpool status` says so and what to do. timeout: 120
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/os.h"
#include "tests/support/support.h"

/* By number: nobody has them. SMALL_PAGES go, with what the library locks, into the 8 MiB of Debian's users. */
enum {
	USER = 54322,
	GROUP = 54321,
	PAGE = 4096,
	LOCAL = 4 << 20,
	SMALL_PAGES = 1280,
	WAIT_MS = 60000
};
enum { LARGE_PAGES = 8192 };
static const rlim_t USUAL_LIMIT = 8 << 20;

/* What this leg's key manager can do. */
static struct {
	bool passes_device, raises_limit;
} now;

/* The tests' policy, and a tenant whose users are a group's. */
static const char *make_policy(void)
{
	static char path[PATH_MAX];
	const char *common = support_policy(0), *mark = "tenants:\n", *at;
	char *text;
	size_t bytes;
	FILE *file;

	SUPPORT_OK(os_read_file(common, 1 << 16, &text, &bytes));
	at = strstr(text, mark);
	SUPPORT_CHECK(at != NULL);
	at += strlen(mark);
	snprintf(path, sizeof path, "%.4000s.groups", common);
	file = fopen(path, "w");
	SUPPORT_CHECK(file != NULL);
	fprintf(file, "%.*s", (int)(at - text), text);
	fprintf(file,
		"  - name: gamma\n    groups: [\"%d\"]\n"
		"    quota: {bytes: 1G, regions: 8, sessions: 4, local_bytes: 64M}\n"
		"    protection: [xts-gmac]\n    redundancy: [none, \"mirror:2\"]\n"
		"    on_loss: [sigbus, failover]\n%s",
		GROUP, at);
	SUPPORT_CHECK(fclose(file) == 0 && chmod(path, 0644) == 0);
	free(text);
	return path;
}

static void become_user(void)
{
	struct rlimit limit;

	SUPPORT_CHECK(getrlimit(RLIMIT_MEMLOCK, &limit) == 0);
	if (limit.rlim_cur > USUAL_LIMIT) {
		limit.rlim_cur = USUAL_LIMIT;
		SUPPORT_CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
	}
	SUPPORT_CHECK(setgroups(0, NULL) == 0 && setgid(GROUP) == 0 && setuid(USER) == 0);
	SUPPORT_CHECK(setuid(0) != 0);
}

/* A page that is not in local memory: there is always one, since they don't all fit. */
static size_t missing_page(uint8_t *memory, size_t pages)
{
	unsigned char there;

	for (size_t i = 0; i < pages; i++) {
		SUPPORT_CHECK(mincore(memory + i * PAGE, PAGE, &there) == 0);
		if (!(there & 1))
			return i;
	}
	support_fail("all pages are in local memory");
}

static void check_system_calls(struct secpool_region *region, size_t pages)
{
	uint8_t *memory = secpool_region_address(region), got[PAGE];
	size_t page = missing_page(memory, pages);
	int ends[2];

	SUPPORT_CHECK(pipe2(ends, O_CLOEXEC) == 0);
	if (now.passes_device) {
		SUPPORT_CHECK(write(ends[1], memory + page * PAGE, PAGE) == PAGE);
	} else {
		SUPPORT_CHECK(write(ends[1], memory + page * PAGE, PAGE) == -1 && errno == EFAULT);
		SUPPORT_OK(secpool_pin(region, page * PAGE, PAGE));
		SUPPORT_CHECK(write(ends[1], memory + page * PAGE, PAGE) == PAGE);
		SUPPORT_OK(secpool_unpin(region, page * PAGE, PAGE));
	}
	SUPPORT_CHECK(read(ends[0], got, PAGE) == PAGE && support_matches(got, PAGE, page + 1));
	SUPPORT_CHECK(write(ends[1], got, PAGE) == PAGE);
	page = missing_page(memory, pages);
	if (now.passes_device) {
		SUPPORT_CHECK(read(ends[0], memory + page * PAGE, PAGE) == PAGE);
		SUPPORT_CHECK(memcmp(memory + page * PAGE, got, PAGE) == 0);
		support_fill(memory + page * PAGE, PAGE, page + 1);
	} else {
		SUPPORT_CHECK(read(ends[0], memory + page * PAGE, PAGE) == -1 && errno == EFAULT);
	}
	close(ends[0]);
	close(ends[1]);
}

static int be_user(void *arg)
{
	struct secpool_options options = {
		.size = sizeof options, .local_bytes = LOCAL, .fault_threads = 1};
	struct secpool_stats stats = {.size = sizeof stats};
	struct secpool_region *region;
	struct secpool *pool;
	struct rlimit limit;
	uint8_t *memory;
	size_t pages = SMALL_PAGES;
	void *object;

	(void)arg;
	become_user();
	options.runtime_dir = support_runtime_dir();
	SUPPORT_OK(secpool_open("gamma", &options, &pool));
	SUPPORT_CHECK(getrlimit(RLIMIT_MEMLOCK, &limit) == 0);
	if (now.raises_limit) {
		SUPPORT_CHECK(limit.rlim_cur >= 1ul << 30);
		pages = LARGE_PAGES;
	}
	region = support_region(pool, pages * PAGE, 2);
	memory = secpool_region_address(region);
	for (size_t i = 0; i < pages; i++)
		support_fill(memory + i * PAGE, PAGE, i + 1);
	for (size_t i = 0; i < pages; i++)
		SUPPORT_CHECK(support_matches(memory + i * PAGE, PAGE, i + 1));
	check_system_calls(region, pages);
	for (size_t i = 0; i < pages; i++)
		SUPPORT_CHECK(support_matches(memory + i * PAGE, PAGE, i + 1));
	SUPPORT_OK(secpool_stats(pool, &stats));
	SUPPORT_CHECK(stats.user_faults_only == !now.passes_device);
	SUPPORT_CHECK(stats.evictions > 0 && stats.fills > 0 && stats.lost_pages == 0);
	SUPPORT_OK(secpool_region_release(region, NULL));
	object = secpool_malloc(pool, 100);
	SUPPORT_CHECK(object != NULL);
	secpool_free(pool, object);
	secpool_close(pool);
	return 0;
}

static void run_leg(const char *policy)
{
	char text[8192];

	support_up(2, "64M", policy);
	SUPPORT_CHECK(support_cli(text, sizeof text, "status", NULL) == 0);
	SUPPORT_CHECK((strstr(text, "fail with EFAULT") != NULL) == !now.passes_device);
	SUPPORT_CHECK(
		(strstr(text, "Let keymgrd open /dev/userfaultfd") != NULL) == !now.passes_device);
	SUPPORT_CHECK((strstr(text, "raised to their quota") != NULL) == now.raises_limit);
	SUPPORT_CHECK(support_join(support_fork(be_user, NULL), WAIT_MS) == 0);
	SUPPORT_CHECK(support_cli(text, sizeof text, "events", NULL) == 0);
	if (now.raises_limit == (strstr(text, "memlock-not-raised") != NULL))
		support_fail("the limit %s raised, and the events are: %s",
			now.raises_limit ? "was" : "was not", text);
	SUPPORT_CHECK(now.raises_limit || strstr(text, "of user 54322 may lock 8192 KiB"));
	support_wait_regions(0, WAIT_MS);
	support_down();
}

/* From now on nobody here can open the device, however privileged. */
static bool hide_device(const char *device)
{
	return unshare(CLONE_NEWNS) == 0 &&
	       mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount(device, device, NULL, MS_BIND, NULL) == 0 &&
	       mount(NULL, device, NULL, MS_BIND | MS_REMOUNT | MS_NODEV, NULL) == 0;
}

int main(void)
{
	const char *device = "/dev/userfaultfd", *policy;
	char *text = NULL;
	size_t bytes;

	if (getuid() != 0)
		support_skip("only root can become another user");
	if (access(device, R_OK | W_OK) != 0)
		support_skip("this kernel has no %s", device);
	policy = make_policy();
	now.passes_device = true;
	now.raises_limit = prctl(PR_CAPBSET_READ, CAP_SYS_RESOURCE, 0, 0, 0) == 1;
	run_leg(policy);
	SUPPORT_OK(os_read_file("/proc/sys/vm/unprivileged_userfaultfd", 16, &text, &bytes));
	if (text[0] == '1')
		support_skip("with the device all is well; without it, everybody may have a "
			     "userfaultfd here (vm.unprivileged_userfaultfd=1)");
	free(text);
	if (!hide_device(device))
		support_skip("with the device all is well; it can't be hidden here: %s",
			strerror(errno));
	now.passes_device = false;
	run_leg(policy);
	puts(now.raises_limit ? "limits were raised"
			      : "this root has no CAP_SYS_RESOURCE: limits were not raised");
	return 0;
}
