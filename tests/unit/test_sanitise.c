/* SPDX-License-Identifier: Apache-2.0 */
/* hotplug/sanitise.c on a folder that looks like the kernel's: what is written where, in which order, and what a kernel without it is told. The kernel's own files: tests/vm (leg newer). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "hotplug/sanitise.h"
#include "lib/base/os.h"

static char folder[64];
static char written[512];   /* "PATH=WORD " for each */
static unsigned busy;	    /* so many writes find it in use */
static const char *refused; /* writes to files of this name are refused */

ssize_t __real_write(int fd, const void *bytes, size_t count);
ssize_t __wrap_write(int fd, const void *bytes, size_t count);
ssize_t __wrap_write(int fd, const void *bytes, size_t count)
{
	char link[64], path[256] = "";
	ssize_t length;

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	length = readlink(link, path, sizeof path - 1);
	path[length > 0 ? length : 0] = '\0';
	if (!folder[0] || strncmp(path, folder, strlen(folder)) != 0)
		return __real_write(fd, bytes, count);
	if (busy > 0 || (refused && strstr(path, refused))) {
		errno = busy > 0 ? EBUSY : EIO;
		busy -= busy > 0;
		return -1;
	}
	snprintf(written + strlen(written), sizeof written - strlen(written), "%s=%.*s ",
		path + strlen(folder) + 1, (int)count, (const char *)bytes);
	return __real_write(fd, bytes, count);
}

void __wrap_clock_sleep_ns(uint64_t ns);
void __wrap_clock_sleep_ns(uint64_t ns)
{
	(void)ns;
}

static void put(const char *name, const char *text)
{
	char path[128];
	FILE *file;

	snprintf(path, sizeof path, "%s/%s", folder, name);
	file = fopen(path, "we");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static int set_up(void **state)
{
	static const char *const folders[] = {
		"window", "window/region0", "mem0", "mem0/security", "mem1"};
	char made[64] = "/tmp/secpool-sanitise-XXXXXX", path[128];

	(void)state;
	if (!mkdtemp(made))
		return -1;
	folder[0] = '\0';
	for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
		snprintf(path, sizeof path, "%s/%s", made, folders[i]);
		if (os_make_dir(path, 0700) != SECPOOL_OK)
			return -1;
	}
	memcpy(folder, made, sizeof made);
	put("window/delete_region", "");
	put("window/region0/commit", "1\n");
	put("mem0/security/sanitize", "");
	put("mem0/security/state", "disabled\n");
	snprintf(path, sizeof path, "%s/region0", folder);
	if (symlink("window/region0", path) != 0)
		return -1;
	written[0] = '\0';
	busy = 0;
	refused = NULL;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	return os_remove_tree(folder) == SECPOOL_OK ? 0 : -1;
}

static void looks(void **state)
{
	(void)state;
	assert_int_equal(sanitise_look(folder, "mem0"), MSG_SANITISE_POSSIBLE);
	put("mem0/security/state", "sanitize\n");
	assert_int_equal(sanitise_look(folder, "mem0"), MSG_SANITISE_RUNNING);
	put("mem0/security/state", "a state that no kernel has and that is longer than any\n");
	assert_int_equal(sanitise_look(folder, "mem0"), MSG_SANITISE_POSSIBLE);
	assert_int_equal(sanitise_look(folder, "mem1"), MSG_SANITISE_NONE);
	assert_int_equal(sanitise_look(folder, "mem2"), MSG_SANITISE_NONE);
}

static void region_goes_first(void **state)
{
	(void)state;
	assert_int_equal(sanitise_begin(folder, "mem0", "region0"), SECPOOL_OK);
	assert_string_equal(written,
		"window/region0/commit=0 window/delete_region=region0 mem0/security/sanitize=1 ");
	written[0] = '\0';
	assert_int_equal(sanitise_begin(folder, "mem0", ""), SECPOOL_OK);
	assert_string_equal(written, "mem0/security/sanitize=1 ");
}

static void nothing_is_taken_where_it_is_not_there(void **state)
{
	(void)state;
	assert_int_equal(sanitise_begin(folder, "mem1", "region0"), SECPOOL_E_UNSUPPORTED);
	assert_non_null(strstr(err_detail(), "Linux 6.6"));
	assert_string_equal(written, "");
}

static void waits_for_users(void **state)
{
	(void)state;
	busy = 3;
	assert_int_equal(sanitise_begin(folder, "mem0", "region0"), SECPOOL_OK);
	assert_string_equal(written,
		"window/region0/commit=0 window/delete_region=region0 mem0/security/sanitize=1 ");
	busy = 1000; /* that wait has an end */
	written[0] = '\0';
	assert_int_equal(sanitise_begin(folder, "mem0", "region0"), SECPOOL_E_BUSY);
	assert_true(busy > 900);
	assert_string_equal(written, "");
}

static void refusals(void **state)
{
	(void)state;
	refused = "commit";
	assert_int_equal(sanitise_begin(folder, "mem0", "region0"), SECPOOL_E_SYSTEM);
	assert_non_null(strstr(err_detail(), "region0/commit"));
	assert_string_equal(written, "");
	refused = "delete_region";
	assert_int_equal(sanitise_begin(folder, "mem0", "region0"), SECPOOL_E_SYSTEM);
	assert_string_equal(written, "window/region0/commit=0 ");
	refused = "sanitize";
	written[0] = '\0';
	assert_int_equal(sanitise_begin(folder, "mem0", ""), SECPOOL_E_SYSTEM);
	assert_string_equal(written, "");
	refused = NULL;
	assert_int_equal(sanitise_begin(folder, "mem0", "region7"), SECPOOL_E_NOT_FOUND);
	assert_string_equal(written, "");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(looks),
		TEST(region_goes_first),
		TEST(nothing_is_taken_where_it_is_not_there),
		TEST(waits_for_users),
		TEST(refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
