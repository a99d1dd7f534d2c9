/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hotplug/devdax.c and lib/base/media.c where there is no devdax device: what is refused, and that a device whose accesses are SIGBUS is gone. /dev/zero is one: it maps, and what lies
 * behind the mapping's own length is SIGBUS. The real ones are in `make check-vm`.
 */
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "hotplug/devdax.h"
#include "hotplug/mark.h"
#include "lib/base/guarded_copy.h"
#include "lib/base/media.h"
#include "lib/base/os.h"
#include "lib/device.h"
#include "lib/uffd.h"

enum { CAPACITY = 4 * MEDIA_UNIT_BYTES };

static char folder[PATH_MAX];

static int set_up(void **state)
{
	(void)state;
	snprintf(folder, sizeof folder, "/tmp/devdax.XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	return os_remove_tree(folder) == SECPOOL_OK ? 0 : -1;
}

static void link_to(const char *target)
{
	char path[PATH_MAX + 8];

	snprintf(path, sizeof path, "%s/media", folder);
	unlink(path);
	assert_int_equal(symlink(target, path), 0);
}

static enum secpool_error try_open(void)
{
	uint64_t mark = 5;
	int fd = -1;
	enum secpool_error error;

	assert_int_equal(guarded_copy_install(), SECPOOL_OK);
	error = devdax_open(folder, CAPACITY, false, &fd, &mark);
	if (error)
		assert_true(fd == -1 && mark == 5);
	return error;
}

static void refused(void **state)
{
	(void)state;
	assert_int_equal(try_open(), SECPOOL_E_NOT_FOUND);
	link_to("/nowhere/at/all");
	assert_int_equal(try_open(), SECPOOL_E_NOT_FOUND);
	link_to("/proc/self/exe"); /* written to by nobody: its program runs */
	assert_int_not_equal(try_open(), SECPOOL_OK);
	link_to("/dev/null"); /* a character device that can't be mapped */
	assert_int_not_equal(try_open(), SECPOOL_OK);
	assert_true(mark_read(folder) == 0);
}

static void a_file_is_no_devdax(void **state)
{
	char path[PATH_MAX + 8];
	int fd;

	(void)state;
	snprintf(path, sizeof path, "%s/file", folder);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0 && ftruncate(fd, (off_t)media_bytes(true, CAPACITY)) == 0);
	close(fd);
	link_to(path);
	assert_int_equal(try_open(), SECPOOL_E_INVALID);
}

static void what_shows_no_canary_is_not_there(void **state)
{
	struct msg_device info = {.slot = 1, .media = 2, .bytes = CAPACITY, .id = "cxl-1"};
	struct device *device = NULL;
	int fd;

	(void)state;
	link_to("/dev/zero");
	assert_int_equal(try_open(), SECPOOL_E_DEVICE_GONE);
	fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_false(media_there(fd, CAPACITY));
	assert_false(devdax_look(fd, CAPACITY));
	assert_int_equal(devdax_probe(fd, CAPACITY, 77), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(device_map(&info, fd, &device), SECPOOL_E_DEVICE_GONE);
	assert_null(device);
	close(fd);
}

/* Memory with the parts of a device, one of whose pages the kernel answers with BUS_MCEERR_AR, as it does for a machine check (UFFDIO_POISON). */
static void poison_is_not_a_loss(void **state)
{
	enum { PAGE = 4096, POISONED = 3 * PAGE };
	uint8_t *memory = mmap(NULL, media_bytes(false, CAPACITY), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct device device = {.ops = &device_devdax, .base = memory, .bytes = CAPACITY};
	uint64_t canary = 0x1234;
	uint8_t page[PAGE];
	struct uffd uffd;

	(void)state;
	assert_true(memory != MAP_FAILED);
	assert_int_equal(guarded_copy_install(), SECPOOL_OK);
	assert_int_equal(uffd_open(&uffd, -1, 0), SECPOOL_OK);
	if (!uffd.has_poison) {
		uffd_close(&uffd);
		return; /* Linux before 6.6; `make check-vm` has a real machine check there */
	}
	device.control.control = memory + CAPACITY;
	device.canary = canary;
	memcpy(memory + CAPACITY + MEDIA_CANARY_AT, &canary, sizeof canary);
	memset(memory, 0x5a, POISONED);
	assert_int_equal(uffd_register(&uffd, memory + POISONED, PAGE), SECPOOL_OK);
	assert_int_equal(uffd_poison(&uffd, memory + POISONED, PAGE), SECPOOL_OK);

	assert_int_equal(device_read(&device, POISONED - PAGE, page, PAGE), SECPOOL_OK);
	assert_true(page[0] == 0x5a && page[PAGE - 1] == 0x5a);
	assert_int_equal(device_read(&device, POISONED, page, PAGE), SECPOOL_E_INTEGRITY);
	assert_int_equal(device_write(&device, POISONED, page, PAGE), SECPOOL_E_INTEGRITY);
	assert_true(device_usable(&device));
	assert_int_equal(device_write(&device, 0, page, PAGE), SECPOOL_OK);
	assert_true(device_seen_alive(&device));
	/* it answers zeros now, as one that was pulled: the same SIGBUS is a loss */
	memset(memory + CAPACITY + MEDIA_CANARY_AT, 0, sizeof canary);
	assert_int_equal(device_read(&device, POISONED, page, PAGE), SECPOOL_E_DEVICE_GONE);
	assert_false(device_usable(&device));
	uffd_close(&uffd);
	munmap(memory, media_bytes(false, CAPACITY));
}

static void kinds_and_sizes(void **state)
{
	int fds[2], null = open("/dev/null", O_RDWR | O_CLOEXEC);
	bool emulated = true;

	(void)state;
	assert_int_equal(media_is_emulated(null, &emulated), SECPOOL_OK);
	assert_false(emulated);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_int_equal(media_is_emulated(fds[0], &emulated), SECPOOL_E_INVALID);
	assert_int_not_equal(media_is_emulated(-1, &emulated), SECPOOL_OK);
	close(fds[0]);
	close(fds[1]);
	close(null);
	/* whole units, so that the control area can be mapped */
	assert_int_equal(media_bytes(false, CAPACITY) % MEDIA_UNIT_BYTES, 0);
	assert_true(media_bytes(true, CAPACITY) < media_bytes(false, CAPACITY));
	assert_false(media_canary_allowed(0) || media_canary_allowed(UINT64_MAX));
}

static void marks_are_new(void **state)
{
	uint64_t first = 0, second = 0;

	(void)state;
	assert_true(mark_read(folder) == 0);
	assert_int_equal(mark_renew(folder, &first), SECPOOL_OK);
	assert_true(media_canary_allowed(first) && mark_read(folder) == first);
	assert_int_equal(mark_renew(folder, &second), SECPOOL_OK);
	assert_true(second != first && mark_read(folder) == second);
	assert_true(mark_read("/nowhere/at/all") == 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(refused),
		TEST(a_file_is_no_devdax),
		TEST(what_shows_no_canary_is_not_there),
		TEST(poison_is_not_a_loss),
		TEST(kinds_and_sizes),
		TEST(marks_are_new),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
