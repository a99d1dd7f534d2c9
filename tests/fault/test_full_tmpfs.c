/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sparse media on a tmpfs without space: a store into a hole is a SIGBUS, though the device is there. A program's write-back goes on with the
 * other copy, and loses nothing; a scrub that can't write says so in the receipt, never hands that space out, and keymgrd goes on. timeout: 120
 */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "lib/base/os.h"
#include "lib/wire/msg.h"
#include "tests/support/support.h"

#define MIB (1ull << 20)
enum { LOCAL_BYTES = 4 << 20, PAGE = 4096, REGION_PAGES = 4096, WAIT_MS = 30000, DEVICES = 3 };

static char runtime[80];

/*
 * A small /dev/shm of this test's own, which is where the devices go when the runtime folder is not on a tmpfs; the state folder must not get
 * full too.
 */
static void mount_devices(char folder[static 64])
{
	struct statfs status;

	snprintf(folder, 64, "/var/tmp/secpool-full-XXXXXX");
	if (geteuid() != 0 || unshare(CLONE_NEWNS) != 0 ||
		mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
		mount("none", "/dev/shm", "tmpfs", 0, "size=256m,mode=1777") != 0)
		support_skip("a small /dev/shm needs root, and that it may mount");
	SUPPORT_CHECK(mkdtemp(folder) && statfs(folder, &status) == 0);
	if (status.f_type == TMPFS_MAGIC) {
		rmdir(folder);
		support_skip("/var/tmp is a tmpfs: the state would get full too");
	}
	SUPPORT_CHECK(setenv("TMPDIR", folder, 1) == 0 && chmod(folder, 0755) == 0);
	SUPPORT_CHECK(
		setenv("SECPOOL_RUNTIME_DIR", strcat(strcpy(runtime, folder), "/run"), 1) == 0);
}

/* Device `first` and those up to `last` become holes, and there is no space to fill them. */
static void take_space(int first, int last)
{
	static const char bytes[1 << 16] = {1};
	int filler = open("/dev/shm/filler", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	for (int i = first; i <= last; i++) {
		int media = open(support_path("devices/dev%d/media", i), O_RDWR | O_CLOEXEC);

		SUPPORT_CHECK(media >= 0);
		SUPPORT_CHECK(fallocate(media, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
				      64 * MIB) == 0);
		close(media);
	}
	SUPPORT_CHECK(filler >= 0);
	while (write(filler, bytes, sizeof bytes) > 0)
		;
	close(filler);
}

/* All media were holes before the region was written: one that has bytes now holds a copy. */
static int device_in_use(void)
{
	for (int i = 0; i < DEVICES; i++) {
		struct stat status;

		SUPPORT_CHECK(stat(support_path("devices/dev%d/media", i), &status) == 0);
		if ((uint64_t)status.st_blocks * 512 >= REGION_PAGES * PAGE / 2)
			return i;
	}
	support_fail("no device holds a copy");
}

static int write_back_without_space(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *region = support_region(pool, (size_t)REGION_PAGES * PAGE, 2);
	uint8_t *memory = secpool_region_address(region);

	(void)arg;
	for (unsigned round = 0; round < 3; round++) {
		for (size_t page = 0; page < REGION_PAGES; page++)
			support_fill(memory + page * PAGE, PAGE, page + round * 100000ull);
		if (round == 0) {
			SUPPORT_OK(secpool_flush(region));
			int device = device_in_use();
			take_space(device, device);
		}
		for (size_t page = 0; page < REGION_PAGES; page++)
			SUPPORT_CHECK(support_matches(
				memory + page * PAGE, PAGE, page + round * 100000ull));
	}
	secpool_close(pool);
	return 0;
}

static uint64_t create_by_hand(int fd)
{
	struct msg request = {.type = MSG_REGION_CREATE}, answer;

	request.u.region_create.bytes = 8 * MIB;
	request.u.region_create.page_bytes = PAGE;
	request.u.region_create.data = 1;
	request.u.region_create.lanes = 2;
	request.u.region_create.on_loss = MSG_ON_LOSS_SIGBUS;
	SUPPORT_OK(support_ask(fd, &request, MSG_REGION_CREATED, &answer, NULL));
	return answer.u.region_created.region;
}

static int scrub_without_space(void *arg)
{
	struct msg request = {.type = MSG_REGION_RELEASE}, answer;
	uint64_t region;
	int fd = -1;

	(void)arg;
	SUPPORT_OK(support_session("alpha", LOCAL_BYTES, &fd));
	region = create_by_hand(fd);
	take_space(0, DEVICES - 1);
	request.u.region_release.region = region;
	SUPPORT_OK(support_ask(fd, &request, MSG_RECEIPT, &answer, NULL));
	/* never "matched": a part of it was not overwritten */
	if (strstr(answer.u.receipt.document, "matched"))
		support_fail("the receipt says matched: %s", answer.u.receipt.document);
	close(fd);
	return 0;
}

static void give_space_back(void)
{
	SUPPORT_CHECK(unlink("/dev/shm/filler") == 0);
}

int main(void)
{
	char folder[64];
	pid_t keymgrd;

	mount_devices(folder);
	support_up(DEVICES, "64M", NULL);
	keymgrd = support_daemon("keymgrd");
	for (int i = 0; i < DEVICES; i++) {
		char id[8];

		snprintf(id, sizeof id, "dev%d", i);
		support_wait_device(id, "online", true, WAIT_MS);
	}
	SUPPORT_CHECK(support_join(support_fork(scrub_without_space, NULL), WAIT_MS) == 0);
	SUPPORT_CHECK(support_daemon("keymgrd") == keymgrd);
	support_wait_device("dev0", "online", false, WAIT_MS);
	give_space_back();
	SUPPORT_CHECK(support_join(support_fork(write_back_without_space, NULL), WAIT_MS) == 0);
	give_space_back();
	support_wait_regions(0, WAIT_MS);
	SUPPORT_CHECK(support_daemon("keymgrd") == keymgrd);
	support_down();
	SUPPORT_OK(os_remove_tree(folder));
	return 0;
}
