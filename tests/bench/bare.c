/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/bare.h"

#include <sys/mman.h>

#include "lib/base/os.h"

enum { BYTES = BARE_PAGES * BARE_PAGE_BYTES };

static void *serve(void *arg)
{
	struct bare *bare = arg;
	struct uffd_fault fault;

	for (;;) { /* until the process ends */
		uintptr_t page;
		if (uffd_read(&bare->uffd, &fault) != SECPOOL_OK)
			continue;
		page = fault.address & ~(uintptr_t)(BARE_PAGE_BYTES - 1);
		if (uffd_copy(&bare->uffd, (void *)page, bare->zeros, BARE_PAGE_BYTES, false) !=
			SECPOOL_OK)
			uffd_wake(&bare->uffd, (void *)page, BARE_PAGE_BYTES);
	}
	return NULL;
}

enum secpool_error bare_open(struct bare *bare, bool is_inline)
{
	enum secpool_error error;
	void *zeros, *memory;

	*bare = (struct bare){.memory = NULL};
	error = uffd_open(&bare->uffd, -1, is_inline ? UFFD_INLINE : 0);
	if (error)
		return error;
	memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory != MAP_FAILED)
		madvise(memory, BYTES, MADV_NOHUGEPAGE);
	zeros = mmap(NULL, BARE_PAGE_BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED || zeros == MAP_FAILED)
		return os_error("memory of %d bytes", BYTES);
	bare->memory = memory;
	bare->zeros = zeros;
	error = uffd_register(&bare->uffd, memory, BYTES);
	if (!error && !is_inline && pthread_create(&bare->thread, NULL, serve, bare) != 0)
		error = err_set(SECPOOL_E_NO_MEMORY, "no thread");
	return error;
}

void bare_drop(struct bare *bare)
{
	(void)!uffd_drop((void *)bare->memory, BYTES);
}
