/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/descriptors.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/os.h"

/* The first descriptor that is not a standard stream's. */
enum { FIRST_FD = 3 };

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE (1U << 1)
#endif

#if defined(__SANITIZE_THREAD__)

enum secpool_error descriptors_own(int *const *fds, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		*fds[i] = fcntl(*fds[i], F_DUPFD_CLOEXEC, FIRST_FD);
		if (*fds[i] < 0)
			return os_error("dup");
	}
	return SECPOOL_OK;
}

#else

/* Closes first to last, where that is a range, in a table of this thread's own. */
static bool close_between(unsigned first, unsigned last)
{
	return first > last || syscall(SYS_close_range, first, last, CLOSE_RANGE_UNSHARE) == 0;
}

static enum secpool_error cover_standard_streams(void)
{
#if !defined(__SANITIZE_ADDRESS__)
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return os_error("open /dev/null");
	for (int fd = 0; fd < FIRST_FD; fd++)
		if (null != fd && dup3(null, fd, O_CLOEXEC) < 0)
			return os_error("dup3 of /dev/null");
	if (null >= FIRST_FD)
		os_close(&null);
#endif
	return SECPOOL_OK;
}

enum secpool_error descriptors_own(int *const *fds, unsigned count)
{
	unsigned kept[DESCRIPTORS_MOST], next = FIRST_FD;

	for (unsigned i = 0; i < count; i++) { /* in order */
		unsigned at = i, fd = (unsigned)*fds[i];
		for (; at > 0 && kept[at - 1] > fd; at--)
			kept[at] = kept[at - 1];
		kept[at] = fd;
	}
	for (unsigned i = 0; i < count; i++) {
		if (!close_between(next, kept[i] - 1))
			return os_error("close_range");
		next = kept[i] + 1;
	}
	if (!close_between(next, ~0u))
		return os_error("close_range");
	return cover_standard_streams();
}

#endif
