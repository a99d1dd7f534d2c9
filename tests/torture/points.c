/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/torture/points.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct points *points_file;

/* Before main: a daemon shuts itself in there. */
static void __attribute__((constructor)) find_file(void)
{
	const char *path = getenv(POINTS_VARIABLE);
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *map;

	if (fd < 0)
		return;
	map = mmap(NULL, sizeof *points_file, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	points_file = map == MAP_FAILED ? NULL : map;
}

void points_stop(enum point point, uint32_t device)
{
	const struct timespec slice = {.tv_nsec = 1000000};
	uint32_t armed = (uint32_t)point;

	/* one process, once */
	if (!atomic_compare_exchange_strong(&points_file->armed, &armed, POINT_NONE))
		return;
	atomic_store(&points_file->device, device);
	atomic_store(&points_file->reached, (uint32_t)getpid());
	/* the torture may be gone */
	for (int i = 0; i < POINTS_HOLD_S * 1000 && !atomic_load(&points_file->go_on); i++)
		nanosleep(&slice, NULL);
}
